"""Affine maps of the plane, float64 (2, 3): rows y and x, the last column the shift.

``mapped_yx = affine[:, :2] @ yx + affine[:, 2]``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.bilinear import Points, check_points
from alignment.errors import DataError, ShapeError

Affine = NDArray[np.float64]


def affine_to_mip(affine: Affine, mip: int) -> Affine:
    """Express an affine between images at mip 0 in the pixels of another mip.

    Both of its sides change: ``p_k = (p_0 + 0.5) / 2**k - 0.5``, hence the half pixels.

    >>> affine_to_mip(np.array([[2.0, 0, 3], [0, 1, 0]]), 1)
    array([[2.  , 0.  , 1.75],
           [0.  , 1.  , 0.  ]])
    """
    linear, shift = _check_affine(affine)
    scale = 2.0**-mip
    half_px = linear.sum(axis=1) / 2 - 0.5  # how far the affine moves the corner (0.5, 0.5)
    return np.column_stack([linear, shift * scale + half_px * (1 - scale)])


def apply_affine(affine: Affine, points: Points) -> Points:
    """Map points (n, 2), rows (y, x)."""
    linear, shift = _check_affine(affine)
    points = check_points(points)
    return points[:, :1] * linear[:, 0] + points[:, 1:] * linear[:, 1] + shift


def invert_affine(affine: Affine) -> Affine:
    """Return the affine that undoes `affine`; DataError if it squashes the plane to a line."""
    linear, shift = _check_affine(affine)
    if abs(float(linear[0, 0] * linear[1, 1] - linear[0, 1] * linear[1, 0])) < 1e-9:
        raise DataError(f"affine {affine.tolist()} has no inverse; its linear part is singular")
    inverse = np.linalg.inv(linear)
    return np.column_stack([inverse, -inverse @ shift])


def compose_affines(outer: Affine, inner: Affine) -> Affine:
    """Return the affine that applies `inner`, then `outer` to its result."""
    (a, s), (b, t) = _check_affine(outer), _check_affine(inner)
    return np.column_stack([a @ b, a @ t + s])


def _check_affine(affine: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if np.shape(affine) != (2, 3):
        raise ShapeError(
            f"an affine must have shape (2, 3), rows y and x, last column the shift; "
            f"got {np.shape(affine)}"
        )
    affine = np.asarray(affine, dtype=np.float64)
    return affine[:, :2], affine[:, 2]
