"""Comparison: two sections, seen side by side at whatever resolution and band is asked for."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from alignment.affines import Affine, compose_affines, invert_affine
from alignment.blockfit import Level, refine
from alignment.errors import ShapeError
from alignment.views import View, make_view, warped

LEVELS = (
    Level(144, 7.0, 24, 8, is_affine=False),
    Level(384, 10.0, 48, 12, is_affine=True),
    Level(1024, 12.0, 64, 12, is_affine=True),
)
"""At which places are refined, coarse to fine."""
WORTH_REFINING = 1.2
"""A level must be this much finer than the one before."""

_SIGMA_FINE_PX = 1.5


class Comparison:
    """Two sections and their views, which are made once.

    Parameters
    ----------
    fixed, moving : (uint8 ndarray, bool ndarray)
        Image and valid part of each, both (y, x); the two sections may differ in shape.

    Raises
    ------
    ShapeError
        If a section is not a 2-D uint8 image or its `valid` has another shape.
    """

    def __init__(
        self,
        fixed: tuple[NDArray[np.uint8], NDArray[np.bool_]],
        moving: tuple[NDArray[np.uint8], NDArray[np.bool_]],
    ) -> None:
        _check("fixed", *fixed)
        _check("moving", *moving)
        self._sections = fixed, moving
        self._views: dict[tuple[int, float, float], tuple[View, View]] = {}

    @property
    def side_px(self) -> int:
        """Longer side of the fixed section."""
        return max(self._sections[0][0].shape)

    def views(self, side_px: int, fine_px: float, coarse_px: float) -> tuple[View, View]:
        """Return the fixed and the moving view of a band."""
        key = side_px, fine_px, coarse_px
        if key not in self._views:
            fixed, moving = (
                make_view(*s, side_px=side_px, sigma_fine_px=fine_px, sigma_coarse_px=coarse_px)
                for s in self._sections
            )
            self._views[key] = fixed, moving
        return self._views[key]

    def level(self, level: Level, *, is_inverted: bool) -> tuple[View, View]:
        """Return the views of a level, in like contrast."""
        fixed, moving = self.views(level.side_px, _SIGMA_FINE_PX, level.sigma_coarse_px)
        return fixed, moving._replace(image=-moving.image) if is_inverted else moving

    def refined(
        self, matrix: Affine, level: Level, *, is_inverted: bool
    ) -> tuple[Affine, int] | None:
        """Refine a place at one level: the affine and the blocks that agree by themselves.

        None if too little tissue overlaps there; see `blockfit.refine`.
        """
        fixed, moving = self.level(level, is_inverted=is_inverted)
        found = refine(fixed, moving, between_views(matrix, fixed, moving), level)
        if found is None:
            return None
        matrix = compose_affines(found[0], fixed.from_section)
        return compose_affines(invert_affine(moving.from_section), matrix), found[1]

    def correlation(self, matrix: Affine, level: Level, *, is_inverted: bool) -> float:
        """Return the masked zero-normalised cross-correlation at a place, -1..1."""
        return view_correlation(*self.level(level, is_inverted=is_inverted), matrix)[0]


def between_views(matrix: Affine, fixed: View, moving: View) -> Affine:
    """Express an affine between sections in px of their views."""
    return compose_affines(
        moving.from_section, compose_affines(matrix, invert_affine(fixed.from_section))
    )


def view_correlation(fixed: View, moving: View, matrix: Affine) -> tuple[float, float]:
    """Return the correlation of two views under an affine between their sections.

    Returns
    -------
    correlation : float
        Masked and zero-normalised, -1..1; 0 where one of them shows nothing.
    overlap : float
        Tissue that both show, as a share of what the one with less of it has.
    """
    image, covered = warped(moving, between_views(matrix, fixed, moving), fixed.image.shape)
    both = fixed.valid & (covered > 0.99)
    least = min(int(np.count_nonzero(view.valid)) for view in (fixed, moving))
    if not both.any():
        return 0.0, 0.0
    a, b = (v[both].astype(np.float64) for v in (fixed.image, image))
    a, b = a - a.mean(), b - b.mean()
    energy = math.sqrt(float(np.square(a).sum() * np.square(b).sum()))
    correlation = float((a * b).sum()) / energy if energy > 0 else 0.0
    return correlation, int(np.count_nonzero(both)) / max(least, 1)


def _check(name: str, image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> None:
    if image.ndim != 2 or image.dtype != np.uint8:
        raise ShapeError(
            f"{name} must be a uint8 image (y, x), got {image.dtype} of shape {image.shape}; pass "
            "one section at a time, scaled to 0..255"
        )
    if valid.shape != image.shape or valid.dtype != np.bool_:
        raise ShapeError(
            f"{name}_valid must be a bool array of the image's shape {image.shape}, "
            f"got {valid.dtype} of shape {valid.shape}"
        )
