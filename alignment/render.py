"""Rendering: resample a section's source image into the aligned frame, or the common one.

``aligned[a] = source[C(a + F(a))]``, with C the coarse affine and F the published field. C after a
bilinear field is bilinear again, so source positions are computed in float64 at the nodes and
interpolated. They are then rounded to 1/32 px on a grid that belongs to the source: which box is
rendered, from which crop, leaves no trace in a pixel. No kernel moves a ramp (`alignment.weights`).

No data is 0, in source and result alike, and the two are kept apart from black tissue:

- Zeros are no data where they fill a square of 4 x 4 px or more; smaller specks are tissue that was
  too dark for the detector, and are shown as 1. So is any tissue that interpolation makes 0.
- A pixel whose interpolation kernel lies on tissue only is interpolated as asked. Where the kernel
  touches no data, the pixel is the mean of the known ones among its 4 neighbours, with their linear
  weights, if these reach a half, else no data. So borders neither darken nor ring.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError, ShapeError
from alignment.fields import Affine, Field, check_field, map_to_source
from alignment.positions import Steps, check_known, extremes, in_steps, nodes_in_steps, rounded
from alignment.resample import (
    TILE_PX,
    Grid,
    Image,
    Interpolation,
    Pixels,
    kernel_px,
    resample,
    resample_at,
)
from alignment.weights import BITS, STEPS

__all__ = ["MARGIN_PX", "Interpolation", "source_bounds", "warp", "warp_affine"]

MARGIN_PX = 8
"""Source px around the sampled positions on which a result depends: 4 of the widest kernel, 3 to
tell no data from a speck, 1 for rounding."""

_BLOCK_PX = 2048  # side of what is drawn at once: bounds the memory for crops and marks
_FARTHEST_APART_PX = 127  # in the section, of pixels that are neighbours in the result
_LARGEST_CROP_BYTES = 2**31
_BEYOND_PX = 2 * MARGIN_PX  # there no kernel reaches the source
_FLAGS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}


def source_bounds(
    coarse: Affine,
    field: Field,
    spacing_px: int,
    start_yx: tuple[int, int],
    shape_yx: tuple[int, int],
    margin_px: int = MARGIN_PX,
) -> tuple[int, int, int, int]:
    """Return the box of source pixels that a box of aligned pixels needs.

    Parameters
    ----------
    coarse : float64 ndarray of shape (2, 3)
        C, common to source frame, mip 0.
    field : float32 ndarray of shape (2, ny, nx)
        F, px at mip 0.
    spacing_px : int
        Distance of the field's nodes.
    start_yx, shape_yx : tuple of int
        First pixel and extent of the aligned box.
    margin_px : int
        Added on all sides.

    Returns
    -------
    (y0, x0, y1, x1) : tuple of int
        Half-open, not clipped to the source: it may be negative or lie wholly outside.

    Raises
    ------
    DataError
        If the field is unknown (NaN) there.
    """
    grid = check_field(field)
    # Of a bilinear map over a box, the extremes lie on the corners of the cells clipped to the box.
    lines = []
    for first, n, m in zip(start_yx, shape_yx, grid, strict=True):
        last = first + max(n, 1) - 1
        nodes = np.arange(m) * spacing_px
        lines.append(np.r_[first, nodes[(nodes > first) & (nodes < last)], last])
    corners = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 2)
    reached = map_to_source(coarse, field, spacing_px, corners.astype(np.float64))
    check_known(reached)
    y0, x0 = np.floor(reached.min(axis=0)).astype(int) - margin_px
    y1, x1 = np.ceil(reached.max(axis=0)).astype(int) + margin_px + 1
    return int(y0), int(x0), int(y1), int(x1)


def warp(
    source: Image,
    source_origin: tuple[int, int],
    coarse: Affine,
    field: Field,
    spacing_px: int,
    start_yx: tuple[int, int],
    shape_yx: tuple[int, int],
    interpolation: Interpolation,
) -> Image:
    """Resample a section into a box of the aligned volume.

    Parameters
    ----------
    source : uint8 ndarray of shape (h, w)
        Part of the section that covers `source_bounds`, as far as the section reaches; outside of
        it there is no data.
    source_origin : tuple of int
        Where its first pixel lies in the section (y, x).
    coarse, field, spacing_px, start_yx, shape_yx
        As in `source_bounds`.
    interpolation : {"nearest", "linear", "cubic", "lanczos"}

    Returns
    -------
    uint8 ndarray of shape `shape_yx`
        0 where there is no data, tissue 1..255. The same bytes for a pixel whatever box it is
        rendered in.

    Raises
    ------
    ShapeError
        If `source` is no uint8 image.
    DataError
        If the field is unknown (NaN) there, or scatters neighbouring pixels over the section.
    """
    if source.ndim != 2 or source.dtype != np.uint8:
        raise ShapeError(f"source must be uint8 (h, w); got {source.dtype} {source.shape}")
    check_field(field)
    kernel_px(interpolation)
    result = np.empty(shape_yx, np.uint8)
    for y in range(0, shape_yx[0], _BLOCK_PX):
        for x in range(0, shape_yx[1], _BLOCK_PX):
            block = result[y : y + _BLOCK_PX, x : x + _BLOCK_PX]
            start = (start_yx[0] + y, start_yx[1] + x)
            nodes, offset = nodes_in_steps(coarse, field, spacing_px, start, block.shape)
            low, high = extremes(nodes, spacing_px, offset, block.shape)
            cropped = _crop(source, source_origin, low, high, block.shape)
            pixels = None if cropped is None else Pixels.of(cropped[0], interpolation)
            if cropped is None or pixels is None:
                block[:] = 0
            else:
                grid = Grid(nodes, spacing_px, offset, cropped[1])
                resample(pixels, grid, interpolation, out=block)
    return result


def warp_affine[T: (np.uint8, np.float32)](
    image: NDArray[T],
    source_origin: tuple[int, int],
    coarse: Affine,
    start_yx: tuple[int, int],
    shape_yx: tuple[int, int],
    interpolation: Interpolation,
) -> NDArray[T]:
    """Resample an image of a section (or its features, or its mask) into the common frame.

    Parameters
    ----------
    image : uint8 or float32 ndarray of shape (h, w)
        At any mip. uint8: 0 is no data, as in `warp`. float32: all values are data; outside is 0.
    source_origin : tuple of int
        Where its first pixel lies in the section (y, x).
    coarse : float64 ndarray of shape (2, 3)
        C at the image's mip, see `fields.affine_to_mip`.
    start_yx, shape_yx : tuple of int
        Box of the common frame, px at the same mip.
    interpolation : {"nearest", "linear", "cubic", "lanczos"}

    Returns
    -------
    ndarray of shape `shape_yx`
        Of the image's dtype. The same bytes for a pixel whatever box it is computed in.
    """
    if image.ndim != 2 or image.dtype not in (np.uint8, np.float32):
        raise ShapeError(
            f"image must be uint8 or float32 (h, w); got {image.dtype} {image.shape}. "
            "Convert a mask to uint8, half floats to float32"
        )

    kernel_px(interpolation)
    result = np.zeros(shape_yx, image.dtype)
    for top in range(0, shape_yx[0], TILE_PX):
        for left in range(0, shape_yx[1], TILE_PX):
            tile = result[top : top + TILE_PX, left : left + TILE_PX]
            y = start_yx[0] + top + np.arange(tile.shape[0], dtype=np.float64)
            x = start_yx[1] + left + np.arange(tile.shape[1], dtype=np.float64)
            rows = in_steps(coarse[:, 0, None] * y + coarse[:, 2, None])
            steps = rounded(rows[..., None] + in_steps(coarse[:, 1, None] * x)[:, None])
            low, high = steps.min(axis=(1, 2)), steps.max(axis=(1, 2))
            cropped = _crop(image, source_origin, low, high, tile.shape)
            if cropped is not None:
                crop, origin = cropped
                steps -= np.array(origin, np.int32)[:, None, None] << BITS
                tile[:] = _sample(crop, steps, interpolation)
    return result


def _crop[T: (np.uint8, np.float32)](
    source: NDArray[T],
    source_origin: tuple[int, int],
    least: Steps,
    largest: Steps,
    shape_yx: tuple[int, ...],
) -> tuple[NDArray[T], tuple[int, int]] | None:
    """Cut out what positions need with its margin, 0 outside the source.

    Returns the crop, a view of the source where it lies inside, and its place in the section; None
    if no kernel reaches the source.
    """
    low, high = (least >> BITS) - MARGIN_PX, (largest >> BITS) + MARGIN_PX + 1
    size, first = np.array(source.shape), np.array(source_origin)
    low, high = low - first, high - first
    if (high <= 0).any() or (low >= size).any():
        return None
    low, high = np.maximum(low, -_BEYOND_PX), np.minimum(high, size + _BEYOND_PX)
    extent = high - low
    most = _FARTHEST_APART_PX * max(TILE_PX, *shape_yx)
    if extent.max() > most or int(extent.prod()) * source.itemsize >= _LARGEST_CROP_BYTES:
        raise DataError(
            f"{shape_yx} neighbouring px need {tuple(extent.tolist())} px of the source; the "
            "section's coarse affine or its field is wrong"
        )
    origin = (int(low[0] + first[0]), int(low[1] + first[1]))
    (y0, x0), (y1, x1) = np.maximum(low, 0), np.minimum(high, size)
    inside = source[y0:y1, x0:x1]
    if inside.shape == tuple(extent):
        # The kernel counts bytes from the first pixel in 32 bits, and pixels of a row one by one.
        row, pixel = inside.strides
        is_plain = pixel == inside.itemsize and row >= pixel * inside.shape[1]
        if not is_plain or row * inside.shape[0] >= _LARGEST_CROP_BYTES:
            inside = np.ascontiguousarray(inside)
        return inside, origin
    crop = np.zeros(extent, source.dtype)
    crop[y0 - low[0] : y1 - low[0], x0 - low[1] : x1 - low[1]] = inside
    return crop, origin


def _sample(image: NDArray[Any], steps: Steps, interpolation: Interpolation) -> NDArray[Any]:
    """Interpolate an image at positions (2, ny, nx), in steps from its first pixel."""
    if image.dtype == np.uint8:
        pixels = Pixels.of(image, interpolation)
        if pixels is None:
            return np.zeros(steps.shape[1:], np.uint8)
        return resample_at(pixels, steps, interpolation)
    # OpenCV's own kernels serve for features, and its positions have 16 bits.
    whole, part = steps >> BITS, steps & (STEPS - 1)
    if interpolation == "nearest":
        whole, part = (steps + STEPS // 2) >> BITS, np.zeros((2, 0, 0), np.int32)
    at = np.empty((*steps.shape[1:], 2), np.int16)
    for k, axis in enumerate((1, 0)):  # x, y
        np.clip(whole[axis], 0, image.shape[axis] - 1, out=at[..., k], casting="unsafe")
    shares = ((part[0] << BITS) + part[1]).astype(np.uint16)
    return np.asarray(cv2.remap(image, at, shares, _FLAGS[interpolation]))
