"""Smooth random surfaces: uniform cubic B-splines with random coefficients.

A surface is defined by its coefficients alone, so it is known exactly at any point and on any grid.
Coefficient (i, j) peaks at (i - 1, j - 1) times the spacing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array

Coordinates = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]


def spline_basis(position: NDArray[np.float64], count: int) -> csr_array:
    """Return the matrix (positions, count) of uniform cubic B-splines.

    Positions are in units of the spacing, 0..count - 3.
    """
    return csr_array(BSpline.design_matrix(position, np.arange(count + 4) - 3.0, 3))


def evaluate_surfaces[T: np.floating[Any]](
    coefficients: NDArray[T],
    spacing: float,
    origin_yx: tuple[float, float],
    rows: Coordinates,
    columns: Coordinates,
) -> NDArray[T]:
    """Evaluate surfaces on a grid.

    Parameters
    ----------
    coefficients : ndarray of shape (..., gy, gx)
    spacing : float
        Distance of the coefficients, px.
    origin_yx : tuple of float
        Where position 0 of the surfaces lies, px.
    rows, columns : ndarray of shape (ny,), (nx,)
        The grid, px; beyond the surfaces their edge is repeated.

    Returns
    -------
    ndarray of shape (..., ny, nx)
    """
    gy, gx = coefficients.shape[-2:]
    by, bx = (
        spline_basis(np.clip((at - first) / spacing, 0, count - 3), count).astype(
            coefficients.dtype
        )
        for at, first, count in zip((rows, columns), origin_yx, (gy, gx), strict=True)
    )
    flat = [(bx @ (by @ one).T).T for one in coefficients.reshape(-1, gy, gx)]
    return np.stack(flat).reshape(*coefficients.shape[:-2], len(rows), len(columns))


def random_coefficients(
    random: np.random.Generator,
    count: int,
    length_px: float,
    extent_yx: tuple[float, float],
) -> tuple[NDArray[np.float64], float]:
    """Draw smooth Gaussian random surfaces of unit variance.

    Parameters
    ----------
    random : Generator
    count : int
        How many surfaces, independent of each other.
    length_px : float
        Values at a distance d correlate by exp(-d^2 / (2 length_px^2)).
    extent_yx : tuple of float
        Size of the surfaces, px.

    Returns
    -------
    coefficients : float64 ndarray of shape (count, gy, gx)
    spacing : float
        Distance of the coefficients, px.
    """
    spacing = length_px / 4
    # White noise smoothed by s correlates by exp(-d^2 / (4 s^2)); the spline itself adds 1/3.
    sigma = math.sqrt((length_px / spacing) ** 2 / 2 - 1 / 3)
    reach = math.ceil(4 * sigma)
    shape = (math.floor(n / spacing) + 4 + 2 * reach for n in extent_yx)
    white = random.standard_normal((count, *shape))
    smooth = gaussian_filter(white, (0, sigma, sigma), radius=(0, reach, reach))
    impulse = np.zeros(2 * reach + 3)
    impulse[reach + 1] = 1
    response = np.convolve(gaussian_filter(impulse, sigma, radius=reach), (1 / 6, 2 / 3, 1 / 6))
    return smooth[:, reach:-reach, reach:-reach] / np.sum(response**2), spacing


def grid(rows: Coordinates, columns: Coordinates) -> NDArray[np.float64]:
    """Return the coordinates (2, ny, nx) of the points of a grid."""
    return np.stack(np.broadcast_arrays(rows[:, None], columns)).astype(np.float64)
