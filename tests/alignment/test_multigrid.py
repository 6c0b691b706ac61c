"""The V-cycle of the compiled kernel, through `StackEnergy`."""

import numpy as np
import pytest

from alignment.config import RelaxConfig
from alignment.energy import StackEnergy
from alignment.links import PairMatches


def stack(grid, *, stiffness=None, weight=None, free=None, neighbours=2, **settings):
    """Sheets whose nodes are tied to places near the same nodes of the sheets before."""
    nz, ny, nx = grid
    random = np.random.default_rng(0)
    pairs = [
        PairMatches(
            z, d, random.normal(scale=4, size=(2, ny, nx)).astype(np.float32), weight=weight
        )
        for z in range(nz)
        for d in range(1, min(neighbours, z) + 1)
    ]
    cells = np.ones((nz, ny - 1, nx - 1), np.float32) if stiffness is None else stiffness
    config = RelaxConfig(**{"anchor": 1e-3, "max_iterations": 100, **settings})
    return StackEnergy([p.links(32) for p in pairs], grid, 32, config, stiffness=cells, free=free)


def steps(energy, tolerance=1e-6):
    energy.prepare()
    right = np.random.default_rng(1).normal(size=energy.shape)
    if energy.free is not None:
        right *= energy.free[:, None]
    x, residuals = energy.solve(right, tolerance=tolerance)
    np.testing.assert_allclose(energy.apply(x), right, atol=20 * tolerance * np.abs(right).max())
    return len(residuals) - 1


@pytest.mark.parametrize(
    "grid", [(1, 20, 31), (2, 17, 18), (6, 17, 18), (40, 5, 9), (3, 2, 2), (3, 2, 40), (2, 2, 2)]
)
def test_any_grid_is_solved(grid):
    assert steps(stack(grid), 1e-10) < 40


def test_the_number_of_steps_hardly_grows_with_the_mesh():
    counts = [steps(stack(grid)) for grid in ((8, 9, 9), (16, 33, 33), (32, 65, 65))]
    assert max(counts) <= 12
    assert counts[2] <= counts[0] + 4


@pytest.mark.parametrize("stiffness", [0.02, 0.2, 2.0, 50.0])
def test_any_stiffness_is_solved_in_a_few_steps(stiffness):
    assert steps(stack((8, 33, 33), stiffness=np.full((8, 32, 32), stiffness, np.float32))) <= 25


def test_torn_sheets_and_holes_are_solved_too():
    torn = np.full((6, 32, 32), 5, np.float32)
    torn[2, :, 11:13] = 1e-3
    weight = np.ones((33, 33), np.float32)
    weight[8:24, 8:24] = 0
    assert steps(stack((6, 33, 33), stiffness=torn)) < 30
    assert steps(stack((6, 33, 33), weight=weight)) < 30


def test_nodes_that_are_held_do_not_slow_it_down():
    free = np.ones((9, 33, 33), np.float32)
    free[:2], free[-2:], free[:, :4], free[:, :, 30:] = 0, 0, 0, 0
    assert steps(stack((9, 33, 33), free=free)) < 15


def test_a_cycle_is_symmetric_and_positive():
    energy = stack((5, 9, 8))
    energy.prepare()
    a, b = np.random.default_rng(0).normal(size=(2, *energy.shape))
    assert (a * energy.cycle(b)).sum() == pytest.approx((b * energy.cycle(a)).sum(), rel=1e-4)
    assert (a * energy.cycle(a)).sum() > 0


def test_no_force_moves_nothing():
    energy = stack((4, 9, 9))
    energy.prepare()
    x, residuals = energy.solve(np.zeros(energy.shape), tolerance=1e-6)
    assert not x.any()
    assert residuals == [0]


def test_levels_halve_until_they_are_solved_directly():
    grids = stack((16, 33, 33)).levels()
    assert grids[0] == (16, 33, 33)
    assert grids[1] == (9, 17, 17)
    assert 2 * np.prod(grids[-1]) <= 200
