"""Small networks with weights drawn by numpy, for tests of whatever runs them."""

from __future__ import annotations

import numpy as np

from inference.config import NCCNetConfig
from inference.model import Network
from inference.nccnet import weight_shapes


def drawn(widths=(3, 4, 5), channels=1, *, seed=0, **settings):
    """Return a network whose kernels and biases are random."""
    config = NCCNetConfig(widths=widths, channels=channels, **settings)
    random = np.random.default_rng(seed)
    weights = {
        name: (random.normal(size=shape) / np.sqrt(max(np.prod(shape[:-1]), 4))).astype(np.float32)
        for name, shape in weight_shapes(config).items()
    }
    return Network(config, weights)


def grey(size, seed=0):
    """Return an image of noise, (y, x) float32, 0 to 255."""
    return np.random.default_rng(seed).integers(0, 256, size).astype(np.float32)
