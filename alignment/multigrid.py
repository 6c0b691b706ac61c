"""Conjugate gradients on a stack of meshes, preconditioned by geometric multigrid.

The unknowns are displacements at the nodes of a regular grid (nz, ny, nx), two a node, in the order
(z, y, x, component). Every level halves all three axes by linear interpolation, with the exact
(Galerkin) coarse matrix, so torn, masked and unevenly matched regions stay what they are on the
coarse levels. Each level is smoothed by a Chebyshev polynomial of the diagonally scaled matrix:
products of sparse matrices with vectors only, hence the same bits for any number of threads.

References
----------
.. [1] U. Trottenberg, C. W. Oosterlee, A. Schueller, "Multigrid", Academic Press, 2001.
.. [2] M. Adams, M. Brezina, J. Hu, R. Tuminaro, "Parallel multigrid smoothing: polynomial versus
   Gauss-Seidel", Journal of Computational Physics 188, 2003.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from alignment.errors import ConvergenceError

Vector = NDArray[np.float64]

_COARSEST = 64  # unknowns that are solved for directly; too few for a threaded library to split up
_SMOOTHED_SHARE = 0.25  # a level smooths the upper three quarters of its spectrum
_SMOOTHING_STEPS = 2
_POWER_STEPS = 12
_SPECTRUM_MARGIN = 1.1  # the power method finds the largest eigenvalue from below


@dataclass(frozen=True)
class _Level:
    matrix: sparse.csr_array
    up: sparse.csr_array
    down: sparse.csr_array
    scale: Vector  # 1 / diagonal
    largest: float  # bound of the spectrum of scale * matrix


@dataclass(frozen=True)
class Multigrid:
    """A hierarchy of levels; `cycle` applies one symmetric V-cycle."""

    levels: tuple[_Level, ...]
    coarsest: SuperLU

    @classmethod
    def of(cls, matrix: sparse.csr_array, grid: tuple[int, int, int]) -> Multigrid:
        """Build the hierarchy of a symmetric positive definite matrix.

        Parameters
        ----------
        matrix : csr_array of shape (n, n)
            With n = 2 * nz * ny * nx, two unknowns a node.
        grid : tuple of int
            Nodes (nz, ny, nx).
        """
        levels = []
        while matrix.shape[0] > _COARSEST and max(grid) > 2:
            steps = [_prolongation(n) for n in grid]
            up = sparse.kron(sparse.kron(*steps[:2]), sparse.kron(steps[2], np.eye(2))).tocsr()
            down = up.T.tocsr()
            scale = 1.0 / matrix.diagonal()
            levels.append(_Level(matrix, up, down, scale, _largest_eigenvalue(matrix, scale)))
            matrix = (down @ matrix @ up).tocsr()
            nz, ny, nx = (step.shape[1] for step in steps)
            grid = (nz, ny, nx)
        return cls(tuple(levels), splu(matrix.tocsc()))

    def cycle(self, residual: Vector, depth: int = 0) -> Vector:
        """Return an approximate solution for `residual`: linear in it, symmetric, positive."""
        if depth == len(self.levels):
            return np.asarray(self.coarsest.solve(residual))
        level = self.levels[depth]
        x = _smooth(level, residual)
        x += level.up @ self.cycle(level.down @ (residual - level.matrix @ x), depth + 1)
        x += _smooth(level, residual - level.matrix @ x)
        return x


def solve(
    matrix: sparse.csr_array,
    right: Vector,
    start: Vector,
    preconditioner: Multigrid,
    *,
    tolerance: float,
    max_iterations: int,
) -> tuple[Vector, int]:
    """Solve ``matrix @ x = right`` by preconditioned conjugate gradients.

    Returns
    -------
    x : float64 ndarray of shape (n,)
    iterations : int

    Raises
    ------
    ConvergenceError
        If the residual, in the norm of the preconditioner and relative to that of `right`, is
        above `tolerance` after `max_iterations` steps.
    """
    x = start.copy()
    residual = right - matrix @ x
    goal = tolerance**2 * _dot(right, preconditioner.cycle(right))
    if goal == 0:
        return np.zeros_like(right), 0
    direction = np.zeros_like(x)
    before = 1.0
    for iteration in range(max_iterations + 1):
        step = preconditioner.cycle(residual)
        now = _dot(residual, step)
        if now <= goal:
            return x, iteration
        if iteration == max_iterations:
            break
        direction = step + now / before * direction
        image = matrix @ direction
        length = now / _dot(direction, image)
        x += length * direction
        residual -= length * image
        before = now
    raise ConvergenceError(
        f"the elastic solve reached a relative residual of {np.sqrt(now / goal) * tolerance:.1e} "
        f"after {max_iterations} steps, asked for {tolerance:.1e}; raise relax.max_iterations, "
        "relax.tolerance or relax.stiffness"
    )


def _prolongation(n: int) -> sparse.csr_array:
    """Linear interpolation to n nodes from every second one (and one beyond, if n is even)."""
    if n <= 2:
        return sparse.eye_array(n, format="csr")
    fine = np.arange(n)
    low, odd = fine // 2, fine % 2
    rows, columns = np.r_[fine, fine[odd == 1]], np.r_[low, low[odd == 1] + 1]
    values = np.r_[np.where(odd, 0.5, 1.0), np.full(odd.sum(), 0.5)]
    return sparse.csr_array((values, (rows, columns)), shape=(n, n // 2 + 1))


def _largest_eigenvalue(matrix: sparse.csr_array, scale: Vector) -> float:
    vector = np.random.default_rng(0).normal(size=len(scale))
    for _ in range(_POWER_STEPS):
        vector = scale * (matrix @ vector)
        largest = np.sqrt(_dot(vector, vector))
        vector /= largest
    return float(largest) * _SPECTRUM_MARGIN


def _smooth(level: _Level, residual: Vector) -> Vector:
    """Chebyshev iteration from 0 on the upper part of the spectrum."""
    centre = level.largest * (1 + _SMOOTHED_SHARE) / 2
    radius = level.largest * (1 - _SMOOTHED_SHARE) / 2
    step = level.scale * residual / centre
    x = step.copy()
    ratio = radius / centre
    for _ in range(_SMOOTHING_STEPS - 1):
        residual = residual - level.matrix @ step
        following = 1 / (2 * centre / radius - ratio)
        step = following * ratio * step + 2 * following / radius * level.scale * residual
        x += step
        ratio = following
    return x


def _dot(a: Vector, b: Vector) -> float:
    # Not BLAS: its sums depend on the number of threads, and so would every digest after them.
    return float((a * b).sum())
