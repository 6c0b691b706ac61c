"""Fill what an image does not show with something smooth, so that a network sees no edge there."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.errors import ShapeError

Floats = NDArray[np.float32]


def fill_invalid(image: NDArray[np.uint8] | Floats, valid: NDArray[np.bool_]) -> Floats:
    """Return the image with its invalid pixels replaced by averages of the valid ones around.

    Averages of 2 x 2, 4 x 4, 8 x 8 ... pixels, of the valid ones among them; each invalid pixel
    takes the finest that there is, interpolated.

    Parameters
    ----------
    image : ndarray of shape (y, x)
        Grey values. What it shows where `valid` is False changes nothing.
    valid : bool ndarray of shape (y, x)
        True where tissue is shown.

    Returns
    -------
    float32 ndarray of shape (y, x)
        All 0 if nothing is valid.

    Raises
    ------
    ShapeError
        If the two differ in shape.
    """
    if image.ndim != 2 or image.shape != valid.shape:
        raise ShapeError(
            f"image and valid must have the same shape (y, x), got {image.shape} and {valid.shape}"
        )
    known = np.where(valid, image, 0).astype(np.float32)
    return known if valid.all() else _filled(known, valid.astype(np.float32))


def _filled(mean: Floats, weight: Floats) -> Floats:
    """Fill an image where its weight is 0."""
    if min(mean.shape) < 2 and max(mean.shape) < 2:
        return mean
    coarse_weight = _halved(weight)
    sums = _halved(mean * weight)
    coarse = np.divide(sums, coarse_weight, out=np.zeros_like(sums), where=coarse_weight > 0)
    if not (coarse_weight > 0).all():
        coarse = _filled(coarse, (coarse_weight > 0).astype(np.float32))
    size = (2 * coarse.shape[1], 2 * coarse.shape[0])
    enlarged = cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR)
    return np.where(weight > 0, mean, enlarged[: mean.shape[0], : mean.shape[1]])


def _halved(image: Floats) -> Floats:
    """Sum each square of 2 x 2 pixels; beyond an odd side lie zeros."""
    ny, nx = image.shape
    even = np.pad(image, ((0, ny % 2), (0, nx % 2)))
    sums = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2).sum(axis=(1, 3))
    return np.asarray(sums, np.float32)
