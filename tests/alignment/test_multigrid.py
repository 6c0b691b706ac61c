import numpy as np
import pytest
from scipy import sparse

from alignment.elastic import Sheets
from alignment.errors import ConvergenceError
from alignment.multigrid import Multigrid, solve


def coupled(nz, ny, nx, *, anchor=1e-3, stiffness=None):
    """Sheets whose nodes are tied to the same nodes of the next sheet."""
    cells = np.ones((nz, ny - 1, nx - 1)) if stiffness is None else stiffness
    step = sparse.diags_array([-1.0, 1.0], offsets=[0, 1], shape=(nz - 1, nz))
    chain = sparse.kron(step.T @ step, sparse.eye_array(2 * ny * nx))
    unknowns = 2 * nz * ny * nx
    return (Sheets(cells, 0.25).matrix + chain + anchor * sparse.eye_array(unknowns)).tocsr()


@pytest.mark.parametrize("grid", [(1, 20, 31), (6, 17, 18), (40, 5, 9), (3, 2, 2)])
def test_the_solution_solves_the_system(grid):
    matrix = coupled(*grid)
    expected = np.random.default_rng(0).normal(size=matrix.shape[0])
    x, _ = solve(
        matrix,
        matrix @ expected,
        np.zeros_like(expected),
        Multigrid.of(matrix, grid),
        tolerance=1e-10,
        max_iterations=60,
    )
    np.testing.assert_allclose(x, expected, atol=1e-5)


def test_the_number_of_steps_hardly_grows_with_the_mesh():
    steps = []
    for grid in ((8, 9, 9), (16, 33, 33)):
        matrix = coupled(*grid, anchor=1e-4)
        right = np.random.default_rng(0).normal(size=matrix.shape[0])
        steps.append(
            solve(
                matrix,
                right,
                np.zeros_like(right),
                Multigrid.of(matrix, grid),
                tolerance=1e-6,
                max_iterations=100,
            )[1]
        )
    assert steps[1] <= steps[0] + 6


def test_torn_sheets_are_solved_too():
    grid = (6, 25, 25)
    stiffness = np.full((6, 24, 24), 5.0)
    stiffness[2, :, 11:13] = 1e-3
    matrix = coupled(*grid, stiffness=stiffness)
    right = np.random.default_rng(0).normal(size=matrix.shape[0])
    hierarchy = Multigrid.of(matrix, grid)
    x, steps = solve(
        matrix, right, np.zeros_like(right), hierarchy, tolerance=1e-6, max_iterations=60
    )
    assert np.abs(matrix @ x - right).max() < 1e-3
    assert steps < 40


def test_a_cycle_is_symmetric_and_positive():
    grid = (5, 9, 8)
    hierarchy = Multigrid.of(coupled(*grid), grid)
    a, b = np.random.default_rng(0).normal(size=(2, 2 * 5 * 9 * 8))
    assert a @ hierarchy.cycle(b) == pytest.approx(b @ hierarchy.cycle(a))
    assert a @ hierarchy.cycle(a) > 0


def test_a_good_start_needs_no_step_and_no_force_moves_nothing():
    grid = (4, 9, 9)
    matrix = coupled(*grid)
    expected = np.random.default_rng(0).normal(size=matrix.shape[0])
    hierarchy = Multigrid.of(matrix, grid)
    limits = {"tolerance": 1e-6, "max_iterations": 50}
    x, steps = solve(matrix, matrix @ expected, expected, hierarchy, **limits)
    assert steps == 0
    np.testing.assert_array_equal(x, expected)
    x, _ = solve(matrix, 0 * expected, expected, hierarchy, **limits)
    np.testing.assert_array_equal(x, 0)


def test_a_solve_that_stops_early_names_the_settings():
    grid = (6, 17, 17)
    matrix = coupled(*grid)
    right = np.random.default_rng(0).normal(size=matrix.shape[0])
    with pytest.raises(ConvergenceError, match=r"after 1 steps.*relax\.max_iterations"):
        solve(
            matrix,
            right,
            np.zeros_like(right),
            Multigrid.of(matrix, grid),
            tolerance=1e-12,
            max_iterations=1,
        )
