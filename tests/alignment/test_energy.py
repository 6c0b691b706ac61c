from dataclasses import astuple

import numpy as np
import pytest

from alignment.config import RelaxConfig
from alignment.elastic import Sheets
from alignment.energy import StackEnergy
from alignment.links import PairMatches, link
from tests.known_fields import KnownFields

SIDE, SPACING = 192, 32
GRID = (4, 7, 7)


@pytest.fixture(scope="module")
def energy():
    pairs = KnownFields(4).matches(SIDE, SPACING, d=1, wrong=0.2)
    config = RelaxConfig(huber_px=2.0, anchor=0.01, robust_iterations=50, tolerance=1e-9)
    sheets = Sheets(np.full((4, 6, 6), 1.5), 0.25)
    return StackEnergy(link(pairs, GRID, SPACING, SPACING), sheets, config)


def total(energy, u):
    return sum(astuple(energy.value(u)))


def test_nothing_near_the_minimum_has_less_energy(energy):
    u, _, _ = energy.minimise()
    least = total(energy, u)
    random = np.random.default_rng(0)
    for size in (0.3, 3.0):
        assert all(
            total(energy, u + random.normal(scale=size, size=u.shape)) > least for _ in range(20)
        )


def test_the_minimum_does_not_depend_on_the_start(energy):
    u, _, _ = energy.minimise()
    far = np.random.default_rng(0).normal(scale=20, size=u.shape)
    np.testing.assert_allclose(energy.minimise(far)[0], u, atol=0.1)


def test_the_matrix_is_the_curvature_of_the_energy_for_small_residuals(energy):
    random = np.random.default_rng(0)
    u = random.normal(scale=0.1, size=2 * np.prod(GRID))
    still = link([], GRID, SPACING, SPACING)
    free = StackEnergy(still, energy.sheets, energy.config)
    assert total(free, u) == pytest.approx(u @ (free.matrix(np.zeros(0)) @ u) / 2)
    robust = np.ones(len(energy.links.weight))
    measured = StackEnergy(
        energy.links, energy.sheets, energy.config.model_copy(update={"huber_px": 1e9})
    )
    linear = u @ energy.links.forces(robust, energy.links.target)
    expected = total(measured, 0 * u) - linear + u @ (measured.matrix(robust) @ u) / 2
    assert total(measured, u) == pytest.approx(expected)


def test_a_residual_beyond_the_limit_costs_linearly():
    displacement = np.full((2, 7, 7), np.nan, np.float32)
    displacement[:, 2, 2] = (0, 1.5)
    displacement[:, 4, 4] = (-3, 4)
    links = link([PairMatches(1, 1, displacement)], GRID, SPACING, SPACING)
    config = RelaxConfig(huber_px=2.0, anchor=0.01, node_spacing_px=64)
    value = StackEnergy(links, Sheets(np.ones((4, 6, 6)), 0.25), config).value
    assert value(np.zeros(2 * np.prod(GRID))).matches == pytest.approx(1.5**2 / 2 + 2 * (5 - 1))
    shifted = value(np.full(2 * np.prod(GRID), 3.0))
    assert shifted.matches == pytest.approx(1.5**2 / 2 + 2 * (5 - 1)), "all move alike"
    assert shifted.elastic == pytest.approx(0, abs=1e-9)
    area = (64 / 32) ** 2
    assert shifted.anchor == pytest.approx(0.01 * area * np.prod(GRID) * (3**2 + 3**2) / 2)


def test_wrong_matches_have_little_weight(energy):
    u, robust, _ = energy.minimise()
    length = np.hypot(*energy.links.residual(u).T)
    assert robust[length > 10].max() < 0.21
    assert (robust[length < 1.9] == 1).all()


def test_without_an_anchor_the_stack_still_has_one_place(energy):
    config = energy.config.model_copy(update={"anchor": 0.0, "tolerance": 1e-6})
    u, _, _ = StackEnergy(energy.links, energy.sheets, config).minimise()
    assert np.abs(u.reshape(-1, 2).mean(axis=0)).max() < 0.5


def test_stiffer_cells_bend_less(energy):
    factors = np.ones((4, 6, 6))
    factors[2] = 100
    soft, _, _ = energy.minimise()
    stiff, _, _ = energy.stiffened(factors).minimise()
    section = energy.sheets.stiffness[:1], 0.25
    before, after = (Sheets(*section).energy(u.reshape(*GRID, 2)[2].ravel()) for u in (soft, stiff))
    assert after < 0.05 * before
