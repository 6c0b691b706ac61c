"""Displacement fields and affines: the one convention that every stage shares.

A field is a float32 array (2, ny, nx). Component 0 is dy, component 1 is dx, in the order of the
axes. Units are px at mip 0 unless said. Node (i, j) of a field with spacing s lies on pixel
(i * s, j * s); between nodes a field is bilinear, outside them it keeps the value of the nearest
edge. NaN means unknown; 0 means "known not to move".

Published fields pull: ``aligned[a] = coarse_image[a + field(a)] = source[C(a + field(a))]``, with C
the coarse affine of the section, float64 (2, 3), rows y and x. A push field is its inverse: coarse
point p goes to aligned point ``p + push(p)``. Nothing outside this module and those that it hands
on (`affines`, `bilinear`, `compositions`, `inverses`, `jacobians`) composes, inverts or changes the
mip of either.
"""

from __future__ import annotations

import math

import numpy as np

from alignment.affines import (
    Affine,
    affine_to_mip,
    apply_affine,
    compose_affines,
    invert_affine,
)
from alignment.bilinear import (
    Field,
    Points,
    as_field,
    cells,
    check_field,
    check_points,
    grid_points,
    sample,
    undo,
    upsample,
)
from alignment.compositions import affine_field, affine_then_field, compose, field_then_affine
from alignment.inverses import inversion_error, invert
from alignment.jacobians import flipped_cells, jacobian

__all__ = [
    "Affine",
    "Field",
    "Points",
    "affine_field",
    "affine_then_field",
    "affine_to_mip",
    "apply_affine",
    "check_field",
    "compose",
    "compose_affines",
    "dense",
    "evaluate",
    "field_then_affine",
    "flipped_cells",
    "inversion_error",
    "invert",
    "invert_affine",
    "jacobian",
    "map_to_aligned",
    "map_to_source",
    "node_grid",
    "quantise",
    "resample",
    "to_mip",
]

STEPS_PER_PX = 32
"""Published fields are whole multiples of 1/32 px: a re-solve that moves nothing is equal."""


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


def resample(
    field: Field,
    spacing: float,
    new_spacing: float,
    *,
    old_mip: int = 0,
    new_mip: int = 0,
    grid_yx: tuple[int, int] | None = None,
) -> Field:
    """Give a field other nodes, and the pixels of another mip.

    Parameters
    ----------
    field : float32 ndarray of shape (2, ny, nx)
        Displacements in px of `old_mip`; node (i, j) on its pixel (i * spacing, j * spacing).
    spacing, new_spacing : float
        Distance of the nodes, px of the old and of the new mip.
    old_mip, new_mip : int
        Pixel centres are integers at every mip: ``p_k = (p_0 + 0.5) / 2**k - 0.5``.
    grid_yx : tuple of int, optional
        Nodes of the result; without it as many as reach the last one of `field`.

    Returns
    -------
    float32 ndarray of shape (2, my, mx)
        Displacements in px of `new_mip`; node (i, j) on its pixel (i * new_spacing,
        j * new_spacing). The field's value there: coarser nodes do not average the finer ones, so
        that an affine stays exact. NaN where a node that the value depends on is NaN.
    """
    grid = check_field(field)
    scale = 2.0 ** (old_mip - new_mip)  # px of the new mip in one of the old
    if grid_yx is None:
        last = [((n - 1) * spacing + 0.5) * scale - 0.5 for n in grid]
        ny, nx = (max(math.ceil(at / new_spacing - 1e-9), 0) + 1 for at in last)
        grid_yx = ny, nx
    places = (grid_points(*grid_yx, new_spacing) + 0.5) / scale - 0.5
    return as_field(evaluate(field, spacing, places) * scale, grid_yx)


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
