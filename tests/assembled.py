"""The energy of relaxation as assembled sparse matrices: slow, plain, and an oracle for the solver.

Nothing here is shared with `alignment.energy` but the definition that its docstring gives. Rows of
matches, stiffness of cells and anchor become one CSR matrix, and scipy's direct solver finds the
minimum to the last bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from alignment.bilinear import grid_points, interpolation
from alignment.config import RelaxConfig
from alignment.relax import PairMatches

REFERENCE_PX = 32.0
LEAST_ANCHOR = 1e-6
SHARED, LARGEST = 0.6, 16.0  # of the typical variance: share of tissue; what is believed at most


class Assembled:
    """The energy of a stack as a function of displacements u, float64 (2 * nz * ny * nx,).

    The order of the unknowns is (z, y, x, component).

    Parameters
    ----------
    pairs : sequence of PairMatches
    grid : tuple of int
        Nodes (nz, ny, nx).
    node_spacing_px, match_spacing_px : int
        px at mip 0.
    config : RelaxConfig
    stiffness_map : ndarray of shape (nz, ny - 1, nx - 1), optional
        Factor on config.stiffness of every cell.
    free : bool ndarray of shape (nz,) or (nz, ny, nx), optional
        The others are held where `minimise_direct` starts: at 0 unless it is told.
    """

    def __init__(
        self,
        pairs: Sequence[PairMatches],
        grid: tuple[int, int, int],
        node_spacing_px: int,
        match_spacing_px: int,
        config: RelaxConfig,
        stiffness_map: np.ndarray | None = None,
        free: np.ndarray | None = None,
    ) -> None:
        self.grid, self.config = grid, config
        self.size = 2 * int(np.prod(grid))
        self._link(pairs, node_spacing_px, match_spacing_px)
        cells = np.ones((grid[0], grid[1] - 1, grid[2] - 1))
        cells = cells if stiffness_map is None else cells * stiffness_map
        self.elastic = stiffness_matrix(config.stiffness * cells, config.poisson_ratio)
        self.anchor = max(config.anchor, LEAST_ANCHOR) * (node_spacing_px / REFERENCE_PX) ** 2
        movable = np.ones(grid[:1], bool) if free is None else np.asarray(free, bool)
        movable = movable.reshape(movable.shape + (1,) * (3 - movable.ndim))
        self.free = np.repeat(np.broadcast_to(movable, grid).ravel(), 2)

    def _link(
        self, pairs: Sequence[PairMatches], node_spacing_px: int, match_spacing_px: int
    ) -> None:
        _, ny, nx = self.grid
        rows: list[sparse.csr_array] = []
        targets, weights, covariances = [], [], []
        for pair in pairs:
            match = pair.displacement.reshape(2, -1).T.astype(np.float64)
            weight = np.ones(len(match)) if pair.weight is None else pair.weight.ravel()
            used = np.isfinite(match).all(axis=1) & (weight > 0)
            points = grid_points(*pair.displacement.shape[1:], match_spacing_px)[used]
            ends = ((pair.z, points, 1), (pair.z - pair.d, points + match[used], -1))
            row = sparse.csr_array((len(points), int(np.prod(self.grid))))
            for z, at, sign in ends:
                nodes, shares = interpolation((ny, nx), node_spacing_px, at)
                first = 4 * np.arange(len(at) + 1)
                values = sign * shares.ravel(), z * ny * nx + nodes.ravel(), first
                row = row + sparse.csr_array(values, shape=row.shape)
            rows.append(row)
            targets.append(match[used])
            area = (match_spacing_px / REFERENCE_PX) ** 2
            weights.append(weight[used] * area / pair.d**2)
            unknown = np.full((3, *pair.displacement.shape[1:]), np.nan)
            covariance = unknown if pair.covariance is None else pair.covariance
            covariances.append(covariance.reshape(3, -1).T[used].astype(np.float64))
        self.target = np.vstack([np.zeros((0, 2)), *targets])
        weight = np.concatenate([np.zeros(0), *weights])
        self.precision = np.vstack([np.zeros((0, 3)), *map(precisions, covariances)])
        stacked = sparse.vstack(rows) if rows else sparse.csr_array((0, self.size // 2))
        self.difference = sparse.csr_array(sparse.kron(stacked, np.eye(2)))
        blocks = self.precision[:, [[0, 1], [1, 2]]] * weight[:, None, None]
        self.weight = weight
        self.weights = _block_diagonal(blocks)

    def residual(self, u: np.ndarray) -> np.ndarray:
        """Predicted minus measured displacement (n, 2), px."""
        return (self.difference @ u).reshape(-1, 2) - self.target

    def length(self, u: np.ndarray) -> np.ndarray:
        """Length (n,) of the residuals in units of the typical match's px."""
        residual = self.residual(u)
        return np.sqrt(
            np.einsum("ni,nij,nj->n", residual, self.precision[:, [[0, 1], [1, 2]]], residual)
        )

    def robust(self, u: np.ndarray) -> np.ndarray:
        """Huber's weights (n,)."""
        limit = self.config.huber_px
        return limit / np.maximum(self.length(u), limit)

    def _weighted(self, robust: np.ndarray) -> sparse.csr_array:
        return sparse.csr_array(self.weights @ sparse.diags_array(np.repeat(robust, 2)))

    def matrix(self, robust: np.ndarray) -> sparse.csr_array:
        """Matrix (n, n) of the quadratic energy in which matches have weights `robust`."""
        information = self.difference.T @ self._weighted(robust) @ self.difference
        anchor = self.anchor * sparse.eye_array(self.size)
        return sparse.csr_array(information + self.elastic + anchor)

    def right(self, robust: np.ndarray) -> np.ndarray:
        """Right-hand side (n,) of the same energy."""
        return self.difference.T @ (self._weighted(robust) @ self.target.ravel())

    def value(self, u: np.ndarray) -> float:
        """Energy of u, all its parts together, px^2."""
        length, limit = self.length(u), self.config.huber_px
        huber = np.where(length < limit, length**2 / 2, limit * (length - limit / 2))
        sheets = u @ (self.elastic @ u) / 2
        return float(self.weight @ huber + sheets + self.anchor * (u @ u) / 2)

    def solve_direct(self, robust: np.ndarray, held: np.ndarray | None = None) -> np.ndarray:
        """Minimum of the quadratic energy, by a sparse LU decomposition."""
        u = np.zeros(self.size) if held is None else np.where(self.free, 0.0, held)
        matrix = self.matrix(robust)
        right = self.right(robust) - matrix @ u
        free = np.flatnonzero(self.free)
        u[free] = splu(matrix[free][:, free].tocsc()).solve(right[free])
        return u

    def minimise_direct(
        self, held: np.ndarray | None = None, *, rounds: int = 200, settled_px: float = 1e-6
    ) -> np.ndarray:
        """Minimum (n,) of the robust energy, by iterative re-weighting until nothing moves."""
        u = self.solve_direct(np.ones(len(self.target)), held)
        for _ in range(rounds):
            before, u = u, self.solve_direct(self.robust(u), held)
            if np.abs(u - before).max() < settled_px:
                return u
        raise AssertionError(f"still moving by {np.abs(u - before).max():.1e} px")


