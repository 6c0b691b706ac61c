"""Long, narrow bands in a section: line integrals in many directions, at octaves of width.

A band is told from a membrane, a vessel's wall or a row of mitochondria by being dark (or bright)
*without a gap* over a long way, with ordinary tissue on both sides. So the evidence of a pixel is
clipped to -1..1 before it is averaged: a few very dark pixels cannot stand for a long stretch.

The mean over a box of 65 x 3 px is taken at 32 angles. What lies beside the box, at the same angle,
is subtracted: a step of grey or the edge of a wide dark area is no band. Wider bands are found on
halved images, in boxes of 33 px. Boxes that respond are joined by hysteresis, and only what is long
stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.errors import ShapeError

Image = NDArray[np.float32]

SIGNS = (1, -1)
BOX_WIDTH_PX = 3
"""Of the boxes, px of the level; their lengths are below."""


class _Boxes(NamedTuple):
    """The boxes of one level, and the response that a band must have all along."""

    length_px: int
    angles: int
    """Between two of them a box's end moves by half its width."""
    grow: float


FINEST, COARSER = _Boxes(65, 32, 0.35), _Boxes(33, 16, 0.45)
"""At the finest level membranes and glia are as wide as narrow folds: only length tells them."""
SEED = 1.4
"""Response that a band must reach somewhere, over what it must have all along."""
GAP_PX = 4
"""Largest gap between two pieces of one ridge."""
MARGIN_PX = 128
"""Round a ridge, for its band: more than half of the widest."""
SHORTEST_PX = 80
"""However small the image."""
MIN_ELONGATION = 10.0
"""Least length over width: the lumen of a capillary has 7 to 9.6, a fold through a section 20."""
LEAST_RUN = 0.5
"""Share of a box, at some angle, that is in the band round each of its pixels."""
MAX_OPPOSITE = 0.25
"""Stronger opposite evidence on one side tells of a wall between two things, not of a band."""
SMALLEST_SIDE_PX = 48
"""A level below this has no room for a box and what is beside it."""
LEAST_SHARE = 0.8
"""Of the shorter side: a band this long is long, in an image that is hardly longer than one."""


class Band(NamedTuple):
    """One long band."""

    sign: int
    """1 for high evidence, -1 for low."""
    core: NDArray[np.bool_]
    """The pixels that lie in it, of `part` of the image: a large one has many bands."""
    part: tuple[slice, slice]
    """Rows and columns of the image that `core` stands for."""
    length_px: float
    """Longer side of the smallest rectangle round it."""
    width_px: float
    """Its area over its length."""
    strength: float
    """Mean response along its axis, over the least that it must have; 2.9 at most."""


def find_bands(evidence: Image, *, min_length_px: float, max_width_px: float) -> list[Band]:
    """Return the long bands of high, and of low, evidence.

    Parameters
    ----------
    evidence : float32 ndarray of shape (ny, nx)
        In -1..1: 1 is surely in a band, 0 ordinary tissue, -1 the opposite of a band.
    min_length_px : float
        Shorter ones are tissue. 0.8 of the image's shorter side suffices, if that is less, but
        nothing below 80 px.
    max_width_px : float
        Widest band that is looked for.

    Returns
    -------
    list of Band
        Those of high evidence first, then those of low; of each, the longest first.

    Raises
    ------
    ShapeError
        If `evidence` is no 2-D float32 array.

    Examples
    --------
    >>> evidence = np.zeros((96, 128), np.float32)
    >>> evidence[40:44] = 1
    >>> [band] = find_bands(evidence, min_length_px=100, max_width_px=8)
    >>> round(band.length_px), round(band.width_px), int(band.core.sum()) // 128
    (128, 4, 4)
    """
    if evidence.ndim != 2 or evidence.dtype != np.float32:
        raise ShapeError(
            f"evidence must be a float32 image (y, x), got {evidence.dtype} of {evidence.shape}"
        )
    axes = [np.zeros(evidence.shape, np.float32) for _ in SIGNS]
    cores = [np.zeros(evidence.shape, np.bool_) for _ in SIGNS]
    size = evidence.shape[::-1]
    for level, shrunk in _octaves(evidence, max_width_px):
        # Texture inside a fold is averaged over the width that this level stands for.
        smooth = cv2.blur(shrunk, (BOX_WIDTH_PX, BOX_WIDTH_PX))
        boxes = COARSER if level else FINEST
        responses = _responses(shrunk, boxes)
        for sign, response, axis, core in zip(SIGNS, responses, axes, cores, strict=True):
            response /= boxes.grow
            if response.max() < 1:
                continue
            near = cv2.dilate((response >= 1).view(np.uint8), _disk(2))
            here = ((sign * smooth >= 0.5) & (near > 0)).astype(np.float32)
            core |= (cv2.resize(here, size) if level else here) >= 0.5
            nearest = cv2.INTER_NEAREST
            np.maximum(axis, cv2.resize(response, size, interpolation=nearest), out=axis)
    finest = cv2.blur(evidence, (BOX_WIDTH_PX, BOX_WIDTH_PX))
    return [
        band
        for sign, axis, core in zip(SIGNS, axes, cores, strict=True)
        for band in _long_ones(sign, axis, core, sign * finest >= 0.5, min_length_px)
    ]


