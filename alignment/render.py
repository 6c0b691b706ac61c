"""Rendering: resample a section's source image into the aligned frame, or the common one.

``aligned[a] = source[C(a + F(a))]``, with C the coarse affine and F the published field. C after a
bilinear field is bilinear again, so source positions are computed in float64 at the nodes and
interpolated. They are then rounded to 1/32 px, the step of OpenCV's interpolation tables, on a grid
that belongs to the source: which box is rendered, from which crop, leaves no trace in a pixel. Of
OpenCV's kernels cubic (a = -0.75) moves a ramp by up to 0.05 px, Lanczos by 0.015 px, linear not at
all.

No data is 0, in source and result alike, and the two are kept apart from black tissue:

- Zeros are no data where they fill a square of 4 x 4 px or more; smaller specks are tissue that was
  too dark for the detector, and are shown as 1. So is any tissue that interpolation makes 0.
- A pixel whose interpolation kernel lies on tissue only is interpolated as asked. Where the kernel
  touches no data, the pixel is the mean of the known ones among its 4 neighbours, with their linear
  weights, if these reach a half, else no data. So borders neither darken nor ring.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.bilinear import cells, upsample
from alignment.errors import ConfigError, DataError, ShapeError
from alignment.fields import Affine, Field, apply_affine, check_field, map_to_source

Interpolation = Literal["nearest", "linear", "cubic", "lanczos"]
Image = NDArray[np.uint8]
Steps = NDArray[np.int32]

MARGIN_PX = 8
"""Source px around the sampled positions on which a result depends: 4 of the widest kernel, 3 to
tell no data from a speck, 1 for rounding."""

_BITS = 5  # of a position below the px
_STEPS_PER_PX = 2**_BITS
_SPECK_PX = 4
_TILE_PX = 256  # a tile's positions and source stay in cache, and within OpenCV's 16-bit positions
_FARTHEST_PX = 2**24
_LARGEST_CROP_PX = 2**15 - 1
_FLAGS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}
_REACH = {"linear": (0, 1), "cubic": (1, 2), "lanczos": (3, 4)}  # px before and after the position


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
    _check_known(reached)
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

    def positions(start: tuple[int, int], shape: tuple[int, int]) -> Steps:
        values, first, offset = cells(field, spacing_px, start, shape)
        _, my, mx = values.shape
        at = np.indices((my, mx), np.float64) + np.array(first, np.float64)[:, None, None]
        points = (at * spacing_px + values).reshape(2, -1).T
        corners = _in_steps(apply_affine(coarse, points).T.reshape(2, my, mx))
        return _rounded(upsample(corners, spacing_px, offset, shape))

    return _render(source, source_origin, positions, start_yx, shape_yx, interpolation)


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

    def positions(start: tuple[int, int], shape: tuple[int, int]) -> Steps:
        y, x = (
            first + np.arange(n, dtype=np.float64) for first, n in zip(start, shape, strict=True)
        )
        rows = coarse[:, 0, None] * y + coarse[:, 2, None]
        return _rounded(_in_steps(rows)[..., None] + _in_steps(coarse[:, 1, None] * x)[:, None])

    return _render(image, source_origin, positions, start_yx, shape_yx, interpolation)


def _render[T: (np.uint8, np.float32)](
    source: NDArray[T],
    origin: tuple[int, int],
    positions: Callable[[tuple[int, int], tuple[int, int]], Steps],
    start_yx: tuple[int, int],
    shape_yx: tuple[int, int],
    interpolation: Interpolation,
) -> NDArray[T]:
    """Fill a box tile by tile; `positions` says where in the section a tile's pixels lie."""
    if interpolation not in _FLAGS:
        raise ConfigError(
            f"render.interpolation must be one of {', '.join(_FLAGS)}; got {interpolation!r}"
        )
    result = np.zeros(shape_yx, source.dtype)
    for y in range(0, shape_yx[0], _TILE_PX):
        for x in range(0, shape_yx[1], _TILE_PX):
            tile = result[y : y + _TILE_PX, x : x + _TILE_PX]
            steps = positions((start_yx[0] + y, start_yx[1] + x), (tile.shape[0], tile.shape[1]))
            steps -= np.array(origin, np.int32)[:, None, None] << _BITS
            crop, steps = _crop(source, steps)
            if crop.any():
                tile[:] = _sample(crop, steps, interpolation)
    return result


