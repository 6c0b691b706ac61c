"""Background and exposure of a section: what is brighter or darker for reasons beside the tissue.

The local background is the median of large blocks, with the spread below and above it; a low-order
surface through the medians tells shading apart from staining. Exposure is judged where grey values
are lost: at the ends of the scale, or in the dark without contrast.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

BLOCK_PX = 64
"""Side of the blocks whose median is the background: a band a quarter as wide moves it little."""
_MIN_KNOWN = 0.25
"""Share of a block that must be known for it to have a median."""
_MIN_SPREAD = 4.0
"""Grey values: less is no tissue, and must not blow noise up to contrast."""
_ROUNDS = 8
"""Of the robust fit; it changes by less than 0.01 grey values after five."""


class Background(NamedTuple):
    """Median, and distance of percentiles 10 and 90 from it; each (ny, nx), grey values."""

    median: Image
    below: Image
    above: Image


def local_background(
    image: Image, known: NDArray[np.bool_], block_px: int = BLOCK_PX
) -> Background:
    """Return the background of each pixel, between the medians of blocks round it.

    Parameters
    ----------
    image : float32 ndarray of shape (ny, nx)
        Grey values.
    known : bool ndarray of shape (ny, nx)
        Where `image` shows something; the rest does not count.
    block_px : int
        About the side of the blocks; an image that does not hold 3 x 3 is one block.

    Returns
    -------
    Background
        The spreads are at least half of what is usual in the section, and 4 grey values: a smooth
        place does not turn noise into contrast.
    """
    if min(image.shape) < 3 * block_px:
        block_px = max(image.shape)  # a fold would fill too much of so few blocks
    grids = block_percentiles(image, known, (10, 50, 90), block_px)
    low, median, high = (_smoothed(grid) for grid in grids)
    below, above = median - low, high - median
    below = np.maximum(below, max(float(np.median(below)) / 2, _MIN_SPREAD))
    above = np.maximum(above, max(float(np.median(above)) / 2, _MIN_SPREAD))
    size = image.shape[::-1]
    return Background(
        *(np.asarray(cv2.resize(g, size), np.float32) for g in (median, below, above))
    )


def block_percentiles(
    image: Image, known: NDArray[np.bool_], percents: tuple[float, ...], block_px: int
) -> NDArray[np.float32]:
    """Return percentiles of blocks, (len(percents), by, bx); NaN where too little is known."""
    ny, nx = image.shape
    by, bx = max(1, round(ny / block_px)), max(1, round(nx / block_px))
    found = np.full((len(percents), by, bx), np.nan, np.float32)
    for i in range(by):
        rows = slice(i * ny // by, (i + 1) * ny // by)
        for j in range(bx):
            part = (rows, slice(j * nx // bx, (j + 1) * nx // bx))
            # Every other pixel of every other row: neighbours look alike, and sorting is slow.
            block, there = image[part][::2, ::2], known[part][::2, ::2]
            values = block[there]
            if values.size and values.size >= _MIN_KNOWN * block.size:
                found[:, i, j] = np.percentile(values, percents)
    return found


def shading(image: Image, known: NDArray[np.bool_]) -> float:
    """Return how uneven the illumination is: range of a smooth background over its median.

    The background is a quadratic surface through the blocks' medians, fitted by iteratively
    re-weighted least squares (Tukey's biweight), so that folds, holes and vessels do not count.

    Parameters
    ----------
    image : float32 ndarray of shape (ny, nx)
    known : bool ndarray of shape (ny, nx)

    Returns
    -------
    float
        (percentile 95 - percentile 5) / median of the surface; 0 if fewer than 12 blocks are known.

    Examples
    --------
    >>> ramp = np.tile(np.linspace(100, 140, 640, dtype=np.float32), (640, 1))
    >>> round(shading(ramp, np.ones(ramp.shape, bool)), 2)
    0.3
    """
    grid = block_percentiles(image, known, (50,), BLOCK_PX)[0]
    there = np.isfinite(grid)
    if np.count_nonzero(there) < 12:
        return 0.0
    y, x = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in grid.shape)
    yy, xx = np.meshgrid(y, x, indexing="ij")
    terms = np.stack([np.ones_like(yy), yy, xx, yy * xx, yy**2, xx**2], axis=-1)
    design, target = terms[there], grid[there].astype(np.float64)
    weights = np.ones(target.size)
    surface = np.full(target.size, np.median(target))
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        solution = np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0]
        surface = design @ solution
        miss = np.abs(target - surface)
        scale = 4.685 * max(1.4826 * float(np.median(miss)), 0.5)
        weights = np.clip(1 - (miss / scale) ** 2, 0, 1) ** 2
    p5, p50, p95 = np.percentile(surface, (5, 50, 95))
    return float((p95 - p5) / max(p50, 1.0))


def clipped_areas(
    at_end: NDArray[np.bool_], known: NDArray[np.bool_], share: float, window_px: int
) -> NDArray[np.bool_]:
    """Return the known pixels of windows of which more than `share` lies at the end of the scale.

    Parameters
    ----------
    at_end : bool ndarray of shape (ny, nx)
        Pixels at the darkest, or the brightest, value.
    known : bool ndarray of shape (ny, nx)
        What may be judged; the rest does not count.
    share : float
        0..1.
    window_px : int
        Side of the windows; an image smaller than one has none.
    """
    if min(at_end.shape) < window_px or not at_end.any():
        return np.zeros(at_end.shape, np.bool_)
    window = (window_px, window_px)
    border = cv2.BORDER_REFLECT
    count = cv2.blur(known.astype(np.float32), window, borderType=border)
    ends = cv2.blur((at_end & known).astype(np.float32), window, borderType=border)
    centres = (ends > share * count) & (count >= 0.5)
    grown = cv2.dilate(centres.view(np.uint8), np.ones(window, np.uint8))
    return np.asarray(grown > 0) & known


def dark_areas(
    mean: Image,
    contrast: Image,
    known: NDArray[np.bool_],
    usual: NDArray[np.bool_],
    fraction: float,
) -> NDArray[np.bool_]:
    """Return the pixels in the dark: windows that are both much darker and flatter than usual.

    Parameters
    ----------
    mean, contrast : float32 ndarrays of shape (ny, nx)
        Mean and standard deviation in the window round each pixel, grey values.
    known, usual : bool ndarrays of shape (ny, nx)
        What may be judged, and what says how the section usually is.
    fraction : float
        Of the section's median, which the mean must not exceed; the contrast must be below half of
        its median. A red blood cell is as flat but only a third darker than the tissue.
    """
    if not usual.any() or fraction <= 0:
        return np.zeros(known.shape, np.bool_)
    grey, lively = float(np.median(mean[usual])), float(np.median(contrast[usual]))
    return known & (mean <= fraction * grey) & (contrast <= 0.5 * lively)


def _smoothed(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fill unknown blocks with the median of all and take out single blocks that stand out."""
    known = np.isfinite(grid)
    filled = np.where(known, grid, np.median(grid[known]) if known.any() else 128.0)
    if min(grid.shape) < 3:
        return filled.astype(np.float32)
    padded = np.pad(filled.astype(np.float32), 1, mode="edge")
    return np.asarray(cv2.medianBlur(padded, 3)[1:-1, 1:-1], np.float32)