def _octaves(evidence: Image, max_width_px: float) -> Iterator[tuple[int, Image]]:
    """Yield (level, evidence halved that often), finest first, as wide as bands may be."""
    for level in range(math.ceil(math.log2(max(max_width_px / BOX_WIDTH_PX, 1.0))) + 1):
        if min(evidence.shape) >> level < SMALLEST_SIDE_PX:
            return
        size = tuple(n >> level for n in evidence.shape[::-1])
        shrunk = cv2.resize(evidence, size, interpolation=cv2.INTER_AREA) if level else evidence
        yield level, np.asarray(shrunk, np.float32)


def _responses(evidence: Image, boxes: _Boxes) -> tuple[Image, Image]:
    """Return how much more evidence a box has than both its neighbours, at the best angle.

    The second result is the same for the opposite evidence.
    """
    straight = _best_of_half(evidence, boxes)
    turned = _best_of_half(np.ascontiguousarray(evidence.T), boxes)
    both = (np.maximum(s, t.T) for s, t in zip(straight, turned, strict=True))
    positive, negative = both
    return positive, negative


def _best_of_half(evidence: Image, boxes: _Boxes) -> tuple[Image, Image]:
    """Return `_responses` of boxes within 45 degrees of the rows."""
    positive, negative = (np.full(evidence.shape, -1.0, np.float32) for _ in range(2))
    # Written into again and again: fresh arrays would take longer than the arithmetic.
    high, low, value, spare = (np.empty_like(evidence) for _ in range(4))
    ny, nx = evidence.shape
    reach = 2 * BOX_WIDTH_PX  # two widths away across the angle, so that a margin is between
    for slope in _slopes(boxes.angles):
        means = _box_means(evidence, slope, boxes.length_px)
        # Repeated beyond the border, a band along it looks like its own neighbour: it has no side.
        wide = cv2.copyMakeBorder(means, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
        cosine = 1 / math.hypot(1, slope)
        dy, dx = round(reach * cosine), round(reach * slope * cosine)
        one, other = (
            wide[reach + y : reach + y + ny, reach + x : reach + x + nx]
            for y, x in ((-dy, dx), (dy, -dx))
        )
        np.maximum(one, other, out=high)
        np.minimum(one, other, out=low)
        np.negative(low, out=low)
        for best, like, unlike in ((positive, high, low), (negative, low, high)):
            np.maximum(like, 0, out=value)
            np.subtract(means, value, out=value)
            np.subtract(unlike, MAX_OPPOSITE, out=spare)
            np.maximum(spare, 0, out=spare)
            np.subtract(value, spare, out=value)
            np.maximum(best, value, out=best)
            np.negative(means, out=means)
    return positive, negative


def _box_means(image: Image, slope: float, length_px: int) -> Image:
    """Return the means over boxes whose long side follows y = slope * x, \\|slope\\| <= 1.

    The image is sheared so that the boxes lie along its rows, where a running sum costs the same
    for any length. Beyond the border they see what is at it.
    """
    ny, nx = image.shape
    middle = (nx - 1) / 2
    pad = math.ceil(abs(slope) * middle) + 1
    to_source = np.array([[1, 0, 0], [slope, 1, -slope * middle - pad]])
    back = np.array([[1, 0, 0], [-slope, 1, slope * middle + pad]])
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    edge = cv2.BORDER_REPLICATE
    sheared = cv2.warpAffine(image, to_source, (nx, ny + 2 * pad), flags=flags, borderMode=edge)
    cosine = 1 / math.hypot(1, slope)
    box = (_odd(length_px * cosine), _odd(BOX_WIDTH_PX / cosine))
    means = cv2.blur(sheared, box, borderType=edge)
    return np.asarray(cv2.warpAffine(means, back, (nx, ny), flags=flags), np.float32)


def _odd(length: float) -> int:
    return 2 * round((length - 1) / 2) + 1


def _long_ones(
    sign: int, axis: Image, core: NDArray[np.bool_], dark: NDArray[np.bool_], min_length_px: float
) -> list[Band]:
    """Join what responds into bands; drop the short, the broad and the weak.

    `dark` is where the evidence itself is high; the cores of bands grow a little into it.
    """
    in_small = max(LEAST_SHARE * min(axis.shape), SHORTEST_PX)
    least = min(min_length_px, in_small)
    ridge = _closed(axis >= 1)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(ridge.view(np.uint8))
    reach = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    reach[0] = 0  # the background's label
    if reach.max() < least:
        return []
    # Each pixel of the core belongs to the ridge that is nearest.
    _, nearest = cv2.distanceTransformWithLabels(
        (~ridge).view(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_CCOMP
    )
    bands: list[Band] = []
    for label in np.argsort(-reach, kind="stable"):
        if reach[label] < least:
            break
        part = _around(stats[label], axis.shape)
        here = labels[part] == label
        values = axis[part][here]
        length = _extent(here)
        if length < least or values.max() < SEED:
            continue
        own = core[part] & (nearest[part] == nearest[part][here][0])
        own = _without_twigs(own, own.sum() / length)
        own |= _dilated(own, max(2, round(own.sum() / length / 6))) & dark[part]
        # The ridge is longer: a box that is half in the band responds, too.
        length = _extent(own)
        width = float(own.sum() / length)
        if length >= max(least, MIN_ELONGATION * width):
            bands.append(Band(sign, own, part, length, width, float(values.mean())))
    return bands


def _around(stats: NDArray[np.int32], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the box of a ridge with the room that the band round it takes."""
    x, y, w, h = (int(n) for n in stats[:4])
    return (
        slice(max(y - MARGIN_PX, 0), min(y + h + MARGIN_PX, shape[0])),
        slice(max(x - MARGIN_PX, 0), min(x + w + MARGIN_PX, shape[1])),
    )


def _closed(ridge: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Join the pieces of a ridge that a cell beside the band interrupts."""
    kernel = _disk(GAP_PX // 2)
    return np.asarray(cv2.morphologyEx(ridge.view(np.uint8), cv2.MORPH_CLOSE, kernel) > 0)


def _extent(area: NDArray[np.bool_]) -> float:
    """Return the longer side of the smallest rectangle round an area."""
    points = np.argwhere(area)[:, ::-1].astype(np.float32)
    return float(max(cv2.minAreaRect(points)[1]) + 1) if points.size else 1.0


def _without_twigs(core: NDArray[np.bool_], width_px: float) -> NDArray[np.bool_]:
    """Cut off what is joined to a band but does not run on: membranes, mitochondria beside it."""
    pad = max(COARSER.length_px // 2, round(width_px / 8))
    padded = np.pad(core.view(np.uint8), pad, mode="edge")  # so that the band runs on at the border
    if width_px >= 8:
        disk = _disk(round(width_px / 8))
        padded = np.asarray(cv2.morphologyEx(padded, cv2.MORPH_OPEN, disk), np.uint8)
    straight, turned = padded.astype(np.float32), np.ascontiguousarray(padded.T, np.float32)
    runs = np.zeros(padded.shape, np.bool_)
    for slope in _slopes(COARSER.angles):
        runs |= _box_means(straight, slope, COARSER.length_px) >= LEAST_RUN
        runs |= _box_means(turned, slope, COARSER.length_px).T >= LEAST_RUN
    return ((padded > 0) & runs)[pad:-pad, pad:-pad]


def _slopes(angles: int) -> list[float]:
    """Return the slopes of the boxes' long sides within 45 degrees of the rows."""
    return [math.tan(math.pi * (i + 0.5) / angles - math.pi / 4) for i in range(angles // 2)]


def _dilated(area: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    return np.asarray(cv2.dilate(area.view(np.uint8), _disk(radius)) > 0)


def _disk(radius: int) -> NDArray[np.uint8]:
    side = 2 * radius + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)
