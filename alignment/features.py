"""Features: images that are easier to match, a band-pass with the local contrast taken out.

A pixel of a feature image is in units of the local standard deviation, about -4..4, and exactly
0 where nothing is known.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.config import FeaturesConfig
from alignment.errors import ShapeError

LIMIT = 4.0
"""Features are clipped to -LIMIT..LIMIT: a speck of dirt must not outweigh the tissue around it."""
STEP = 1 / 256
"""Features are whole multiples of this, so that float16 stores them without loss."""

_TRUNCATE = 3.5  # standard deviations
_MIN_STD = 2.0  # grey values; a band-pass fainter than this is noise and is not blown up to tissue
_MIN_WEIGHT = 1e-6
_LANES = 16  # px; the widest vector of OpenCV's filters


def halo_px(config: FeaturesConfig) -> int:
    """Return the margin, px at the image's mip, on which a block's features depend."""
    return 2 * _radius(config.sigma_coarse_px)


def normalise(
    image: NDArray[np.uint8], valid: NDArray[np.bool_], config: FeaturesConfig
) -> NDArray[np.float32]:
    """Band-pass `image` and divide it by the local strength of what is left.

    The band-pass is a difference of Gaussians; the local strength is the root mean square of the
    band-passed image under the wider Gaussian. Every mean is a normalised convolution [1]_: it
    runs over the valid pixels only, so neither a masked area nor the border of the image bleeds
    into its surroundings. A change of gain or offset of the image changes nothing.

    Parameters
    ----------
    image : uint8 ndarray of shape (y, x)
        Section at one mip; the sigmas of `config` are px of this mip.
    valid : bool ndarray of shape (y, x)
        True where tissue may be used.
    config : FeaturesConfig
        The band.

    Returns
    -------
    float32 ndarray of shape (y, x)
        Multiples of 1/256 in -4..4, in units of the local standard deviation; exactly 0 where
        `valid` is False. A block that is read with a margin of `halo_px` on each side has the
        same values, bit for bit, as the whole section.

    Raises
    ------
    ShapeError
        If `image` is not two-dimensional or `valid` has another shape.

    References
    ----------
    .. [1] H. Knutsson, C.-F. Westin, "Normalized and differential convolution", CVPR 1993.
    """
    if image.ndim != 2 or image.shape != valid.shape:
        raise ShapeError(
            f"image and valid must have the same shape (y, x), got {image.shape} and {valid.shape}"
        )
    ny, nx = image.shape
    # OpenCV's vector loop and its scalar remainder round differently. Rows of whole vectors leave
    # no remainder, hence no trace of where a block ends.
    padded_x = math.ceil(nx / _LANES) * _LANES
    weight = np.zeros((ny, padded_x), np.float32)
    weight[:, :nx] = valid != 0
    # Centred grey values: the difference of two means near zero loses no digits.
    grey = np.zeros_like(weight)
    grey[:, :nx] = image
    grey = (grey - 128) * weight

    coarse = config.sigma_coarse_px
    fine_weight, coarse_weight = (
        np.maximum(_blur(weight, sigma), np.float32(_MIN_WEIGHT))
        for sigma in (config.sigma_fine_px, coarse)
    )
    fine_mean = _blur(grey, config.sigma_fine_px) / fine_weight
    band = (fine_mean - _blur(grey, coarse) / coarse_weight) * weight
    std = np.sqrt(_blur(np.square(band), coarse) / coarse_weight)
    features = np.zeros((ny, nx), np.float32)
    np.divide(band[:, :nx], np.maximum(std, np.float32(_MIN_STD))[:, :nx], out=features)
    np.clip(features, -LIMIT, LIMIT, out=features)
    np.rint(features * np.float32(1 / STEP), out=features)
    features *= np.float32(STEP)
    features += 0  # turns -0 into 0: equal features have equal bytes
    return features


def _radius(sigma_px: float) -> int:
    return math.ceil(_TRUNCATE * sigma_px)


def _blur(image: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Gaussian of `image`, with zeros outside."""
    if sigma_px == 0:
        return image
    kernel = cv2.getGaussianKernel(2 * _radius(sigma_px) + 1, sigma_px, cv2.CV_32F)
    blurred = cv2.sepFilter2D(image, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(blurred, dtype=np.float32)
