"""Inputs for tests; without Keras, which takes seconds to import."""

from __future__ import annotations

import numpy as np


def sample(shape, seed=0):
    """Return an input (batch of 1) of values between -1 and 1."""
    return np.random.default_rng(seed).uniform(-1, 1, (1, *shape)).astype(np.float32)
