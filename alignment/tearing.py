"""Where sections tear: a factor on the stiffness of every cell of the mesh, from their defects.

A sheet of even stiffness drags the tissue on one side of a crack along with the other. So the cells
that a crack or a fold runs through give way: they cost next to nothing to stretch or to shear, and
the two sides move apart as their own matches say. Cells without any tissue have nothing to hold
together either. They only carry the place of the tissue around them over to each other, softly, so
that a field is smooth everywhere. That tissue does not flip over where it closes a gap or a fold is
for the solver to see to, which stiffens such cells again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.affines import Affine, apply_affine
from alignment.bilinear import grid_points
from alignment.defects import Defect
from alignment.errors import ShapeError
from alignment.fields import node_grid

TORN = 0.01
"""Factor of cells with a crack or a fold in them."""
EMPTY = 0.1
"""Factor of cells in which a section shows no tissue."""

_STRIP_CELLS = 64  # rows of cells that are looked at together: bounds the memory
_SAMPLES = 8  # a side: with nodes every 32 px a line of 4 px is not missed
_TEARING = Defect.CRACK | Defect.FOLD
_HARMLESS = Defect.SEAM


def torn_cells(
    defects: NDArray[np.uint8],
    matrix: Affine,
    canvas_yx: tuple[int, int],
    spacing_px: int,
    *,
    mip: int,
) -> NDArray[np.float32]:
    """Return the factor on the stiffness of every cell of one section.

    Parameters
    ----------
    defects : uint8 ndarray of shape (y, x)
        `Defect` flags at `mip`.
    matrix : float64 ndarray of shape (2, 3)
        Coarse affine: common frame to section, px at mip 0.
    canvas_yx : tuple of int
        Extent of the common frame, px at mip 0.
    spacing_px : int
        Distance of the mesh's nodes, px at mip 0.
    mip : int

    Returns
    -------
    float32 ndarray of shape (ny - 1, nx - 1)
        `TORN` where a crack or a fold crosses the cell, `EMPTY` where it holds no tissue, else 1.
        Stacked over the sections, it is the `stiffness_map` of `relax_stack`.

    Raises
    ------
    ShapeError
        If `defects` is not an image or `matrix` no affine.
    """
    if defects.ndim != 2 or matrix.shape != (2, 3):
        raise ShapeError(
            f"defects must have shape (y, x) and matrix (2, 3), of one section; got "
            f"{defects.shape} and {matrix.shape}"
        )
    ny, nx = node_grid(canvas_yx, spacing_px)
    strips = [
        _strip(defects, matrix, (i, min(i + _STRIP_CELLS, ny - 1), nx - 1), spacing_px, mip)
        for i in range(0, ny - 1, _STRIP_CELLS)
    ]
    return np.concatenate([np.zeros((0, nx - 1), np.float32), *strips])


def _strip(
    defects: NDArray[np.uint8],
    matrix: Affine,
    cells: tuple[int, int, int],
    spacing_px: int,
    mip: int,
) -> NDArray[np.float32]:
    """Factors of rows i0 ... i1 - 1 of nx cells, `cells` being (i0, i1, nx)."""
    i0, i1, nx = cells
    step = spacing_px / _SAMPLES
    points = grid_points((i1 - i0) * _SAMPLES, nx * _SAMPLES, 1) * step + (step - 1) / 2
    points[:, 0] += i0 * spacing_px
    at = np.rint((apply_affine(matrix, points) + 0.5) / 2**mip - 0.5).astype(np.intp)
    inside = ((at >= 0) & (at < defects.shape)).all(1)
    found = np.full(len(at), Defect.OUTSIDE, np.uint8)
    found[inside] = defects[*at[inside].T]
    blocks = found.reshape(i1 - i0, _SAMPLES, nx, _SAMPLES)
    is_torn = ((blocks & np.uint8(_TEARING)) != 0).any(axis=(1, 3))
    is_empty = ((blocks & np.uint8(~_HARMLESS & 0xFF)) != 0).all(axis=(1, 3))
    return np.where(is_torn, TORN, np.where(is_empty, EMPTY, 1.0)).astype(np.float32)
