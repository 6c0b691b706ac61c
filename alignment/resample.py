"""Sampling of a uint8 image between its pixels, known or not, at positions in steps of 1/32 px.

The compiled kernel (`alignment.native`, remap.cpp) does the work; numpy gives the same bytes where
no compiler could make it, some thirty times slower. Both add whole numbers, so that neither the
processor nor the order of the sums leaves a trace.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment import native
from alignment.bilinear import upsample
from alignment.errors import ConfigError
from alignment.positions import Steps
from alignment.weights import BITS, ONE, STEPS, WIDTHS, reach, table

Interpolation = Literal["nearest", "linear", "cubic", "lanczos"]
Image = NDArray[np.uint8]

SPECK_PX = 4
"""Side of the smallest square of zeros that is no data."""
TILE_PX = 256
_KNOWN, _SOME, _SAFE = 1, 2, 4


@dataclass(frozen=True)
class Pixels:
    """An image as it is sampled."""

    tissue: Image
    """(h, w): 1 or more where there is data."""
    marks: Image | None
    """(h, w), bits: 1 it is known; 2 it or one of those right of and below it is, its own square of
    2 x 2; 4 all of a kernel's are. None if all pixels are known."""

    @classmethod
    def of(cls, image: Image, interpolation: Interpolation) -> Pixels | None:
        """Tell data from no data (`alignment.render`); None if there is no data at all."""
        found = cv2.countNonZero(image)
        if not found:
            return None
        if found == image.size:
            return cls(image, None)
        known = _known(image)
        tissue = np.maximum(image, known)
        if known.all():
            return cls(tissue, None)
        marks, safe = _most(known, 0, 1), _least(known, *reach(kernel_px(interpolation)))
        marks *= np.uint8(_SOME)  # in place: these are as large as the image
        safe *= np.uint8(_SAFE)
        marks |= known
        marks |= safe
        return cls(tissue, marks)


