"""Folds, cracks and seams drawn into real sections, so that every damaged pixel is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

Image = NDArray[np.uint8]
Damage = Callable[[Image, int, np.random.Generator], tuple[Image, NDArray[np.bool_]]]
"""Called with a section, a width in px and a generator; returns the damaged one, and where."""


def fold(
    image: Image, width_px: int, random: np.random.Generator
) -> tuple[Image, NDArray[np.bool_]]:
    """Hide a strip under a band that lets through what three layers do."""
    return _absorb(image, width_px, random, layers=3)


def faint_fold(
    image: Image, width_px: int, random: np.random.Generator
) -> tuple[Image, NDArray[np.bool_]]:
    """Hide a strip under a band that lets through what two layers do."""
    return _absorb(image, width_px, random, layers=2)


def bright_crack(
    image: Image, width_px: int, random: np.random.Generator
) -> tuple[Image, NDArray[np.bool_]]:
    """Pull the section apart over bare resin: as bright as the brightest hundredth of it."""
    grey = float(np.percentile(image, 99.5))
    return _gap(image, width_px, random, min(grey + 15, 250))


def black_crack(
    image: Image, width_px: int, random: np.random.Generator
) -> tuple[Image, NDArray[np.bool_]]:
    """Pull the section apart over nothing: dark, with the camera's noise."""
    return _gap(image, width_px, random, 8.0)


def seam(image: Image, step: float, random: np.random.Generator) -> tuple[Image, NDArray[np.bool_]]:
    """Brighten what lies beyond a straight line up to 2 degrees off an axis.

    `step` is in spreads (percentile 90 - 10); the line is returned as a band of one pixel.
    """
    ny, nx = image.shape
    low, high = np.percentile(image, (10, 90))
    at, slope = random.uniform(0.3, 0.7) * nx, math.tan(math.radians(random.uniform(-2, 2)))
    border = at + slope * (np.arange(ny) - ny / 2)
    beyond = np.arange(nx) > border[:, None]
    added = step * (high - low) * (beyond - 0.5)  # half of it on each side, so that little clips
    line = np.zeros(image.shape, np.bool_)
    line[np.arange(ny), np.rint(border).astype(int).clip(0, nx - 1)] = True
    is_row = random.random() < 0.5
    if is_row and ny == nx:
        return _as_image(image + added.T), np.ascontiguousarray(line.T)
    return _as_image(image + added), line


def _absorb(
    image: Image, width_px: int, random: np.random.Generator, *, layers: int
) -> tuple[Image, NDArray[np.bool_]]:
    distance, normal = _bent_line(image.shape, random)
    side = np.clip(distance * 2 / width_px, -1, 1)
    y, x = np.indices(image.shape, np.float64)
    # The two sides move together by the width of the band; the strip between is hidden.
    push = width_px / 2 * side
    shown = map_coordinates(
        image.astype(np.float32),
        [y + normal[0] * push, x + normal[1] * push],
        order=1,
        mode="mirror",
    )
    where = np.abs(distance) < width_px / 2
    white = max(float(np.percentile(image, 99.9)), 1.0)
    through = white * (shown / white) ** layers
    noise = random.normal(0, 3, image.shape)
    return _as_image(np.where(where, through + noise, shown)), where


def _gap(
    image: Image, width_px: int, random: np.random.Generator, grey: float
) -> tuple[Image, NDArray[np.bool_]]:
    distance, _ = _bent_line(image.shape, random)
    where = np.abs(distance) < width_px / 2
    noise = random.normal(0, 4, image.shape)
    return _as_image(np.where(where, grey + noise, image)), where


def _bent_line(
    shape: tuple[int, ...], random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distance of each pixel from a slightly bent line across the image, its normal."""
    angle = random.uniform(0, 2 * math.pi)
    normal = np.array([math.sin(angle), math.cos(angle)])
    side = min(shape)
    centre = (np.array(shape) - 1) / 2 + random.uniform(-0.15, 0.15, 2) * side
    y, x = (i - c for i, c in zip(np.indices(shape, np.float64), centre, strict=True))
    across, along = normal[0] * y + normal[1] * x, normal[1] * y - normal[0] * x
    wave = random.uniform(0.5, 0.9) * side
    return across - 0.012 * side * np.sin(2 * math.pi * along / wave), normal


def _as_image(grey: NDArray[np.floating]) -> Image:
    return np.rint(grey).clip(1, 255).astype(np.uint8)
