"""Cut what a block of nodes needs out of a section, warped into the common frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.config import MatchConfig
from alignment.fields import Affine, affine_to_mip
from alignment.match import NodeBox, Patch, grid_spacing_px, halo_px
from alignment.render import warp_affine

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


def place_patch(
    features: NDArray[np.floating[Any]],
    valid: NDArray[np.bool_],
    matrix: Affine,
    start_yx: tuple[int, int],
    shape_yx: tuple[int, int],
    mip: int,
) -> Patch:
    """Warp part of a section's features into the common frame.

    Parameters
    ----------
    features : float ndarray of shape (y, x)
        Of the whole section at `mip`.
    valid : bool ndarray of the same shape
        True where tissue may be used.
    matrix : float64 ndarray of shape (2, 3)
        Coarse affine, common frame to section, px at mip 0.
    start_yx, shape_yx : tuple of int
        Part of the common frame, px at `mip`, as `patch_box` gives it.
    mip : int
        Of `features`, `valid` and the patch.

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
        warp_affine(image, (0, 0), at_mip, start_yx, shape_yx, "linear") for image in floats
    )
    seen = share > _SEEN
    return Patch(np.where(seen, warped, np.float32(0)), seen, start_yx, mip)
