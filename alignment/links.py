"""Matches as the rows of one linear system over the nodes of all sections.

A match m at point p of section z against section z - d says ``U_z(p) - U_{z-d}(p + m) = m``, with U
bilinear in the nodes of each section: one row with eight weights that sum to zero, for both
components alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from alignment.bilinear import grid_points, interpolation
from alignment.errors import DataError, ShapeError

REFERENCE_PX = 32.0
"""A match weighs 1 if matches lie this far apart; a denser grid shares the weight of an area."""

_TYPICAL = (1.0, 0.0, 1.0)
_SHARED = 0.6  # share of the typical match's variance that is change of the tissue
_LARGEST = 16.0  # variances are believed up to this multiple of the typical one

Values = NDArray[np.float64]


@dataclass(frozen=True)
class PairMatches:
    """What was measured between section z (moving) and section z - d (fixed).

    Attributes
    ----------
    z, d : int
    displacement : float32 ndarray of shape (2, my, mx)
        Matches (dy, dx), px at mip 0; NaN = missing. Match (i, j) lies on pixel (i * s, j * s).
    covariance : float32 ndarray of shape (3, my, mx), optional
        Of the matches (yy, yx, xx), px^2; only ratios count. Without, or where not finite and
        positive: as the typical match.
    weight : float32 ndarray of shape (my, mx), optional
        Factor on the weight of each match; 1 without. 0 or NaN leaves the match out.
    """

    z: int
    d: int
    displacement: NDArray[np.float32]
    covariance: NDArray[np.float32] | None = None
    weight: NDArray[np.float32] | None = None

    def check(self, nz: int) -> None:
        """Raise DataError or ShapeError, naming the pair, unless it fits a stack of `nz`."""
        if self.d < 1 or not 0 <= self.z - self.d < self.z < nz:
            raise DataError(
                f"pair (z={self.z}, d={self.d}) does not lie in a stack of {nz} sections; "
                "it needs d >= 1 and d <= z < nz"
            )
        grid = self.displacement.shape[1:]
        wanted = {"displacement": (2, *grid), "covariance": (3, *grid), "weight": grid}
        for name, shape in wanted.items():
            array = getattr(self, name)
            if array is not None and (array.shape != shape or len(grid) != 2):
                raise ShapeError(
                    f"pair (z={self.z}, d={self.d}): displacement must have shape (2, my, mx), "
                    f"covariance (3, my, mx), weight (my, mx); got {name} of shape {array.shape} "
                    f"beside a displacement of shape {self.displacement.shape}"
                )


@dataclass(frozen=True)
class Links:
    """The rows of all usable matches.

    Attributes
    ----------
    difference : csr_array of shape (n, nodes)
        ``difference @ u`` is U_z(p) - U_{z-d}(p + m), for u of shape (nodes, 2).
    target : float64 ndarray of shape (n, 2)
        The matches m, px.
    weight : float64 ndarray of shape (n,)
        Area that the match stands for, in units of 32 x 32 px, over d^2, times its own weight.
    precision : float64 ndarray of shape (n, 3)
        Inverse covariance (yy, yx, xx) against the typical match's, which has (1, 0, 1).
    rows : tuple of (k, flat index) pairs
        For the pairs that have rows, in the order of the rows: number of the pair and the nodes of
        its grid.
    """

    difference: sparse.csr_array
    target: Values
    weight: Values
    precision: Values
    rows: tuple[tuple[int, NDArray[np.intp]], ...]

    @cached_property
    def _transposed(self) -> sparse.csr_array:
        return self.difference.T.tocsr()

    def residual(self, u: Values) -> Values:
        """Return predicted minus measured displacement (n, 2) of displacements (2 * nodes,)."""
        return self.difference @ u.reshape(-1, 2) - self.target

    def length(self, residual: Values) -> Values:
        """Return the length (n,) of residuals (n, 2) in units of the typical match's px."""
        (yy, yx, xx), (y, x) = self.precision.T, residual.T
        return np.sqrt(yy * y * y + 2 * yx * y * x + xx * x * x)

    def information(self, robust: Values) -> sparse.csr_array:
        """Return the matrix J' W J over all unknowns, its rows weighted by `robust` (n,) too."""
        if (self.precision == _TYPICAL).all():
            parts = [(0, np.eye(2))]
        else:
            parts = [(0, np.diag([1, 0])), (1, np.eye(2)[::-1]), (2, np.diag([0, 1]))]
        total = sparse.csr_array((2 * self.difference.shape[1],) * 2)
        for channel, pattern in parts:
            rows = sparse.diags_array(robust * self.weight * self.precision[:, channel])
            nodes = self._transposed @ (rows @ self.difference)
            total = total + sparse.kron(nodes, pattern, format="csr")
        return total

    def forces(self, robust: Values, pulls: Values) -> Values:
        """Return J' W pulls over all unknowns, for one pull (n, 2) a row."""
        (yy, yx, xx), (y, x) = self.precision.T, pulls.T
        pulled = np.stack([yy * y + yx * x, yx * y + xx * x], axis=1)
        pulled *= (robust * self.weight)[:, None]
        return np.asarray(self._transposed @ pulled).ravel()

    def random_forces(self, robust: Values, random: np.random.Generator) -> Values:
        """Draw forces over all unknowns whose covariance is `information`."""
        yy, yx, xx = self.precision.T
        # Cholesky factor of each 2 x 2 precision.
        a = np.sqrt(yy)
        b = yx / a
        c = np.sqrt(xx - b * b)
        draw = random.standard_normal(self.target.shape) * np.sqrt(robust * self.weight)[:, None]
        noise = np.stack([a * draw[:, 0], b * draw[:, 0] + c * draw[:, 1]], axis=1)
        return np.asarray(self._transposed @ noise).ravel()


