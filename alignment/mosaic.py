"""Draw the tiles of a section: feathered where they overlap, untouched where they do not.

Tiles are put on whole pixels, at most half a pixel from where they were found to lie: their pixels
are resampled once, when the aligned volume is rendered. Of several tiles that show a pixel, each
counts by the fourth power of its distance from its own edge: no edge shows, and the band in which
two images mix is a third of the overlap. Where a lens bends the tiles, contours are double there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.errors import ShapeError

_STRIP = 256

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Canvas:
    """The pixels of a stitched section, and where its tiles lie on them."""

    shape: tuple[int, int]
    """(y, x), px."""
    corners: NDArray[np.int64]
    """(n, 2): the pixel of the canvas that shows each tile's first pixel."""


def make_canvas(positions: NDArray[np.float64], shapes: NDArray[np.int64]) -> Canvas:
    """Return the smallest canvas that holds all tiles.

    >>> make_canvas(np.array([[0.4, 0.0], [7.6, -2.0]]), np.array([[10, 8], [10, 8]])).shape
    (18, 10)
    """
    corners = np.rint(positions).astype(np.int64)
    corners = corners - corners.min(axis=0)
    height, width = (int(v) for v in (corners + shapes).max(axis=0))
    return Canvas((height, width), corners)


def touching(
    canvas: Canvas, shapes: NDArray[np.int64], start_yx: tuple[int, int], stop_yx: tuple[int, int]
) -> list[int]:
    """Return the tiles that show a pixel of the box [start, stop) of the canvas."""
    inside = (canvas.corners < stop_yx).all(1) & (canvas.corners + shapes > start_yx).all(1)
    return [int(i) for i in np.flatnonzero(inside)]


def edge_weights(shape: tuple[int, int], valid: Bools | None) -> NDArray[np.float32]:
    """Return what each pixel counts: its distance from the tile's edge, to the fourth power.

    The next invalid pixel is an edge too; 1 is half the tile's longer side away from all.

    >>> edge_weights((4, 8), None)[1].tolist() == [w / 4**4 for w in (1, 16, 16, 16, 16, 16, 16, 1)]
    True
    """
    inside = np.ones(shape, np.uint8) if valid is None else valid.astype(np.uint8)
    bordered = np.pad(inside, 1)
    distance = cv2.distanceTransform(bordered, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    share = distance[1:-1, 1:-1] / np.float32(max(shape) / 2)
    return np.asarray(np.square(np.square(share)), dtype=np.float32)


def blend(
    start_yx: tuple[int, int],
    shape_yx: tuple[int, int],
    tiles: Iterable[tuple[tuple[int, int], Bytes, NDArray[np.float32]]],
) -> Bytes:
    """Draw a box of the canvas.

    Parameters
    ----------
    start_yx, shape_yx : tuple of int
        First pixel and extent of the box.
    tiles : iterable of (corner, image, weights)
        Each tile's corner on the canvas, its pixels, and their `edge_weights`. A pixel that is 0
        is no data, as everywhere.

    Returns
    -------
    uint8 ndarray of `shape_yx`
        Weighted means, halves rounded to even; 0 where no tile has data. The same bits for a
        pixel whatever the box it is drawn in, if the tiles come in the same order.
    """
    total = np.zeros(shape_yx, np.float32)
    weight = np.zeros(shape_yx, np.float32)
    for corner, image, weights in tiles:
        if image.shape != weights.shape:
            raise ShapeError(f"a tile of {image.shape} px has weights of {weights.shape}")
        here, there = [], []
        for c, n, s, extent in zip(corner, image.shape, start_yx, shape_yx, strict=True):
            low, high = max(c, s), min(c + n, s + extent)
            here.append(slice(low - s, max(high, low) - s))
            there.append(slice(low - c, max(high, low) - c))
        part = image[tuple(there)]
        share = weights[tuple(there)] * (part > 0)
        total[tuple(here)] += share * part
        weight[tuple(here)] += share
    drawn = np.empty(shape_yx, np.uint8)
    for y in range(0, shape_yx[0], _STRIP):  # the copies that this makes stay small
        rows = slice(y, y + _STRIP)
        known = weight[rows] > 0
        mean = np.rint(total[rows] / np.where(known, weight[rows], np.float32(1)))
        # Data stays data: a faint mean must not round to "no data".
        drawn[rows] = np.where(known, np.clip(mean, 1, 255), 0)
    return drawn
