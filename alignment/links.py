"""Matches as links: what was measured between two sections, and how much each match weighs.

A match m at point p of section z against section z - d says ``U_z(p) - U_{z-d}(p + m) = m``, with U
bilinear in the nodes of each section.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignment.bilinear import grid_points, sample
from alignment.errors import DataError, ShapeError

REFERENCE_PX = 32.0
"""A match weighs 1 if matches lie this far apart; a denser grid shares the weight of an area."""

_SHARED = 0.6  # share of the typical match's variance that is change of the tissue
_LARGEST = 16.0  # variances are believed up to this multiple of the typical one

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Links:
    """What the solver needs of a pair: for every match its measure and its 2 x 2 weight.

    Attributes
    ----------
    z, d : int
    match : float32 ndarray of shape (2, my, mx)
        px; not read where `weight` is 0.
    weight : float32 ndarray of shape (my, mx)
    precision : float32 ndarray of shape (3, my, mx), optional
        (yy, yx, xx); the unit matrix without.
    """

    z: int
    d: int
    match: Floats
    weight: Floats
    precision: Floats | None = None


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
    typical : float, optional
        Variance of the pair's typical match, px^2, if these are a part of the pair's matches.
    """

    z: int
    d: int
    displacement: Floats
    covariance: Floats | None = None
    weight: Floats | None = None
    typical: float | None = None

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

    def links(self, match_spacing_px: int) -> Links:
        """Return the matches with their weights: 0 for those that do not count.

        A match weighs the area that it stands for, in units of 32 x 32 px, over d^2 (tissue drifts
        on from section to section, so the errors of matches grow in proportion to d), times its
        own weight, times its inverse covariance against the typical one.
        """
        own = np.ones(self.is_measured.shape) if self.weight is None else self.weight
        area = (match_spacing_px / REFERENCE_PX / self.d) ** 2
        used = self.is_measured & (own > 0)
        weight = np.where(used, np.nan_to_num(own) * area, 0).astype(np.float32)
        return Links(self.z, self.d, self.displacement, weight, self._precision())

    @property
    def is_measured(self) -> NDArray[np.bool_]:
        """Where there is a match, (my, mx)."""
        return np.isfinite(self.displacement).all(axis=0)

    def typical_variance(self) -> float:
        """Return the variance of the typical match, px^2; NaN where no covariance is usable."""
        if self.covariance is None:
            return np.nan
        covariance = self.covariance.reshape(3, -1).T[self.is_measured.ravel()].astype(np.float64)
        good = _usable(covariance)
        return float(np.median(np.sqrt(_determinant(covariance[good])))) if good.any() else np.nan

    def _precision(self) -> Floats | None:
        """Inverse covariances (3, my, mx) against the typical one, which has (1, 0, 1)."""
        typical = self.typical_variance() if self.typical is None else self.typical
        if self.covariance is None or not np.isfinite(typical):
            return None
        flat = self.covariance.reshape(3, -1).T.astype(np.float64)
        inverse = _inverse(np.where(self.is_measured.reshape(-1, 1), flat, np.nan), typical)
        return np.ascontiguousarray(inverse.T.reshape(self.covariance.shape), dtype=np.float32)


def residual(
    links: Links,
    moving: NDArray[np.float64],
    fixed: NDArray[np.float64],
    *,
    node_spacing_px: int,
    match_spacing_px: int,
) -> NDArray[np.float64]:
    """Return predicted minus measured displacement (2, my, mx), px; NaN where nothing was measured.

    `moving` and `fixed` are the two sections' displacements (2, ny, nx).
    """
    match = links.match.reshape(2, -1).T.astype(np.float64)
    _, my, mx = links.match.shape
    points = grid_points(my, mx, match_spacing_px)
    here = sample(moving, node_spacing_px, points)[0]
    there = sample(fixed, node_spacing_px, points + match)[0]
    return (here - there - match).T.reshape(links.match.shape)


def _determinant(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    yy, yx, xx = covariance.T
    return np.asarray(yy * xx - yx * yx)


def _usable(covariance: NDArray[np.float64]) -> NDArray[np.bool_]:
    determinant = _determinant(covariance)
    return np.isfinite(determinant) & (determinant > 0) & (covariance[:, 0] > 0)


def _inverse(covariance: NDArray[np.float64], typical: float) -> NDArray[np.float64]:
    """Invert covariances (n, 3) after setting their scale and adding what they do not know.

    The scale of a covariance that comes from a peak's curvature depends on noise and texture, hence
    only ratios are used. And it says how well two patches fit, not how much the tissue between them
    changed, which all matches share: most of the typical variance is taken to be that, and no match
    may be so unsure that it does not count at all.
    """
    precision = np.tile((1.0, 0.0, 1.0), (len(covariance), 1))
    good = _usable(covariance)
    yy, yx, xx = covariance[good].T / typical
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