def _in_steps(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Express positions in steps of 1/32 px; far ones stop at the farthest."""
    _check_known(positions)
    limit = _FARTHEST_PX * _STEPS_PER_PX
    return np.clip(positions * _STEPS_PER_PX, -limit, limit)


def _rounded(steps: NDArray[np.float64]) -> Steps:
    return np.rint(steps, out=steps).astype(np.int32)


def _check_known(positions: NDArray[np.float64]) -> None:
    if not np.isfinite(positions).all():
        raise DataError(
            "the field or the coarse affine is not finite here; only relaxed fields can be rendered"
        )


def _crop[T: (np.uint8, np.float32)](source: NDArray[T], steps: Steps) -> tuple[NDArray[T], Steps]:
    """Cut out what positions need with its margin, 0 outside the source; and shift them to it."""
    size = np.array(source.shape)[:, None, None]
    # Beyond this no kernel reaches the source.
    beyond = 2 * MARGIN_PX
    low, high = steps.min(axis=(1, 2)) >> _BITS, steps.max(axis=(1, 2)) >> _BITS
    if low.min() < -beyond or (high - source.shape).max() >= beyond:
        steps = np.clip(steps, -beyond << _BITS, (size + beyond) << _BITS)
        low, high = steps.min(axis=(1, 2)) >> _BITS, steps.max(axis=(1, 2)) >> _BITS
    low, high = low - MARGIN_PX, high + MARGIN_PX + 1
    if (high - low).max() > _LARGEST_CROP_PX:
        raise DataError(
            f"{steps.shape[1:]} neighbouring px need {tuple(high - low)} px of the source; the "
            "section's coarse affine or its field is wrong"
        )
    (y0, x0), (y1, x1) = np.clip(low, 0, source.shape), np.clip(high, 0, source.shape)
    crop = np.zeros(high - low, source.dtype)
    crop[y0 - low[0] : y1 - low[0], x0 - low[1] : x1 - low[1]] = source[y0:y1, x0:x1]
    return crop, steps - (low.astype(np.int32) << _BITS)[:, None, None]


def _sample(image: NDArray[Any], steps: Steps, interpolation: Interpolation) -> NDArray[Any]:
    """Interpolate an image (h, w) at positions (2, ny, nx), whose kernels all lie in it."""
    if interpolation == "nearest":
        steps = steps + _STEPS_PER_PX // 2
    at = np.empty((*steps.shape[1:], 2), np.int16)
    at[..., 0], at[..., 1] = steps[1] >> _BITS, steps[0] >> _BITS  # OpenCV's order: x, y
    part = steps & (_STEPS_PER_PX - 1)
    shares = ((part[0] << _BITS) + part[1]).astype(np.uint16)
    if image.dtype != np.uint8:
        return _remap(image, at, shares, interpolation)
    if image.all():
        return np.maximum(_remap(image, at, shares, interpolation), 1)
    known = _known(image)
    tissue = np.maximum(image, known)
    pixels = _remap(tissue, at, shares, interpolation)
    if interpolation == "nearest":
        return pixels
    pixels = np.maximum(pixels, 1)
    safe = _remap(_least(known, *_REACH[interpolation]), at, shares, "nearest")
    some = _remap(_most(known, 0, 1), at, shares, "nearest")
    pixels[some == 0] = 0
    rim = some > safe
    pixels[rim] = _mean_of_known(tissue, known, steps[:, rim] >> _BITS, part[:, rim])
    return pixels


def _remap(
    image: NDArray[Any],
    at: NDArray[np.int16],
    shares: NDArray[np.uint16],
    interpolation: Interpolation,
) -> NDArray[Any]:
    # Nearest neighbours take the whole px of the positions; the shares must then be empty.
    table = np.empty((0, 0), np.uint16) if interpolation == "nearest" else shares
    return cv2.remap(image, at, table, _FLAGS[interpolation])


def _known(image: Image) -> Image:
    """Return 1 where there is data: all but squares of zeros, which may overlap."""
    zero = (image == 0).astype(np.uint8)
    return 1 - _most(_least(zero, 0, _SPECK_PX - 1), _SPECK_PX - 1, 0)


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


def _mean_of_known(tissue: Image, known: Image, whole: Steps, part: Steps) -> Image:
    """Linear interpolation (n,) between known pixels only; 0 where these have less than half."""
    total, weight = np.zeros(whole.shape[1], np.int64), np.zeros(whole.shape[1], np.int64)
    for dy in (0, 1):
        for dx in (0, 1):
            y, x = whole[0] + dy, whole[1] + dx
            share = np.abs(_STEPS_PER_PX * (1 - dy) - part[0]).astype(np.int64)
            share *= np.abs(_STEPS_PER_PX * (1 - dx) - part[1]) * known[y, x]
            total += share * tissue[y, x]
            weight += share
    mean = (2 * total + weight) // np.maximum(2 * weight, 1)
    return np.where(2 * weight >= _STEPS_PER_PX**2, mean, 0).astype(np.uint8)
