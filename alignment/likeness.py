"""Likeness: how alike two sections are, once one lies on the other.

Sections resemble each other the less, the more tissue lies between them. On five real stacks
(`docs/coarse.md`) each of the sections was liker its neighbour than the next but one, without a
single exception, so likeness tells the order. The noise of the camera tells more: two pictures of
one section share the tissue, but only a picture and its copy share the noise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.affines import Affine, affine_to_mip, apply_affine, compose_affines
from alignment.comparison import LEVELS, WORTH_REFINING, Comparison, view_correlation
from alignment.views import make_view, pull

_LEAST_OVERLAP = 0.2  # of the smaller section's tissue; less proves nothing
_GRAIN_PX = 1.5  # detail below this is noise, and the sharpest edges
_GRAIN_SIDE_PX = 1024  # of the part whose noise is compared
_SAME_PIXELS_PX = 0.5  # a shift that is this near to whole px everywhere needs no interpolation


class Likeness(NamedTuple):
    """How alike two sections are, -1..1 each."""

    tissue: float
    """Correlation of what the finest coarse level shows, in like contrast."""
    grain: float
    """Correlation of the finest detail, most of it noise; 1 for a copy of a picture."""


def measure_likeness(
    fixed: NDArray[np.uint8],
    moving: NDArray[np.uint8],
    fixed_valid: NDArray[np.bool_],
    moving_valid: NDArray[np.bool_],
    matrix: Affine,
    *,
    mip: int,
) -> Likeness | None:
    """Measure how alike two sections are at a place that is about right.

    The place is refined first, at a side of 384 px, or sections that follow each other
    less well in the common frame would seem less alike.

    Parameters
    ----------
    fixed, moving : uint8 ndarray of shape (y, x)
        Sections at `mip`.
    fixed_valid, moving_valid : bool ndarray of the same shapes
        True where tissue may be used.
    matrix : float64 ndarray of shape (2, 3)
        Px of the fixed to px of the moving section, both at mip 0, right to about 3 % of the side.
    mip : int
        Level of the images.

    Returns
    -------
    Likeness or None
        None if the two share less than a fifth of the smaller one's tissue.

    Raises
    ------
    ShapeError
        If a section is not a 2-D uint8 image or its `valid` has another shape.
    """
    pair = Comparison((fixed, fixed_valid), (moving, moving_valid))
    place = affine_to_mip(matrix, mip)
    is_inverted = pair.correlation(place, LEVELS[0], is_inverted=False) < 0
    is_small = pair.side_px <= WORTH_REFINING * LEVELS[1].side_px
    views = pair.level(LEVELS[1 if is_small else 2], is_inverted=is_inverted)
    tissue, overlap = view_correlation(*views, place)
    found = pair.refined(place, LEVELS[1], is_inverted=is_inverted)
    if found is not None:
        better, shared = view_correlation(*views, found[0])
        if shared >= _LEAST_OVERLAP and (better > tissue or overlap < _LEAST_OVERLAP):
            place, tissue, overlap = found[0], better, shared
    if overlap < _LEAST_OVERLAP:
        return None
    grain = _grain(fixed, fixed_valid, moving, moving_valid, place)
    return Likeness(tissue, grain)


def _grain(
    fixed: NDArray[np.uint8],
    fixed_valid: NDArray[np.bool_],
    moving: NDArray[np.uint8],
    moving_valid: NDArray[np.bool_],
    place: Affine,
) -> float:
    """Return the correlation of the finest detail in the middle of the fixed section."""
    start = [max(0, (n - _GRAIN_SIDE_PX) // 2) for n in fixed.shape]
    window = tuple(slice(s, s + _GRAIN_SIDE_PX) for s in start)
    fixed, fixed_valid = fixed[window], fixed_valid[window]
    here = np.column_stack([np.eye(2), np.array(start, np.float64)])
    place = compose_affines(place, here)
    corners = np.array([[y, x] for y in (0, fixed.shape[0] - 1) for x in (0, fixed.shape[1] - 1)])
    shifts = apply_affine(place, corners.astype(np.float64)) - corners
    whole = np.rint(shifts.mean(axis=0))
    if np.abs(shifts - whole).max() <= _SAME_PIXELS_PX:
        # Interpolation is a low-pass: it would make a copy differ from its original.
        place = np.column_stack([np.eye(2), whole])
    image = np.rint(pull(moving.astype(np.float32), place, fixed.shape)).astype(np.uint8)
    shown = pull(moving_valid.astype(np.float32), place, fixed.shape) > 0.99
    band = {"side_px": max(fixed.shape), "sigma_fine_px": 0.0, "sigma_coarse_px": _GRAIN_PX}
    views = (make_view(fixed, fixed_valid, **band), make_view(image, shown, **band))
    return abs(view_correlation(*views, np.eye(2, 3))[0])
