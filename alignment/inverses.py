"""Inverses of displacement fields, and how far off they are between their nodes.

An inverse is computed at the nodes, where it is as good as its number format, and interpolated
between them, where the true inverse of a bilinear map bends otherwise. The bound is rigorous: with
g the map of the one field and x that of the other, ``g(x(a)) - a`` is computed at some places of
each cell, and between them cannot grow faster than the slopes of both maps let it. Nor can x(a) be
farther from the true place than that divided by the least stretch of g around it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.bilinear import Field, as_field, check_field, grid_points, sample, undo
from alignment.errors import DataError, ShapeError
from alignment.jacobians import flipped_cells, least_stretch, slope_bounds

Cells = NDArray[np.float64]


def invert(push: Field, spacing: float) -> Field:
    """Invert a field at its nodes: from push to pull, or back.

    Parameters
    ----------
    push : float32 ndarray of shape (2, ny, nx)
        Point p goes to ``p + push(p)``, px.
    spacing : float
        Distance of the nodes, px.

    Returns
    -------
    float32 ndarray of shape (2, ny, nx)
        The field `pull` with ``push(a + pull(a)) = -pull(a)`` at every node a, to 0.001 px. Between
        nodes see `inversion_error`.

    Raises
    ------
    DataError
        If the field folds, so that no inverse exists.
    """
    ny, nx = check_field(push)
    if np.isfinite(push).all():
        _refuse_folds(push, spacing)
    nodes = grid_points(ny, nx, spacing)
    return as_field(undo(push, spacing, nodes) - nodes, (ny, nx))


def inversion_error(push: Field, pull: Field, spacing: float, *, samples: int = 4) -> Cells:
    """Bound how far `pull` is from the inverse of `push`, anywhere in each cell.

    Parameters
    ----------
    push, pull : float32 ndarray of shape (2, ny, nx)
        Displacements at the same nodes, px. Whatever `pull` is, rounded or not, the bound holds.
    spacing : float
        Distance of the nodes, px.
    samples : int
        The error is taken at so many places per cell and axis, and bounded between them: the more,
        the tighter.

    Returns
    -------
    float64 ndarray of shape (ny - 1, nx - 1)
        No point a of the cell has ``a + pull(a)`` farther, px, from the place that `push` moves to
        a. Besides the largest error about spacing / samples times the change of strain from cell
        to cell.

    Raises
    ------
    ShapeError, DataError
        If the fields differ in shape, or `push` folds.
    """
    ny, nx = check_field(push, name="push")
    if pull.shape != push.shape:
        raise ShapeError(f"both fields need the same nodes; got {push.shape} and {pull.shape}")
    _refuse_folds(push, spacing)
    at = np.indices((ny, nx), np.float64) + pull / spacing
    around = np.pad(push, ((0, 0), (1, 1), (1, 1)), mode="edge")  # the plane outside, too
    missed = _largest_miss(push, pull, spacing, samples)
    missed += _growth(around, pull, at, spacing) * spacing / (np.sqrt(2) * samples)
    stretch = least_stretch(around, spacing)
    near = missed / _reached(stretch, at, margin=1).min(axis=0)
    # The least stretch nearby counts only if the true place cannot be farther away than that.
    return np.where(near <= spacing, near, missed / stretch.min())


def _largest_miss(push: Field, pull: Field, spacing: float, samples: int) -> Cells:
    """Largest ``|g(x(a)) - a|`` of each cell's samples, its corners among them."""
    cy, cx = pull.shape[1] - 1, pull.shape[2] - 1
    grid_yx = cy * samples + 1, cx * samples + 1
    points = grid_points(*grid_yx, spacing / samples)
    places = points + sample(pull, spacing, points)[0]
    miss = np.hypot(*(places + sample(push, spacing, places)[0] - points).T).reshape(grid_yx)
    steps = range(samples + 1)
    return np.asarray(
        np.max(
            [
                miss[y : y + cy * samples : samples, x : x + cx * samples : samples]
                for y in steps
                for x in steps
            ],
            axis=0,
        )
    )


def _refuse_folds(push: Field, spacing: float) -> None:
    if (flipped := flipped_cells(push, spacing)).any():
        raise DataError(
            f"{np.count_nonzero(flipped)} of {flipped.size} cells of the field fold, so it has no "
            "inverse; raise relax.stiffness"
        )


def _growth(around: Field, pull: Field, at: Cells, spacing: float) -> Cells:
    """Bound the slope of ``g(x(a)) - a`` in each cell: product of two matrices of intervals."""
    low, high = slope_bounds(around, spacing)
    low, high = _reached(low, at).min(axis=0), _reached(high, at).max(axis=0)
    inner = slope_bounds(pull, spacing)
    products = np.stack([np.einsum("ijyx,jkyx->ijkyx", a, b) for a in (low, high) for b in inner])
    unit = np.eye(2)[:, :, None, None]
    least, most = (f(axis=0).sum(axis=1) - unit for f in (products.min, products.max))
    return np.sqrt((np.maximum(np.abs(least), np.abs(most)) ** 2).sum(axis=(0, 1)))


def _reached(cells: Cells, at: Cells, *, margin: int = 0) -> Cells:
    """Return what `cells` (..., ny + 1, nx + 1) hold where a cell of places can lie.

    `at` are the places of the nodes (2, ny, nx) in units of nodes; a bilinear cell lies within the
    box of its corners. The first axis of the result runs over the cells of the largest box.
    """
    corners = _of_corners(at)
    indices = []
    for axis, (least, most) in enumerate(
        zip(corners.min(axis=0), corners.max(axis=0), strict=True)
    ):
        last = cells.shape[axis - 2] - 1
        # + 1: there is a row of cells before the first.
        first = np.clip(np.floor(least).astype(np.intp) + 1 - margin, 0, last)
        end = np.clip(np.floor(most).astype(np.intp) + 1 + margin, 0, last)
        steps = np.arange((end - first).max() + 1)[:, None, None]
        indices.append(np.minimum(first + steps, end))
    rows, columns = indices
    reached = cells[..., rows[:, None], columns[None, :]]
    return np.moveaxis(reached.reshape(*cells.shape[:-2], -1, *rows.shape[1:]), -3, 0)


def _of_corners(nodes: Cells) -> Cells:
    """Values at the four corners of each cell: (4, ..., ny - 1, nx - 1) of (..., ny, nx)."""
    parts = slice(None, -1), slice(1, None)
    return np.stack([nodes[..., y, x] for y in parts for x in parts])
