"""Displacement fields and affines: the one convention that every stage shares.

A field is a float32 array (2, ny, nx). Component 0 is dy, component 1 is dx, in the order of the
axes. Units are px at mip 0 unless said. Node (i, j) of a field with spacing s lies on pixel
(i * s, j * s); between nodes a field is bilinear, outside them it keeps the value of the nearest
edge. NaN means unknown; 0 means "known not to move".

Published fields pull: ``aligned[a] = coarse_image[a + field(a)] = source[C(a + field(a))]``, with C
the coarse affine of the section, float64 (2, 3), rows y and x. A push field is its inverse: coarse
point p goes to aligned point ``p + push(p)``. Nothing outside this module composes, inverts or
changes the mip of either.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.affines import (
    Affine,
    affine_to_mip,
    apply_affine,
    compose_affines,
    invert_affine,
)
from alignment.bilinear import Points, cells, check_points, grid_points, sample, undo, upsample
from alignment.errors import DataError, ShapeError

__all__ = [
    "Affine",
    "Field",
    "Points",
    "affine_to_mip",
    "apply_affine",
    "check_field",
    "compose",
    "compose_affines",
    "dense",
    "evaluate",
    "flipped_cells",
    "invert",
    "invert_affine",
    "jacobian",
    "map_to_aligned",
    "map_to_source",
    "node_grid",
    "quantise",
    "to_mip",
]

Field = NDArray[np.float32]

STEPS_PER_PX = 32
"""Published fields are whole multiples of 1/32 px: a re-solve that moves nothing is equal."""


def check_field(field: Field, *, name: str = "field") -> tuple[int, int]:
    """Return the node grid (ny, nx) of `field`, or say what is wrong with it."""
    if field.ndim != 3 or field.shape[0] != 2 or 0 in field.shape:
        raise ShapeError(
            f"{name} must have shape (2, ny, nx), components (dy, dx); got {field.shape}. "
            f"If a tool gave it as (x, y), reverse the components first: {name}[::-1]."
        )
    return field.shape[1], field.shape[2]


def node_grid(canvas_yx: tuple[int, int], spacing: int) -> tuple[int, int]:
    """Return how many nodes (ny, nx) of `spacing` px reach the last pixel of a canvas.

    >>> node_grid((1024, 1025), 32)
    (33, 33)
    """
    ny, nx = (-(-(max(n, 1) - 1) // spacing) + 1 for n in canvas_yx)
    return ny, nx


def to_mip(field: Field, *, old: int, new: int) -> Field:
    """Express displacements in the pixels of another mip; the nodes stay.

    >>> to_mip(np.full((2, 1, 1), 8, np.float32), old=0, new=2).ravel()
    array([2., 2.], dtype=float32)
    """
    check_field(field)
    return field * np.float32(2.0 ** (old - new))


def quantise(field: Field) -> Field:
    """Round displacements to 1/32 px; NaN stays.

    >>> quantise(np.full((2, 1, 1), -0.01, np.float32)).ravel()
    array([0., 0.], dtype=float32)
    """
    check_field(field)
    steps = np.float32(STEPS_PER_PX)
    # + 0: -0 and 0 have different bytes, hence different digests.
    return np.asarray(np.rint(field * steps) / steps + np.float32(0), dtype=np.float32)


def evaluate(field: Field, spacing: float, points: Points) -> Points:
    """Displacements at any points.

    Parameters
    ----------
    field : float32 ndarray of shape (2, ny, nx)
        Displacements at nodes, px.
    spacing : float
        Distance of the nodes, px.
    points : float64 ndarray of shape (n, 2)
        Where to evaluate (y, x), px.

    Returns
    -------
    float64 ndarray of shape (n, 2)
        Bilinear between nodes, constant outside them; NaN where one of the four nodes is NaN.
    """
    check_field(field)
    return sample(field, spacing, check_points(points))[0]


def dense(
    field: Field, spacing: int, start_yx: tuple[int, int], shape_yx: tuple[int, int]
) -> Field:
    """Displacements at every pixel of a box.

    Parameters
    ----------
    field : float32 ndarray of shape (2, ny, nx)
        Displacements at nodes, px.
    spacing : int
        Distance of the nodes, px.
    start_yx, shape_yx : tuple of int
        First pixel and extent of the box; it may reach beyond the nodes.

    Returns
    -------
    float32 ndarray of shape (2, h, w)
        The same bits for a pixel whatever the box it is computed in.
    """
    check_field(field)
    nodes, _, offset_yx = cells(field, spacing, start_yx, shape_yx)
    return upsample(nodes.astype(np.float32, copy=False), spacing, offset_yx, shape_yx)


def jacobian(field: Field, spacing: float) -> NDArray[np.float32]:
    """Least determinant of the map ``x + field(x)`` in each cell.

    A bilinear map's determinant is linear inside its cell, so the least of the four corners is the
    least anywhere in it.

    Returns
    -------
    float32 ndarray of shape (ny - 1, nx - 1)
        1 where nothing stretches, 0.5 where area halves, negative where the tissue flips over.
    """
    check_field(field)
    f = field.astype(np.float64)
    down = np.diff(f, axis=1) / spacing  # d/dy on the vertical edges of cells
    right = np.diff(f, axis=2) / spacing
    corners = [
        (1 + d[0]) * (1 + r[1]) - d[1] * r[0]
        for d in (down[:, :, :-1], down[:, :, 1:])
        for r in (right[:, :-1], right[:, 1:])
    ]
    return np.asarray(np.min(corners, axis=0), dtype=np.float32)


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
        The field `pull` with ``push(a + pull(a)) = -pull(a)`` at every node a, to 0.001 px.

    Raises
    ------
    DataError
        If the field folds, so that no inverse exists.
    """
    ny, nx = check_field(push)
    if np.isfinite(push).all() and (flipped := flipped_cells(push, spacing)).any():
        raise DataError(
            f"{np.count_nonzero(flipped)} of {flipped.size} cells of the field fold, so it has no "
            "inverse; raise relax.stiffness"
        )
    nodes = grid_points(ny, nx, spacing)
    pull = undo(push, spacing, nodes) - nodes
    return np.ascontiguousarray(pull.T.reshape(2, ny, nx).astype(np.float32))


