"""What the matches around a node say of it: its expected displacement, and how far it is out of it.

Displacements are float32 (2, ny, nx), (dy, dx) px at mip 0, NaN where there is none; unknown
neighbours are left out of every comparison, never taken for 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.match import local_median

Floats = NDArray[np.float32]
Part = tuple[slice, slice]

RADIUS_NODES = 2
"""Wrong matches of overlapping templates come in clumps; 5 x 5 nodes outvote them."""

_AROUND = ((0, 1), (1, 0), (1, 1), (1, -1))  # half of the 8 neighbours; the other half mirrors it


def expected(shift: Floats) -> Floats:
    """Return the displacement (2, ny, nx) that the neighbours of each node suggest.

    The median of the other matches of its 5 x 5 nodes, each carried to the node along the local
    slope, which is the median change between adjacent nodes: exact where the displacement is
    affine, also at the edge of what is known. A node without neighbours keeps its own.
    """
    beyond = np.full_like(shift, np.nan)
    changes = (
        np.diff(shift, axis=1, append=beyond[:, :1]),
        np.diff(shift, axis=2, append=beyond[:, :, :1]),
    )
    slope = np.nan_to_num(np.stack([local_median(change, RADIUS_NODES) for change in changes]))
    median = local_median(shift, RADIUS_NODES, own=False, slope=slope)
    return np.where(np.isnan(median), shift, median)


def deviation(shift: Floats) -> Floats:
    """Return how far each node (ny, nx) is from what its neighbours suggest, px; 0 without any."""
    return length(shift - expected(shift))


def strain(shift: Floats, spacing_px: float) -> Floats:
    """Return the median over a node's (up to 8) neighbours of how much it moves against them.

    Parameters
    ----------
    shift : float32 ndarray of shape (2, ny, nx)
    spacing_px : float
        Distance of the nodes, px.

    Returns
    -------
    float32 ndarray of shape (ny, nx)
        px per px; NaN for a node without neighbours.
    """
    ny, nx = shift.shape[1:]
    found = np.full((8, ny, nx), np.nan, np.float32)
    for k, (one, other, distance) in enumerate(node_pairs((ny, nx))):
        change = length(shift[:, *one] - shift[:, *other]) / np.float32(distance * spacing_px)
        found[2 * k][one] = found[2 * k + 1][other] = change
    found.sort(axis=0)  # NaN goes last
    last = np.maximum(np.count_nonzero(~np.isnan(found), axis=0) - 1, 0)
    low, high = (
        np.take_along_axis(found, k[np.newaxis], 0)[0] for k in (last // 2, (last + 1) // 2)
    )
    return (low + high) / 2


def length(vectors: Floats) -> Floats:
    """Return the lengths of vectors (2, ...)."""
    lengths: Floats = np.hypot(vectors[0], vectors[1])
    return lengths


def node_pairs(grid_shape: tuple[int, int]) -> list[tuple[Part, Part, float]]:
    """Return all pairs of neighbouring nodes, by direction, and their distance in node spacings."""
    ny, nx = grid_shape
    return [
        (
            (slice(0, ny - dy), slice(max(-dx, 0), nx - max(dx, 0))),
            (slice(dy, ny), slice(max(dx, 0), nx + min(dx, 0))),
            float(np.hypot(dy, dx)),
        )
        for dy, dx in _AROUND
    ]


def known_neighbours(shift: Floats) -> Floats:
    """Return the share of the other nodes of each one's 5 x 5 that are known; (ny, nx), 0..1."""
    side = 2 * RADIUS_NODES + 1
    known = (~np.isnan(shift[0])).astype(np.float32)
    padded = np.pad(known, RADIUS_NODES)
    around = np.lib.stride_tricks.sliding_window_view(padded, (side, side)).sum((2, 3))
    return (around - known) / np.float32(side * side - 1)
