"""Bilinear functions on a grid of nodes: sampled at points and at pixels, and inverted.

Values are (2, ny, nx); node (i, j) lies at (i * spacing, j * spacing). Between nodes they are
bilinear, beyond the outermost nodes they keep the value of the nearest edge. Points are (n, 2),
rows (y, x).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError, ShapeError

Nodes = NDArray[np.floating[Any]]
Field = NDArray[np.float32]
Points = NDArray[np.float64]

_TOLERANCE_PX = 1e-4
_MAX_NEWTON_STEPS = 40
_LEAST_DETERMINANT = 0.02
_STARTS = ((0.0, 0.0), (0.4, 0.3), (-0.3, 0.4), (-0.4, -0.3), (0.3, -0.4))  # cells


def grid_points(ny: int, nx: int, spacing: float) -> Points:
    """Return the positions (ny * nx, 2) of a grid's nodes, in C order."""
    return np.indices((ny, nx), np.float64).reshape(2, -1).T * float(spacing)


def as_field(displacements: Points, grid_yx: tuple[int, int]) -> Field:
    """Return displacements (ny * nx, 2), in the order of `grid_points`, as a field."""
    return np.ascontiguousarray(displacements.T.reshape(2, *grid_yx).astype(np.float32))


def interpolation(
    grid_yx: tuple[int, int], spacing: float, points: Points
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return how a value at points depends on the nodes.

    Returns
    -------
    nodes : intp ndarray of shape (n, 4)
        Indices into the flattened node grid: one cell's corners 00, 01, 10, 11.
    shares : float64 ndarray of shape (n, 4)
        Each row sums to 1.
    """
    (y0, y1, fy, _), (x0, x1, fx, _) = _place(grid_yx, spacing, points)
    nx = grid_yx[1]
    nodes = np.stack([y0 * nx + x0, y0 * nx + x1, y1 * nx + x0, y1 * nx + x1], axis=1)
    shares = np.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], axis=1)
    return nodes, shares


def sample(values: Nodes, spacing: float, points: Points) -> tuple[Points, NDArray[np.float64]]:
    """Return values (n, 2) at points, and their slopes d value_i / d point_j, (n, 2, 2)."""
    (y0, y1, fy, in_y), (x0, x1, fx, in_x) = _place(values.shape[1:], spacing, points)
    v00, v01, v10, v11 = (
        values[:, y, x].astype(np.float64) for y, x in ((y0, x0), (y0, x1), (y1, x0), (y1, x1))
    )
    top, low = v00 + (v01 - v00) * fx, v10 + (v11 - v10) * fx
    along_x = (v01 - v00) + ((v11 - v10) - (v01 - v00)) * fy
    slope = np.stack([(low - top) * in_y, along_x * in_x], axis=-1) / spacing
    return (top + (low - top) * fy).T, slope.swapaxes(0, 1)


def cells(
    values: Nodes, spacing: int, start_yx: tuple[int, int], shape_yx: tuple[int, int]
) -> tuple[Nodes, tuple[int, int], tuple[int, int]]:
    """Cut out the nodes of the cells that a box of pixels touches.

    Returns
    -------
    nodes : ndarray of shape (2, my, mx)
        Values at the corners of the cells; edges are repeated beyond the grid.
    first_yx : tuple of int
        Index of the first node in the grid; negative before it.
    offset_yx : tuple of int
        Where in the first cell the box starts, px, each in 0 .. spacing - 1.
    """
    first_y, first_x = (start // spacing for start in start_yx)
    rows, columns = (
        np.clip(np.arange(f, (start + max(n, 1) - 1) // spacing + 2), 0, m - 1)
        for f, start, n, m in zip(
            (first_y, first_x), start_yx, shape_yx, values.shape[1:], strict=True
        )
    )
    offset_yx = (start_yx[0] - first_y * spacing, start_yx[1] - first_x * spacing)
    return values[:, rows[:, None], columns], (first_y, first_x), offset_yx


def upsample[T: np.floating[Any]](
    nodes: NDArray[T], spacing: int, offset_yx: tuple[int, int], shape_yx: tuple[int, int]
) -> NDArray[T]:
    """Interpolate the nodes of some cells (2, my, mx) to the pixels of a box, (2, h, w).

    Whole cells are computed, element by element, and cropped: a pixel's bits do not depend on the
    box.
    """
    steps = (np.arange(spacing) / spacing).astype(nodes.dtype)
    (oy, ox), (h, w) = offset_yx, shape_yx
    low, step = nodes[:, :-1, None], np.diff(nodes, axis=1)[:, :, None]
    rows = (low + step * steps[:, None]).reshape(2, -1, nodes.shape[2])[:, oy : oy + h]
    pixels = np.diff(rows, axis=2)[..., None] * steps
    pixels += rows[:, :, :-1, None]
    return np.ascontiguousarray(pixels.reshape(2, h, -1)[:, :, ox : ox + w])


def undo(values: Nodes, spacing: float, targets: Points) -> Points:
    """Solve ``x + values(x) = target`` for every target, to 1e-4; NaN stays NaN.

    Raises
    ------
    DataError
        If ``x + values(x)`` folds, so that a target has no single x.
    """
    if not np.isfinite(values).all():
        raise DataError("a field with NaN cannot be inverted; fill its unknown nodes first")
    start = targets - sample(values, spacing, targets)[0]
    found, todo = start.copy(), np.arange(len(targets))
    for shift in _STARTS:
        shifted = start[todo] + np.multiply(shift, spacing)
        found[todo], solved = _newton(values, spacing, targets[todo], shifted)
        todo = todo[~solved]
        if not todo.size:
            return found
    y, x = targets[todo[0]]
    raise DataError(
        f"the field cannot be inverted at {todo.size} of {len(targets)} points, first near "
        f"(y, x) = ({y:.1f}, {x:.1f}) px: it folds there; raise relax.stiffness"
    )


def check_field(field: Field, *, name: str = "field") -> tuple[int, int]:
    """Return the node grid (ny, nx) of `field`, or say what is wrong with it."""
    if field.ndim != 3 or field.shape[0] != 2 or 0 in field.shape:
        raise ShapeError(
            f"{name} must have shape (2, ny, nx), components (dy, dx); got {field.shape}. "
            f"If a tool gave it as (x, y), reverse the components first: {name}[::-1]."
        )
    return field.shape[1], field.shape[2]


def check_points(points: Points) -> Points:
    """Return `points` as float64, or say what is wrong with their shape."""
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ShapeError(f"points must have shape (n, 2), rows (y, x); got {points.shape}")
    return points


def _newton(
    values: Nodes, spacing: float, targets: Points, start: Points
) -> tuple[Points, NDArray[np.bool_]]:
    """Return where Newton's method gets from `start`, and which points it solved.

    The map is bilinear per cell, so a step that stays in its cell is all but exact. A step that
    leaves the cell may overshoot and is halved until it helps. For one in some million points of a
    strongly bent field that ends on the edge of a cell; another start solves those.
    """
    found, todo = start.copy(), np.arange(len(targets))
    scale = np.ones(len(targets))
    value, slope = sample(values, spacing, found)
    miss = targets - found - value
    solved = ~(np.hypot(*miss.T) > _TOLERANCE_PX)
    for _ in range(_MAX_NEWTON_STEPS):
        todo = todo[~solved[todo]]
        if not todo.size:
            break
        trial = found[todo] + scale[todo, None] * _newton_step(slope[todo], miss[todo])
        trial_value, trial_slope = sample(values, spacing, trial)
        trial_miss = targets[todo] - trial - trial_value
        better = np.hypot(*trial_miss.T) < np.hypot(*miss[todo].T)
        won = todo[better]
        found[won], miss[won], slope[won] = trial[better], trial_miss[better], trial_slope[better]
        scale[todo] = np.where(better, np.minimum(scale[todo] * 2, 1), scale[todo] / 2)
        solved[won] = np.hypot(*miss[won].T) <= _TOLERANCE_PX
    return found, solved


def _newton_step(slope: NDArray[np.float64], miss: Points) -> Points:
    yy, yx, xy, xx = 1 + slope[:, 0, 0], slope[:, 0, 1], slope[:, 1, 0], 1 + slope[:, 1, 1]
    # A floor, not a test: in a nearly flat cell the exact step would leave the section.
    determinant = np.maximum(yy * xx - yx * xy, _LEAST_DETERMINANT)
    y, x = miss.T
    return np.stack([(xx * y - yx * x) / determinant, (yy * x - xy * y) / determinant], axis=1)


def _place(grid_yx: tuple[int, ...], spacing: float, points: Points) -> list[Any]:
    """Per axis: the nodes before and after each point, the latter's share, "is it inside"."""
    placed = []
    for n, t in zip(grid_yx, points.T / spacing, strict=True):
        inside = np.clip(t, 0, n - 1)
        before = np.minimum(np.nan_to_num(inside).astype(np.intp), max(n - 2, 0))
        placed.append((before, np.minimum(before + 1, n - 1), inside - before, inside == t))
    return placed
