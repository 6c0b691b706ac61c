"""Normalised cross-correlation of a template in an image, by numpy and scipy.

The same as `inference.tf_ncc.correlograms`, with its rule of what is flat, and without TensorFlow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from inference.engine.ops import Array, Similarity

_FLAT = 1e-12
"""A variance below this share of the largest squared value is rounding of the sums in float64."""
_EPSILON = 2.0**-23

Wide = NDArray[np.float64]


def correlogram(search: Array, template: Array, *, similarity: Similarity = "pearson") -> Array:
    """Return (H - h + 1, W - w + 1, c) of a template (h, w, c) in a search image (H, W, c).

    In -1..1 but for rounding, channel by channel, indexed by where the template's first pixel lies.
    0 where the patch or the template is flat.

    References
    ----------
    .. [1] J. P. Lewis, "Fast Normalized Cross-Correlation", Vision Interface, 1995.
    """
    images, kernels = (np.moveaxis(x, -1, 0).astype(np.float64) for x in (search, template))
    floors = [(_EPSILON * abs(x).max(axis=(1, 2), keepdims=True)) ** 2 for x in (images, kernels)]
    if similarity == "pearson":
        images -= images.mean(axis=(1, 2), keepdims=True)
        kernels -= kernels.mean(axis=(1, 2), keepdims=True)
    for n, x in enumerate((images, kernels)):
        floors[n] += _FLAT * abs(x).max(axis=(1, 2), keepdims=True) ** 2
    number = kernels.shape[1] * kernels.shape[2]
    h, w = kernels.shape[1:]
    spread = _box_sums(images**2, h, w)
    if similarity == "pearson":
        spread -= _box_sums(images, h, w) ** 2 / number
    energy = (kernels**2).sum(axis=(1, 2), keepdims=True)
    scale = _inverse_root(spread, number * floors[0]) * _inverse_root(energy, number * floors[1])
    return np.moveaxis((_products(images, kernels) * scale).astype(np.float32), 0, -1)


def _products(images: Wide, kernels: Wide) -> Wide:
    """Multiply spectra. What wraps around falls on places where the template would stick out."""
    (ny, nx), (h, w) = images.shape[1:], kernels.shape[1:]
    lengths = [fft.next_fast_len(n, real=True) for n in (ny, nx)]
    spectra = fft.rfft2(images, lengths) * fft.rfft2(kernels, lengths).conj()
    return np.asarray(fft.irfft2(spectra, lengths)[:, : ny - h + 1, : nx - w + 1])


def _box_sums(images: Wide, h: int, w: int) -> Wide:
    """Return the sum of every patch of h x w."""
    sums = np.pad(images, ((0, 0), (1, 0), (1, 0))).cumsum(axis=1).cumsum(axis=2)
    rows = sums[:, h:] - sums[:, :-h]
    return np.asarray(rows[:, :, w:] - rows[:, :, :-w])


def _inverse_root(energy: Wide, floor: Wide) -> Wide:
    """Return energy ** -0.5, and 0 up to the floor."""
    is_flat = energy <= floor
    return np.where(is_flat, 0.0, 1 / np.sqrt(np.where(is_flat, 1.0, energy)))
