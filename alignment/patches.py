"""Cut what a block of nodes needs out of a section, warped into the common frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.config import MatchConfig
from alignment.fields import Affine, affine_to_mip
from alignment.match import NodeBox, Patch, grid_spacing_px, halo_px
from alignment.render import warp_affine

_MARGIN_PX = 2
"""What linear interpolation sees beyond a point, and its rounding."""

_SEEN = 0.99  # share of a warped pixel that must come from valid ones


def patch_box(
    node_box: NodeBox,
    canvas_yx: tuple[int, int],
    config: MatchConfig,
    mip: int,
    *,
    margin_px: int = 0,
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the part of the common frame that a block's matches depend on.

    Parameters
    ----------
    node_box : ((i0, j0), (i1, j1))
        Nodes i0 <= i < i1, j0 <= j < j1 of the finest level.
    canvas_yx : tuple of int
        The common frame, px at mip 0: what lies farther beyond it than the halo is left out.
    config : MatchConfig
        Levels, which decide the halo.
    mip : int
        Of the patch.
    margin_px : int
        Added to the halo, px at mip 0.

    Returns
    -------
    start_yx, shape_yx : tuple of int
        First pixel and extent, px at `mip`.
    """
    spacing, halo, scale = grid_spacing_px(config), halo_px(config) + margin_px, 2**mip
    low = [(first * spacing - halo) // scale for first in node_box[0]]
    high = [
        -((-min((last - 1) * spacing, side) - halo) // scale)
        for last, side in zip(node_box[1], canvas_yx, strict=True)
    ]
    return (low[0], low[1]), (high[0] - low[0] + 1, high[1] - low[1] + 1)


def seen_box(
    matrix: Affine,
    start_yx: tuple[int, int],
    shape_yx: tuple[int, int],
    mip: int,
    section_yx: tuple[int, int],
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the part of a section that a patch of the common frame shows.

    Parameters
    ----------
    matrix : float64 ndarray of shape (2, 3)
        Coarse affine, common frame to section, px at mip 0.
    start_yx, shape_yx : tuple of int
        Of the patch, px at `mip`.
    mip : int
    section_yx : tuple of int
        Extent of the section, px at `mip`.

    Returns
    -------
    start_yx, shape_yx : tuple of int
        Px at `mip`, with what linear interpolation sees beyond; the extent is 0 on both axes where
        the patch shows nothing of the section.

    Examples
    --------
    >>> seen_box(np.array([[1.0, 0, 100], [0, 1, 0]]), (0, 0), (50, 20), 0, (140, 300))
    ((98, 0), (42, 22))
    """
    at_mip = affine_to_mip(matrix, mip)
    first = np.array(start_yx)
    last = first + np.array(shape_yx) - 1
    corners = np.array([(y, x) for y in (first[0], last[0]) for x in (first[1], last[1])])
    there = corners @ at_mip[:, :2].T + at_mip[:, 2]
    low = np.clip(np.floor(there.min(0)).astype(int) - _MARGIN_PX, 0, section_yx)
    high = np.clip(np.ceil(there.max(0)).astype(int) + 1 + _MARGIN_PX, 0, section_yx)
    if (high <= low).any():
        return (0, 0), (0, 0)
    (y, x), (ny, nx) = low.tolist(), (high - low).tolist()
    return (y, x), (ny, nx)


def place_patch(
    features: NDArray[np.floating[Any]],
    valid: NDArray[np.bool_],
    matrix: Affine,
    start_yx: tuple[int, int],
    shape_yx: tuple[int, int],
    mip: int,
    *,
    origin_yx: tuple[int, int] = (0, 0),
) -> Patch:
    """Warp part of a section's features into the common frame.

    Parameters
    ----------
    features : float ndarray of shape (y, x)
        Of the section at `mip`, or of the part of it that `seen_box` names.
    valid : bool ndarray of the same shape
        True where tissue may be used.
    matrix : float64 ndarray of shape (2, 3)
        Coarse affine, common frame to section, px at mip 0.
    start_yx, shape_yx : tuple of int
        Part of the common frame, px at `mip`, as `patch_box` gives it.
    mip : int
        Of `features`, `valid` and the patch.
    origin_yx : tuple of int
        Where the first pixel of `features` lies in the section.

    Returns
    -------
    Patch
        Features are interpolated linearly, which moves nothing: OpenCV's cubic kernel moves a ramp
        by up to 0.05 px, and a match by twice that. A pixel is valid where all that it is made of
        is.
    """
    at_mip = affine_to_mip(matrix, mip)
    floats = (features.astype(np.float32), valid.astype(np.float32))
    warped, share = (
        warp_affine(image, origin_yx, at_mip, start_yx, shape_yx, "linear") for image in floats
    )
    seen = share > _SEEN
    return Patch(np.where(seen, warped, np.float32(0)), seen, start_yx, mip)
