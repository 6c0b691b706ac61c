"""Vary labelled samples: elastic warps above all, as the U-Net was published with.

Random displacements of a few nodes, smooth in between by bicubic interpolation, the same in all
sections of a sample and for image and labels, which stay whole numbers.

References
----------
.. [1] O. Ronneberger et al., arXiv:1505.04597, 2015, section 3.1: 3 x 3 nodes, Gaussian, 10 px.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.training.config import ElasticConfig

Image = NDArray[np.float32]
Labels = NDArray[np.uint8]


def varied(
    image: Image, labels: Labels, config: ElasticConfig, random: np.random.Generator
) -> tuple[Image, Labels]:
    """Return image and labels (z, y, x), varied; what the image shows stays where its label is.

    Parameters
    ----------
    image, labels : ndarrays of one shape
        Grey values 0 to 1, and classes.
    """
    if config.flips:
        turns = int(random.integers(4)) if image.shape[1] == image.shape[2] else 0
        turns, mirror = turns or 2 * int(random.integers(2)), bool(random.integers(2))
        image, labels = np.rot90(image, turns, (1, 2)), np.rot90(labels, turns, (1, 2))
        if mirror:
            image, labels = image[..., ::-1], labels[..., ::-1]
    if config.elastic_px:
        at = _displaced(image.shape[1:], config, random)
        image = _sampled(image, at, cv2.INTER_LINEAR)
        labels = _sampled(labels, at, cv2.INTER_NEAREST)
    gain = float(random.uniform(1 - config.contrast, 1 + config.contrast))
    shift = float(random.uniform(-config.brightness, config.brightness))
    mean = float(image.mean())
    changed = (image - mean) * gain + mean + shift
    if config.noise:
        sigma = float(random.uniform(0, config.noise))
        changed = changed + sigma * random.standard_normal(image.shape, np.float32)
    return np.clip(changed, 0, 1, dtype=np.float32), np.ascontiguousarray(labels)


def _displaced(
    size: tuple[int, ...], config: ElasticConfig, random: np.random.Generator
) -> tuple[Image, Image]:
    """Return where each pixel (y, x) is taken from: x and y, as OpenCV wants them."""
    nodes = random.normal(0, config.elastic_px, (2, *[config.elastic_nodes] * 2))
    dy, dx = (
        cv2.resize(each.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
        for each in nodes
    )
    y, x = np.indices(size, np.float32)
    return x + dx, y + dy


def _sampled[T: (Image, Labels)](stack: T, at: tuple[Image, Image], how: int) -> T:
    sections = [
        cv2.remap(np.ascontiguousarray(each), *at, how, None, cv2.BORDER_REFLECT_101)
        for each in stack
    ]
    return np.stack(sections)