def compose(first: Field, then: Field, spacing: float) -> Field:
    """Field that pulls like applying `first`, then `then` to its result.

    ``one[a] = raw[a + first(a)]`` and ``two[a] = one[a + then(a)]`` give
    ``two[a] = raw[a + composed(a)]`` at the nodes a. Both fields have the same nodes.
    """
    ny, nx = check_field(then, name="then")
    if first.shape != then.shape:
        raise ShapeError(f"both fields need the same nodes; got {first.shape} and {then.shape}")
    moved = then.reshape(2, -1).T.astype(np.float64)
    moved += evaluate(first, spacing, grid_points(ny, nx, spacing) + moved)
    return np.ascontiguousarray(moved.T.reshape(2, ny, nx).astype(np.float32))


def map_to_source(coarse: Affine, field: Field, spacing: float, points: Points) -> Points:
    """Say which source pixels the aligned volume shows at some points.

    Parameters
    ----------
    coarse : float64 ndarray of shape (2, 3)
        Coarse affine of the section, common to source frame, mip 0.
    field : float32 ndarray of shape (2, ny, nx)
        Published (pull) field of the section, px at mip 0.
    spacing : float
        Distance of the field's nodes, px at mip 0.
    points : float64 ndarray of shape (n, 2)
        Points of the aligned section (y, x), px at mip 0.

    Returns
    -------
    float64 ndarray of shape (n, 2)
        Points of the source section (y, x), px at mip 0: exactly where `render.warp` reads, up to
        its rounding to 1/32 px.
    """
    points = check_points(points)
    return apply_affine(coarse, points + evaluate(field, spacing, points))


def map_to_aligned(coarse: Affine, field: Field, spacing: float, points: Points) -> Points:
    """Say where in the aligned volume some source pixels are shown: undo `map_to_source`.

    Parameters and units as there, with `points` of the source section; exact to 0.001 px.

    Raises
    ------
    DataError
        If the field folds there, so that a source pixel has no single place.
    """
    check_field(field)
    return undo(field, spacing, apply_affine(invert_affine(coarse), points))
