"""NCCNet by the fused engine: runs a network without any library, compiled for each image size."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from inference.engine import Engine, Settings, from_nccnet
from inference.model import Network, Predict
from inference.nccnet import check_sides

_SIZES = 4  # of images, whose compiled networks are kept: each has memory of its own


def predictor(network: Network, *, threads: int = 1) -> Predict:
    """Return the function of images (y, x) to features (y, x, channels).

    Parameters
    ----------
    threads : int
        Threads that compute one image. Threads may share the function.

    Raises
    ------
    BackendError
        If the kernels are not built, or from other sources.
    """
    # Not tuned: which kernel is the fastest may differ from worker to worker, and with it the bits.
    settings = Settings(threads=threads, tuning=False)

    @lru_cache(maxsize=_SIZES)
    def compiled(sides_px: tuple[int, int]) -> Engine:
        return Engine(from_nccnet.read(network, sides_px), settings)

    def predict(image: NDArray[np.float32]) -> NDArray[np.float32]:
        sides_px = (image.shape[0], image.shape[1])
        check_sides(sides_px, network.config)
        features: NDArray[np.float32] = compiled(sides_px)(image[np.newaxis, ..., np.newaxis])[0]
        return features

    compiled((network.config.step_px,) * 2)  # what is missing is said now
    return predict