def link(
    pairs: Sequence[PairMatches],
    grid: tuple[int, int, int],
    node_spacing_px: int,
    match_spacing_px: int,
) -> Links:
    """Build the rows of all finite matches of `pairs` over a stack of meshes (nz, ny, nx)."""
    _, ny, nx = grid
    columns, values, targets, covariances, weights, rows = [], [], [], [], [], []
    for k, pair in enumerate(pairs):
        _, my, mx = pair.displacement.shape
        displacement = pair.displacement.reshape(2, -1).astype(np.float64)
        ones = np.ones(displacement.shape[1])
        weight = ones if pair.weight is None else pair.weight.ravel().astype(np.float64)
        used = np.flatnonzero(np.isfinite(displacement).all(axis=0) & (weight > 0))
        if not used.size:
            continue
        points = grid_points(my, mx, match_spacing_px)[used]
        match = displacement.T[used]
        here, here_share = interpolation((ny, nx), node_spacing_px, points)
        there, there_share = interpolation((ny, nx), node_spacing_px, points + match)
        columns.append(np.hstack([pair.z * ny * nx + here, (pair.z - pair.d) * ny * nx + there]))
        values.append(np.hstack([here_share, -there_share]))
        targets.append(match)
        # Tissue drifts on from section to section: the matches' errors grow in proportion to d.
        weights.append(weight[used] * (match_spacing_px / REFERENCE_PX / pair.d) ** 2)
        covariances.append(
            np.full((used.size, 3), np.nan)
            if pair.covariance is None
            else pair.covariance.reshape(3, -1).T[used].astype(np.float64)
        )
        rows.append((k, used))
    count = sum(len(t) for t in targets)
    if not count:
        empty = sparse.csr_array((0, int(np.prod(grid))))
        return Links(empty, np.zeros((0, 2)), np.zeros(0), np.zeros((0, 3)), ())
    difference = sparse.csr_array(
        (np.vstack(values).ravel(), np.vstack(columns).ravel(), np.arange(0, 8 * count + 1, 8)),
        shape=(count, int(np.prod(grid))),
    )
    precision = _precision(np.vstack(covariances))
    return Links(difference, np.vstack(targets), np.concatenate(weights), precision, tuple(rows))


def _precision(covariance: Values) -> Values:
    """Invert covariances (n, 3) after setting their scale and adding what they do not know.

    The scale of a covariance that comes from a peak's curvature depends on noise and texture, hence
    only ratios are used. And it says how well two patches fit, not how much the tissue between them
    changed, which all matches share: most of the typical variance is taken to be that, and no match
    may be so unsure that it does not count at all.
    """
    yy, yx, xx = covariance.T
    determinant = yy * xx - yx * yx
    good = np.isfinite(determinant) & (determinant > 0) & (yy > 0)
    precision = np.tile(_TYPICAL, (len(covariance), 1))
    if not good.any():
        return precision
    yy, yx, xx = covariance[good].T / np.median(np.sqrt(determinant[good]))
    # Functions of the eigenvalues of 2 x 2 matrices; their eigenvectors stay.
    mean, half = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
    sure, unsure = (
        1 / (_SHARED + (1 - _SHARED) * np.clip(mean + sign * half, 0, _LARGEST)) for sign in (-1, 1)
    )
    middle, spread = (unsure + sure) / 2, (unsure - sure) / 2
    cosine, sine = (
        np.divide(part, half, out=np.zeros_like(half), where=half > 0)
        for part in ((yy - xx) / 2, yx)
    )
    precision[good] = np.stack(
        [middle + spread * cosine, spread * sine, middle - spread * cosine], axis=1
    )
    return precision
