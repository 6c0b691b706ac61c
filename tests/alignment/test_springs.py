import numpy as np
import pytest

from alignment.config import RelaxConfig
from alignment.errors import ConvergenceError, DataError
from alignment.relax import PairMatches, relax_stack
from alignment.springs import SpringMesh, fire, relax_springs, square_springs
from tests.assembled import Assembled, square_stiffness
from tests.known_fields import KnownFields

SPACING = 32
GRID = (6, 8, 8)
SIDE = SPACING * 7 + 1


@pytest.fixture(scope="module")
def pairs():
    return [pair for d in (1, 2) for pair in KnownFields(6).matches(SIDE, SPACING, d=d)]


def config(**more):
    return RelaxConfig(node_spacing_px=SPACING, anchor=0.01, tolerance=1e-8, **more)


def flat(u):
    return np.moveaxis(u, 0, -1).ravel()


def test_springs_of_a_cell_are_its_stiffness():
    for nu in (0.0, 0.25, 0.4):
        expected = square_stiffness(nu).reshape(4, 2, 4, 2).swapaxes(1, 2)
        np.testing.assert_allclose(-square_springs(nu), expected, atol=1e-15)


def test_springs_the_direct_solution_and_the_solver_agree(pairs):
    settings = config(huber_px=1e6)
    mesh = SpringMesh.of(pairs, GRID, SPACING, settings)
    u, _ = relax_springs(mesh, tolerance=1e-7, max_steps=5000)
    direct = Assembled(pairs, GRID, SPACING, SPACING, settings)
    least = direct.minimise_direct()
    solved = relax_stack(pairs, GRID[0], (SIDE, SIDE), SPACING, settings)
    np.testing.assert_allclose(flat(u), least, atol=1e-3)
    np.testing.assert_allclose(np.moveaxis(solved.push, 1, 0), u, atol=1e-3)
    found = (
        mesh.energy(u),
        direct.value(least),
        direct.value(flat(np.moveaxis(solved.push, 1, 0))),
    )
    np.testing.assert_allclose(found, found[1], rtol=1e-6)


def test_springs_and_the_direct_solution_agree_on_wrong_matches_and_torn_tissue(pairs):
    torn = np.random.default_rng(0).choice([1.0, 0.05], (6, 7, 7), p=[0.8, 0.2])
    settings = config(huber_px=2.0)
    weighed = [
        PairMatches(p.z, p.d, p.displacement, weight=np.full((8, 8), 0.5, np.float32))
        for p in pairs
    ]
    mesh = SpringMesh.of(weighed, GRID, SPACING, settings, torn)
    u, _ = relax_springs(mesh, tolerance=1e-7, max_steps=5000)
    direct = Assembled(weighed, GRID, SPACING, SPACING, settings, torn)
    least = direct.minimise_direct()
    np.testing.assert_allclose(flat(u), least, atol=1e-3)
    assert mesh.energy(u) == pytest.approx(direct.value(least), rel=1e-6)


def test_forces_are_the_slope_of_the_energy(pairs):
    mesh = SpringMesh.of(pairs, GRID, SPACING, config(huber_px=2.0))
    u, step = np.random.default_rng(0).normal(size=(2, 2, *GRID))
    slope = (mesh.energy(u + 1e-5 * step) - mesh.energy(u - 1e-5 * step)) / 2e-5
    assert slope == pytest.approx(-(mesh.forces(u) * step).sum(), rel=1e-6)


def test_a_single_mass_comes_to_rest_at_home():
    swing = fire(lambda u: -3 * u, np.full(1, 3.0), np.array([10.0]))
    assert all(abs(next(swing)[0].item()) <= 10 for _ in range(200))
    assert abs(next(swing)[0].item()) < 1e-3


def test_springs_that_still_move_are_an_error_with_a_way_out(pairs):
    mesh = SpringMesh.of(pairs, GRID, SPACING, config())
    with pytest.raises(ConvergenceError, match="raise max_steps or tolerance"):
        relax_springs(mesh, tolerance=1e-9, max_steps=20)


def test_covariances_are_refused_with_a_way_out(pairs):
    pair = PairMatches(1, 1, pairs[0].displacement, np.ones((3, 8, 8), np.float32))
    with pytest.raises(DataError, match="covariance=None"):
        SpringMesh.of([pair], GRID, SPACING, config())
