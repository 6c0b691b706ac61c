"""A learned transform: an image of a section in, an image that is easier to match out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inference.config import NCCNetConfig
from inference.errors import ModelError
from inference.nccnet import weight_shapes


class FeatureTransform(Protocol):
    """Makes the images that sections are matched by; stateless, so any worker can repeat it."""

    def __call__(self, image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Map a whole section (y, x) to its features.

        Float32 of the same shape, that float16 stores without loss, of about unit variance; exactly
        0 where `valid` is False, and independent of what `image` shows there.
        """


class Predict(Protocol):
    """A network, compiled by a backend; threads may share it."""

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map grey values (y, x), of sides that the network takes, to features (y, x, channels)."""


@dataclass(frozen=True)
class Network:
    """A network as it is stored: what it is, and what it learned. No library is needed to hold it.

    Raises
    ------
    ModelError
        If the weights are not those of the architecture, or are not all finite.
    """

    config: NCCNetConfig
    weights: Mapping[str, NDArray[np.float32]]
    """By the names of `nccnet.weight_shapes`."""

    def __post_init__(self) -> None:
        """Check what the fields promise each other."""
        expected = weight_shapes(self.config)
        found = {name: np.shape(weight) for name, weight in self.weights.items()}
        wrong = sorted(n for n in expected | found if expected.get(n) != found.get(n))
        if wrong:
            name = wrong[0]
            raise ModelError(
                f"{len(wrong)} of {len(expected)} weights do not fit widths {self.config.widths}: "
                f"{name} should have the shape {expected.get(name)}, got {found.get(name)}"
            )
        bad = sorted(n for n, weight in self.weights.items() if not np.isfinite(weight).all())
        if bad:
            raise ModelError(
                f"the weights {bad[0]} are not all finite: the training diverged; go on from an "
                "earlier checkpoint, with a lower learning rate"
            )
