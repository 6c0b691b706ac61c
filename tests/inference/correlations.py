"""Normalised cross-correlation by its definition, in float64: the oracle of the layers."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def by_definition(images, filters, *, similarity="pearson"):
    """Correlate (b, H, W, cin) with (h, w, cin, cout) patch by patch; 0 where either is flat."""
    images, filters = np.float64(images), np.float64(filters)
    h, w, cin, cout = filters.shape
    patches = sliding_window_view(images, (h, w), axis=(1, 2))
    patches = np.moveaxis(patches, 3, -1).reshape(*patches.shape[:3], h * w * cin)
    templates = filters.reshape(h * w * cin, cout)
    if similarity == "pearson":
        patches = patches - patches.mean(-1, keepdims=True)
        templates = templates - templates.mean(0)
    norms = np.linalg.norm(patches, axis=-1, keepdims=True) * np.linalg.norm(templates, axis=0)
    return np.where(norms > 0, patches @ templates / np.where(norms > 0, norms, 1), 0)


def per_channel(search, template, *, similarity="pearson"):
    """Correlate (b, H, W, c) with (b, h, w, c), each batch and channel by itself."""
    pairs = [
        [
            by_definition(s[None, ..., c, None], t[..., c, None, None], similarity=similarity)[0]
            for c in range(search.shape[3])
        ]
        for s, t in zip(search, template, strict=True)
    ]
    return np.stack([np.concatenate(channels, axis=-1) for channels in pairs])


def differences(function, tensors, *, step=1e-5):
    """Return the gradient of a scalar function of float64 arrays by central differences."""
    gradients = []
    for k, tensor in enumerate(tensors):
        gradient = np.empty_like(tensor)
        for index in np.ndindex(tensor.shape):
            values = []
            for sign in (1, -1):
                moved = list(tensors)
                moved[k] = tensor.copy()
                moved[k][index] += sign * step
                values.append(float(function(*moved)))
            gradient[index] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients
