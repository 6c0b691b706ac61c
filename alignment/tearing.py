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

_SAMPLES = 8  # a side: with nodes every 32 px a line of 4 px is not missed
_TEARING = Defect.CRACK | Defect.FOLD
_HARMLESS = Defect.SEAM


def tear_map(
    defects: NDArray[np.uint8],
    matrices: Affine,
    canvas_yx: tuple[int, int],
    spacing_px: int,
    *,
    mip: int,
) -> NDArray[np.float32]:
    """Return the factor on the stiffness of every cell of a stack.

    Parameters
    ----------
    defects : uint8 ndarray of shape (nz, y, x)
        `Defect` flags of every section at `mip`.
    matrices : float64 ndarray of shape (nz, 2, 3)
        Coarse affines: common frame to section, px at mip 0.
    canvas_yx : tuple of int
        Extent of the common frame, px at mip 0.
    spacing_px : int
        Distance of the mesh's nodes, px at mip 0.
    mip : int

    Returns
    -------
    float32 ndarray of shape (nz, ny - 1, nx - 1)
        `TORN` where a crack or a fold crosses the cell, `EMPTY` where it holds no tissue, else 1.

    Raises
    ------
    ShapeError
        If there is not one matrix a section.
    """
    if defects.ndim != 3 or matrices.shape != (len(defects), 2, 3):
        raise ShapeError(
            "defects must have shape (nz, y, x) and matrices (nz, 2, 3); "
            f"got {defects.shape} and {matrices.shape}"
        )
    ny, nx = node_grid(canvas_yx, spacing_px)
    return np.stack(
        [
            _section(one, matrix, (ny - 1, nx - 1), spacing_px, mip)
            for one, matrix in zip(defects, matrices, strict=True)
        ]
    )


def _section(
    defects: NDArray[np.uint8], matrix: Affine, cells: tuple[int, int], spacing_px: int, mip: int
) -> NDArray[np.float32]:
    step = spacing_px / _SAMPLES
    cy, cx = cells
    points = grid_points(cy * _SAMPLES, cx * _SAMPLES, 1) * step + (step - 1) / 2
    at = np.rint((apply_affine(matrix, points) + 0.5) / 2**mip - 0.5).astype(np.intp)
    inside = ((at >= 0) & (at < defects.shape)).all(1)
    found = np.full(len(at), Defect.OUTSIDE, np.uint8)
    found[inside] = defects[*at[inside].T]
    blocks = found.reshape(cy, _SAMPLES, cx, _SAMPLES)
    is_torn = ((blocks & np.uint8(_TEARING)) != 0).any(axis=(1, 3))
    is_empty = ((blocks & np.uint8(~_HARMLESS & 0xFF)) != 0).all(axis=(1, 3))
    return np.where(is_torn, TORN, np.where(is_empty, EMPTY, 1.0)).astype(np.float32)