def stiffness_matrix(cells: np.ndarray, poisson_ratio: float) -> sparse.csr_array:
    """Stiffness matrix of sheets whose cells (nz, ny - 1, nx - 1) have these Young's moduli."""
    nz, cy, cx = cells.shape
    node = np.arange(nz * (cy + 1) * (cx + 1)).reshape(nz, cy + 1, cx + 1)
    low, high = slice(None, -1), slice(1, None)
    corners = np.stack([node[:, y, x] for y in (low, high) for x in (low, high)], axis=-1)
    unknowns = (2 * corners[..., None] + np.arange(2)).reshape(-1, 8)
    values = cells.reshape(-1, 1) * square_stiffness(poisson_ratio).ravel()
    rows, columns = np.repeat(unknowns, 8, axis=1), np.tile(unknowns, (1, 8))
    return sparse.csr_array((values.ravel(), (rows.ravel(), columns.ravel())), (2 * node.size,) * 2)


def square_stiffness(poisson_ratio: float) -> np.ndarray:
    """Stiffness matrix (8, 8) of one square cell in plane stress, Young's modulus 1."""
    nu = poisson_ratio
    elasticity = np.array([[1, nu, 0], [nu, 1, 0], [0, 0, (1 - nu) / 2]]) / (1 - nu * nu)
    total = np.zeros((8, 8))
    gauss = 0.5 - 0.5 / np.sqrt(3), 0.5 + 0.5 / np.sqrt(3)
    for y, x in ((y, x) for y in gauss for x in gauss):
        strain = np.zeros((3, 8))
        strain[0, 0::2] = strain[2, 1::2] = x - 1, -x, 1 - x, x
        strain[1, 1::2] = strain[2, 0::2] = y - 1, 1 - y, -y, y
        total += strain.T @ elasticity @ strain / 4
    return total


def precisions(covariance: np.ndarray) -> np.ndarray:
    """Inverse covariances (n, 3) of a pair, tempered as `alignment.links` says."""
    matrices = covariance[:, [[0, 1], [1, 2]]]
    determinant = covariance[:, 0] * covariance[:, 2] - covariance[:, 1] ** 2
    good = np.isfinite(determinant) & (determinant > 0) & (covariance[:, 0] > 0)
    found = np.tile([1.0, 0.0, 1.0], (len(covariance), 1))
    if good.any():
        typical = np.median(np.sqrt(determinant[good]))
        values, vectors = np.linalg.eigh(matrices[good] / typical)
        inverse = 1 / (SHARED + (1 - SHARED) * np.clip(values, 0, LARGEST))
        whole = np.einsum("nik,nk,njk->nij", vectors, inverse, vectors)
        found[good] = whole[:, [0, 0, 1], [0, 1, 1]]
    return found


def _block_diagonal(blocks: np.ndarray) -> sparse.csr_array:
    """Matrix (2 n, 2 n) of n blocks (2, 2)."""
    n = len(blocks)
    columns = np.repeat(np.arange(2 * n).reshape(n, 1, 2), 2, axis=1)
    return sparse.csr_array(
        (blocks.ravel(), columns.ravel(), 2 * np.arange(2 * n + 1)), (2 * n,) * 2
    )
