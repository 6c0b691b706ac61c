"""Where in its section the pixels of a box lie, in steps of 1/32 px.

Positions are bilinear between nodes, in float64, and rounded to steps at the end, on a grid that
belongs to the section. Far positions stop at `FARTHEST_PX`, where no section is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.bilinear import cells
from alignment.errors import DataError
from alignment.fields import Affine, Field, apply_affine
from alignment.weights import STEPS

Steps = NDArray[np.int32]

FARTHEST_PX = 2**24


def nodes_in_steps(
    coarse: Affine,
    field: Field,
    spacing_px: int,
    start_yx: tuple[int, int],
    shape_yx: tuple[int, ...],
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Return where the corners of a box's cells lie in the section, (2, my, mx), in steps.

    And where in the first cell the box begins, px.
    """
    values, first, offset = cells(field, spacing_px, start_yx, (shape_yx[0], shape_yx[1]))
    _, my, mx = values.shape
    at = np.indices((my, mx), np.float64) + np.array(first, np.float64)[:, None, None]
    points = (at * spacing_px + values).reshape(2, -1).T
    return in_steps(apply_affine(coarse, points).T.reshape(2, my, mx)), offset


def extremes(
    nodes: NDArray[np.float64],
    spacing_px: int,
    offset_yx: tuple[int, int],
    shape_yx: tuple[int, ...],
) -> tuple[Steps, Steps]:
    """Return the least and the largest position of a box, (2,) each, in steps.

    They lie on the corners of its cells, clipped to the box.
    """
    for axis, (first, n) in enumerate(zip(offset_yx, shape_yx, strict=True), start=1):
        last = first + n - 1
        lines = np.r_[first, np.arange(spacing_px, last, spacing_px), last]
        cell, px = np.divmod(lines, spacing_px)
        share = (px / spacing_px)[:, None] if axis == 1 else px / spacing_px
        before, after = np.take(nodes, cell, axis), np.take(nodes, cell + 1, axis)
        nodes = before + (after - before) * share
    corners = rounded(nodes)
    return corners.min(axis=(1, 2)), corners.max(axis=(1, 2))


def in_steps(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Express positions in steps of 1/32 px; far ones stop at the farthest."""
    check_known(positions)
    limit = FARTHEST_PX * STEPS
    return np.clip(positions * STEPS, -limit, limit)


def rounded(steps: NDArray[np.float64]) -> Steps:
    """Round to whole steps; the array that comes in holds them too afterwards."""
    return np.rint(steps, out=steps).astype(np.int32)


def check_known(positions: NDArray[np.float64]) -> None:
    """Refuse positions that are not finite.

    Raises
    ------
    DataError
        If there are any.
    """
    if not np.isfinite(positions).all():
        raise DataError(
            "the field or the coarse affine is not finite here; only relaxed fields can be rendered"
        )
