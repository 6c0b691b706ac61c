"""The ways of making features that are compared: raw, a band-pass that was tuned, a network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from alignment.config import FeaturesConfig
from alignment.features import LIMIT, STEP, normalise
from alignment.learning.evaluation import EvaluationConfig, evaluate, false_rate
from alignment.learning.stacks import Stack
from inference.model import FeatureTransform

FINE_PX = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
COARSE_PX = (4.0, 8.0, 12.0, 15.0, 20.0, 25.0)
"""The grid of sigmas; those of the paper, and a narrower one."""


def raw(image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return grey values over the whole section's mean and standard deviation."""
    features = np.zeros(image.shape, np.float32)
    inside = image[valid].astype(np.float64)
    if inside.size and inside.std() > 0:
        scaled = (inside - inside.mean()) / inside.std()
        features[valid] = np.rint(scaled.clip(-LIMIT, LIMIT) / STEP) * STEP
    return features


def band_pass(fine_px: float, coarse_px: float) -> FeatureTransform:
    """Return the band-pass of the stage "features" with these sigmas."""
    config = FeaturesConfig(sigma_fine_px=fine_px, sigma_coarse_px=coarse_px)
    return partial(normalise, config=config)


def remembered(transform: FeatureTransform) -> FeatureTransform:
    """Return the transform, which computes nothing twice: for sections that are seen often."""
    kept: dict[bytes, NDArray[np.float32]] = {}

    def features(image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        key = hashlib.sha256(image.tobytes() + valid.tobytes()).digest()
        if key not in kept:
            kept[key] = transform(image, valid)
        return kept[key]

    return features


def tuned_band(
    stack: Stack,
    config: EvaluationConfig,
    *,
    tell: Callable[[int, int], None] = lambda _done, _all: None,
) -> tuple[tuple[float, float], Mapping[tuple[float, float], float]]:
    """Return the sigmas with the fewest false matches on a stack, and the share of each pair.

    The stack should not be one that ways are compared on. Of equals the widest band is taken.
    """
    grid = [(fine, coarse) for fine, coarse in product(FINE_PX, COARSE_PX) if fine < coarse]
    shares = {}
    for done, band in enumerate(grid, 1):
        found = evaluate(stack, {"band": band_pass(*band)}, config)["band"]
        shares[band] = false_rate(found, config.tolerance_px, draws=1).share
        tell(done, len(grid))
    return min(shares, key=lambda band: (shares[band], band[0] - band[1])), shares
