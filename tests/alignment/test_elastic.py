import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.elastic import Sheets, elastic_energy

STIFFNESS, POISSON = 3.0, 0.3


def deformed(gradient, ny=6, nx=9, spacing=10.0):
    """Push field with a constant gradient d u_i / d x_j."""
    nodes = np.indices((ny, nx), float).reshape(2, -1) * spacing
    return (np.asarray(gradient, float) @ nodes).reshape(2, ny, nx).astype(np.float32)


def energy(push):
    return elastic_energy(push, stiffness=STIFFNESS, poisson_ratio=POISSON)


@settings(deadline=None)
@given(st.lists(st.floats(-0.2, 0.2), min_size=4, max_size=4))
def test_the_energy_of_an_affine_deformation_is_hookes(gradient):
    (yy, yx), (xy, xx) = np.reshape(gradient, (2, 2))
    shear = yx + xy
    density = (
        STIFFNESS
        / (1 - POISSON**2)
        / 2
        * (yy**2 + xx**2 + 2 * POISSON * yy * xx + (1 - POISSON) / 2 * shear**2)
    )
    area = 50 * 80
    assert energy(deformed([[yy, yx], [xy, xx]])) == pytest.approx(
        area * density, rel=1e-4, abs=1e-3
    )


def test_shifts_and_small_rotations_are_free():
    assert energy(np.full((2, 4, 5), 7, np.float32)) == pytest.approx(0, abs=1e-9)
    assert energy(deformed([[0, -0.1], [0.1, 0]])) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("finer", [2, 5])
def test_a_deformation_costs_the_same_on_a_finer_mesh(finer):
    coarse = np.zeros((2, 2, 2), np.float32)
    coarse[0, 1, 1] = 3
    share = np.linspace(0, 1, finer + 1, dtype=np.float32)
    fine = np.zeros((2, finer + 1, finer + 1), np.float32)
    fine[0] = 3 * share[:, None] * share
    assert energy(fine) == pytest.approx(energy(coarse), rel=1e-5)


def test_the_matrix_is_symmetric_and_never_negative():
    sheets = Sheets(np.random.default_rng(0).uniform(0.1, 2, (2, 3, 2)), POISSON)
    dense = sheets.matrix.toarray()
    np.testing.assert_allclose(dense, dense.T, atol=1e-12)
    eigenvalues = np.linalg.eigvalsh(dense)
    assert np.sum(np.abs(eigenvalues) < 1e-9) == 2 * 3, "shifts and rotation of each section"
    assert eigenvalues.min() > -1e-9


def test_a_cells_stiffness_counts_for_its_own_strain_only():
    stiffness = np.full((1, 1, 2), 1.0)
    stiffness[0, 0, 1] = 0.01
    u = np.zeros((2, 3, 2))
    u[:, 2, 1] = 5  # stretches the soft cell
    soft = Sheets(stiffness, 0.0).energy(u.ravel())
    assert soft == pytest.approx(0.01 * Sheets(np.ones((1, 1, 2)), 0.0).energy(u.ravel()))


def test_random_forces_have_the_matrix_as_covariance():
    sheets = Sheets(np.array([[[1.0, 3.0]]]), POISSON)
    random = np.random.default_rng(0)
    forces = np.stack([sheets.random_forces(random) for _ in range(20_000)])
    np.testing.assert_allclose(np.cov(forces.T), sheets.matrix.toarray(), atol=0.06)
