"""How the map ``x + field(x)`` stretches the cells of its nodes, and whether it flips one.

In a bilinear cell the matrix of slopes is linear in the position, and so is its determinant: what
holds at the four corners holds anywhere in it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.bilinear import Field, check_field

Cells = NDArray[np.float64]


def jacobian(field: Field, spacing: float) -> NDArray[np.float32]:
    """Least determinant of the map ``x + field(x)`` in each cell.

    Returns
    -------
    float32 ndarray of shape (ny - 1, nx - 1)
        1 where nothing stretches, 0.5 where area halves, negative where the tissue flips over.
    """
    determinants = [y[0] * x[1] - y[1] * x[0] for y, x in _corners(field, spacing)]
    return np.asarray(np.min(determinants, axis=0), dtype=np.float32)


def flipped_cells(field: Field, spacing: float, *, least: float = 0.0) -> NDArray[np.bool_]:
    """Return the cells (ny - 1, nx - 1) whose area shrinks to `least` or less somewhere inside.

    A cell at the edge also answers for the plane outside it, where the field goes on unchanged:
    with no cell flipped, ``x + field(x)`` is one to one everywhere.
    """
    check_field(field)
    flipped = jacobian(np.pad(field, ((0, 0), (1, 1), (1, 1)), mode="edge"), spacing) <= least
    for rows in (flipped, flipped.T):
        rows[1] |= rows[0]
        rows[-2] |= rows[-1]
    return flipped[1:-1, 1:-1]


def slope_bounds(field: Field, spacing: float) -> tuple[Cells, Cells]:
    """Return the least and largest entries that the map's matrix has anywhere in each cell.

    Returns
    -------
    least, largest : float64 ndarray of shape (2, 2, ny - 1, nx - 1)
        Entry (i, j) is the slope of component i of ``x + field(x)`` along axis j.
    """
    corners = np.stack([np.stack(corner, axis=1) for corner in _corners(field, spacing)])
    return corners.min(axis=0), corners.max(axis=0)


def least_stretch(field: Field, spacing: float) -> Cells:
    """Return by what factor distances grow at least in each cell (ny - 1, nx - 1).

    A lower bound: the least determinant over the largest stretch. Not positive where a cell flips.
    """
    determinants, stretches = [], []
    for (yy, xy), (yx, xx) in _corners(field, spacing):
        determinants.append(yy * xx - yx * xy)
        stretches.append((np.hypot(yy + xx, xy - yx) + np.hypot(yy - xx, xy + yx)) / 2)
    return np.asarray(np.min(determinants, axis=0) / np.max(stretches, axis=0))


def _corners(field: Field, spacing: float) -> list[tuple[Cells, Cells]]:
    """For each of a cell's corners, the map's slopes along y and along x, (2, ny - 1, nx - 1)."""
    check_field(field)
    f = field.astype(np.float64)
    down = np.diff(f, axis=1) / spacing  # d/dy on the vertical edges of cells
    right = np.diff(f, axis=2) / spacing
    down[0] += 1
    right[1] += 1
    return [
        (y, x) for y in (down[:, :, :-1], down[:, :, 1:]) for x in (right[:, :-1], right[:, 1:])
    ]
