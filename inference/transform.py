"""A network as the transform of the stage "features": whole sections in, images to match out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inference.errors import ModelError, ShapeError
from inference.fill import fill_invalid
from inference.model import Network, Predict
from inference.model_file import read_model
from inference.nccnet import halo_px
from inference.tiling import TILE_PX, predict_tiled

Backend = Literal["keras", "openvino", "engine"]

STEP = 1 / 256
"""Features are whole multiples of this, so that float16 stores them without loss."""
LIMIT = 2047 * STEP
"""Largest feature: 11 bits, all that float16 and the matching hold."""
_MIN_STD = (
    1e-4  # of outputs in -1..1; below, the network saw nothing, and its rounding is not shown
)


@dataclass(frozen=True)
class NetworkTransform:
    """Runs a network over whole sections; a `FeatureTransform`.

    Features are the network's output less its mean, over its standard deviation, both over the
    valid part of the section; a network of several channels cannot be one, for matching takes a
    single image.
    """

    network: Network
    predict: Predict
    """The network, compiled by a backend."""
    tile_px: int = TILE_PX

    def __post_init__(self) -> None:
        """Check that the network makes one image."""
        if self.network.config.channels != 1:
            raise ModelError(
                f"the pipeline matches by one image, and this network makes "
                f"{self.network.config.channels}; train one with channels: 1"
            )

    def __call__(self, image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Map a section (y, x) to its features, see `FeatureTransform`."""
        filled = fill_invalid(image, valid)
        if not valid.any():
            return np.zeros(image.shape, np.float32)
        output = predict_tiled(
            self.predict,
            filled,
            halo=halo_px(self.network.config),
            step_px=self.network.config.step_px,
            tile_px=self.tile_px,
        )
        return standardised(output[..., 0], valid)


def standardised(output: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return (output - mean) / standard deviation over what is valid, and 0 elsewhere.

    In multiples of `STEP` within -LIMIT..LIMIT; 0 everywhere if the output is flat.
    """
    if output.shape != valid.shape:
        raise ShapeError(
            f"output and valid must have the same shape (y, x), got {output.shape} and "
            f"{valid.shape}"
        )
    inside = output[valid]
    mean, std = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
    features = np.zeros(output.shape, np.float32)
    if std > _MIN_STD:
        steps = np.rint((inside - np.float32(mean)) * np.float32(1 / (STEP * std)))
        features[valid] = steps.clip(-LIMIT / STEP, LIMIT / STEP) * np.float32(STEP)
    features += 0  # turns -0 into 0: equal features have equal bytes
    return features


@cache
def load_transform(
    path: Path, *, sha256: str | None = None, backend: Backend = "engine"
) -> NetworkTransform:
    """Return the transform of a model's file; read and compiled once in a process.

    Raises
    ------
    ModelError
        If the file is damaged or has another digest.
    BackendError
        If the backend's library is not installed.
    """
    network = read_model(path, sha256=sha256)
    return NetworkTransform(network, predictor_of(backend)(network))


def predictor_of(backend: Backend) -> Callable[[Network], Predict]:
    """Return what compiles networks; a backend is imported only here: TensorFlow takes seconds."""
    if backend == "openvino":
        from inference.backends import by_openvino

        return by_openvino.predictor
    if backend == "engine":
        from inference.backends import by_engine

        return by_engine.predictor
    from inference.backends import by_keras

    return by_keras.predictor
