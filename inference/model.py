"""A learned transform: an image of a section in, an image that is easier to match out."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class FeatureTransform(Protocol):
    """Makes the images that sections are matched by; stateless, so any worker can repeat it."""

    def __call__(self, image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Map a whole section (y, x) to its features.

        Float32 of the same shape, that float16 stores without loss, of about unit variance; exactly
        0 where `valid` is False, and independent of what `image` shows there.
        """