@dataclass(frozen=True)
class Grid:
    """Positions that are bilinear between nodes."""

    nodes: NDArray[np.float64]
    """(2, my, mx): y, x of the nodes in the section, steps."""
    spacing_px: int
    offset_yx: tuple[int, int]
    """Where in the first cell the box begins, px."""
    origin_yx: tuple[int, int]
    """Where in the section the image begins, px."""

    def tiles(self, shape_yx: tuple[int, int]) -> Iterator[tuple[slice, slice, Steps]]:
        """Yield the rows and columns of tiles that cover a box, and their pixels' positions."""
        origin = np.array(self.origin_yx, np.int32)[:, None, None] << BITS
        for y in range(0, shape_yx[0], TILE_PX):
            for x in range(0, shape_yx[1], TILE_PX):
                h, w = min(TILE_PX, shape_yx[0] - y), min(TILE_PX, shape_yx[1] - x)
                (i, oy), (j, ox) = (
                    divmod(o + first, self.spacing_px)
                    for o, first in zip(self.offset_yx, (y, x), strict=True)
                )
                rows, columns = (-(-(o + n) // self.spacing_px) for o, n in ((oy, h), (ox, w)))
                cells = self.nodes[:, i : i + rows + 1, j : j + columns + 1]
                steps = np.rint(upsample(cells, self.spacing_px, (oy, ox), (h, w)))
                yield slice(y, y + h), slice(x, x + w), steps.astype(np.int32) - origin


def resample(pixels: Pixels, grid: Grid, interpolation: Interpolation, *, out: Image) -> None:
    """Draw a box of pixels.

    Parameters
    ----------
    pixels : Pixels
        With all pixels that the kernels of the positions touch; positions beyond are moved to the
        image's edge, so what lies there must be no data.
    grid : Grid
        Where in the section the box's pixels lie.
    out : uint8 ndarray of shape (h, w)
        The box, its pixels side by side in memory; becomes 0 where there is no data, 1..255
        elsewhere.
    """
    width = kernel_px(interpolation)
    library = native.library()
    if library is None:
        pixels = Pixels(np.ascontiguousarray(pixels.tissue), pixels.marks)
        for rows, columns, steps in grid.tiles((out.shape[0], out.shape[1])):
            out[rows, columns] = _sample(pixels, steps, width)
        return
    nodes = np.ascontiguousarray(grid.nodes)
    y0, x0 = (first << BITS for first in grid.origin_yx)
    described = native.Nodes(
        nodes.ctypes.data, *nodes.shape[1:], grid.spacing_px, *grid.offset_yx, y0, x0
    )
    library.petalign_remap(
        _described(pixels),
        table(width).ctypes.data,
        width,
        ctypes.byref(described),
        *out.shape,
        out.ctypes.data,
        out.strides[0],
    )


def resample_at(pixels: Pixels, steps: Steps, interpolation: Interpolation) -> Image:
    """Return the values at positions (2, ...), in steps from the image's first pixel."""
    width = kernel_px(interpolation)
    library = native.library()
    if library is None:
        return _sample(pixels, steps, width)
    steps = np.ascontiguousarray(steps)
    result = np.empty(steps.shape[1:], np.uint8)
    library.petalign_remap_at(
        _described(pixels),
        table(width).ctypes.data,
        width,
        steps.ctypes.data,
        result.size,
        result.ctypes.data,
    )
    return result


def kernel_px(interpolation: Interpolation) -> int:
    """Return the side of a kernel, px, or say which ones there are."""
    if interpolation not in WIDTHS:
        raise ConfigError(
            f"render.interpolation must be one of {', '.join(WIDTHS)}; got {interpolation!r}"
        )
    return WIDTHS[interpolation]


def _described(pixels: Pixels) -> object:
    tissue, marks = pixels.tissue, pixels.marks
    return ctypes.byref(
        native.Source(
            tissue.ctypes.data,
            None if marks is None else marks.ctypes.data,
            tissue.strides[0],
            *tissue.shape,
        )
    )


def _sample(pixels: Pixels, steps: Steps, width: int) -> Image:
    """Do in numpy what the kernel does."""
    if width == 1:
        steps = steps + STEPS // 2
    before, after = reach(width)
    ny, nx = pixels.tissue.shape
    y = np.clip(steps[0] >> BITS, before, ny - 1 - after)
    x = np.clip(steps[1] >> BITS, before, nx - 1 - after)
    fy, fx = steps & (STEPS - 1)
    tissue = pixels.tissue.ravel()  # a view, but for a few pixels at once
    place, part = (y * nx + x).astype(np.intp), (fy * STEPS + fx).astype(np.intp)
    weights = table(width).reshape(STEPS**2, width**2).T.astype(np.int32)
    result = np.full(y.shape, ONE // 2, np.int32)
    for k in range(width**2):
        dy, dx = k // width - before, k % width - before
        result += np.take(weights[k], part) * np.take(tissue, place + (dy * nx + dx))
    drawn = np.clip(result >> ONE.bit_length() - 1, 1, 255).astype(np.uint8)
    if pixels.marks is not None:
        marks = pixels.marks[y, x]
        if width == 1:
            drawn[marks & _KNOWN == 0] = 0
        else:
            drawn[marks & _SOME == 0] = 0
            rim = marks & (_SOME | _SAFE) == _SOME
            drawn[rim] = _mean_of_known(pixels, y[rim], x[rim], fy[rim], fx[rim])
    return drawn


def _mean_of_known(pixels: Pixels, y: Steps, x: Steps, fy: Steps, fx: Steps) -> Image:
    """Linear interpolation (n,) between known pixels only; 0 where these have less than half."""
    known = np.zeros_like(pixels.tissue) if pixels.marks is None else pixels.marks & _KNOWN
    total, weight = np.zeros(len(y), np.int64), np.zeros(len(y), np.int64)
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.abs(STEPS * (1 - dy) - fy).astype(np.int64)
            share *= np.abs(STEPS * (1 - dx) - fx) * known[y + dy, x + dx]
            total += share * pixels.tissue[y + dy, x + dx]
            weight += share
    mean = (2 * total + weight) // np.maximum(2 * weight, 1)
    return np.where(2 * weight >= STEPS**2, mean, 0).astype(np.uint8)


def _known(image: Image) -> Image:
    """Return 1 where there is data: all but squares of zeros, which may overlap."""
    zero = (image == 0).view(np.uint8)
    unknown = _most(_least(zero, 0, SPECK_PX - 1), SPECK_PX - 1, 0)
    return np.bitwise_xor(unknown, 1, out=unknown)


def _least(mask: Image, before: int, after: int) -> Image:
    """Minimum over the px from `before` before to `after` after each, along both axes."""
    least = cv2.erode(mask, _square(before + after + 1), anchor=(before, before))
    return np.asarray(least, dtype=np.uint8)


def _most(mask: Image, before: int, after: int) -> Image:
    """Maximum, likewise."""
    most = cv2.dilate(mask, _square(before + after + 1), anchor=(before, before))
    return np.asarray(most, dtype=np.uint8)


def _square(side: int) -> Image:
    return np.ones((side, side), np.uint8)
