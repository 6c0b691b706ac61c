"""One displacement field, or affine, after another.

All of them pull: ``one[a] = raw[a + first(a)]`` and ``two[a] = one[a + then(a)]`` are together
``two[a] = raw[a + composed(a)]`` with ``composed(a) = then(a) + first(a + then(a))``. A composition
is exact at its nodes, to float32. Between them it is bilinear, which that of two bilinear maps is
not quite; that of affines is.
"""

from __future__ import annotations

from alignment.affines import Affine, apply_affine
from alignment.bilinear import Field, as_field, check_field, grid_points, sample


def affine_field(affine: Affine, grid_yx: tuple[int, int], spacing: float) -> Field:
    """Return the field (2, ny, nx) that pulls as an affine does: ``affine(a) - a`` at the nodes a.

    Beyond the outermost nodes a field goes on unchanged, and an affine does not.
    """
    nodes = grid_points(*grid_yx, spacing)
    return as_field(apply_affine(affine, nodes) - nodes, grid_yx)


def compose(
    first: Field, then: Field, spacing: float, *, first_spacing: float | None = None
) -> Field:
    """Return the field that pulls like applying `first`, then `then` to its result.

    Parameters
    ----------
    first, then : float32 ndarray of shape (2, ny, nx)
        Displacements, px. Their nodes may differ in number and distance.
    spacing : float
        Distance of the nodes of `then`, and of the result, px.
    first_spacing : float, optional
        Distance of the nodes of `first`, px; `spacing` without it.

    Returns
    -------
    float32 ndarray of shape (2, ny, nx)
        At the nodes of `then`.
    """
    check_field(first, name="first")
    grid_yx = check_field(then, name="then")
    nodes = grid_points(*grid_yx, spacing)
    moved = nodes + then.reshape(2, -1).T
    moved += sample(first, first_spacing or spacing, moved)[0]
    return as_field(moved - nodes, grid_yx)


def affine_then_field(affine: Affine, field: Field, spacing: float) -> Field:
    """Return the field that pulls like ``one[a] = raw[affine(a)]``, then `field`.

    So a coarse affine and the published field of a section become one field of its source.
    """
    grid_yx = check_field(field)
    nodes = grid_points(*grid_yx, spacing)
    return as_field(apply_affine(affine, nodes + field.reshape(2, -1).T) - nodes, grid_yx)


def field_then_affine(field: Field, affine: Affine, spacing: float) -> Field:
    """Return the field that pulls like `field`, then ``two[a] = one[affine(a)]``."""
    grid_yx = check_field(field)
    nodes = grid_points(*grid_yx, spacing)
    moved = apply_affine(affine, nodes)
    return as_field(moved + sample(field, spacing, moved)[0] - nodes, grid_yx)
