"""Valid pixels: which parts of a section show tissue that may be matched, and why others do not.

``valid`` is True where tissue may be used. The reason for every other pixel is kept beside it as a
set of `Defect` flags, so that a report can tell a hole from the edge of the section. Nothing is
removed without a reason that has a name.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.config import MasksConfig
from alignment.defects import Defect, area_fractions
from alignment.errors import ShapeError
from alignment.folds import Tear, find_tears
from alignment.illumination import clipped_areas, dark_areas, shading
from alignment.seams import Seam, draw_seams, find_seams

__all__ = ["Defect", "Examination", "estimate_valid", "examine_section", "is_missing"]

_SOLID_WINDOW_PX = 5
"""Side of the windows in which black or white must prevail: twice a membrane's width."""
_WINDOW_PX = 31
"""Side of the windows whose contrast is judged: wider than a cell body's smooth inside."""
_FLAT_SMOOTHING_PX = 1.5
"""Sigma of the blur that keeps the camera's noise from passing for contrast."""
_SMALL_RADIUS_PX = 8
_SMALLEST_SIDE_PX = 96
"""A section below this is too small for bands and seams."""


class Examination(NamedTuple):
    """What was found in one section."""

    valid: NDArray[np.bool_]
    """(ny, nx): True where tissue may be used; exactly where `reasons` is 0."""
    reasons: NDArray[np.uint8]
    """(ny, nx): `Defect` flags, grown by ``grow_px``."""
    areas: dict[str, float]
    """Share of the section of each `Defect`, by name."""
    tears: list[Tear]
    """Folds and cracks; their px are twice those of the section."""
    seams: list[Seam]
    """Seams; their px are twice those of the section."""
    shading: float
    """Range of the smooth background over its median."""


def estimate_valid(
    image: NDArray[np.uint8], config: MasksConfig
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Find the pixels of a section that show tissue: `valid` and `reasons` of `examine_section`.

    Examples
    --------
    >>> image = np.random.default_rng(0).integers(40, 200, (64, 64), dtype=np.uint8)
    >>> image[:, :20] = 0
    >>> valid, reasons = estimate_valid(image, MasksConfig(grow_px=2))
    >>> int(valid.sum()) == 64 * 42, Defect(int(reasons[0, 0]))
    (True, <Defect.OUTSIDE: 8>)
    """
    found = examine_section(image, config)
    return found.valid, found.reasons


def examine_section(image: NDArray[np.uint8], config: MasksConfig) -> Examination:
    """Find what of a section shows tissue, and what is wrong with the rest.

    Black or white pixels alone, and lines of them, are membranes and noise. Only solid areas count,
    where most of each 5 x 5 px is black (or white), that connect to at least
    ``config.min_object_px``; islands of tissue smaller than that inside such an area are dropped
    with it. Contrast and exposure are judged in windows of 31 px. Where, after a light blur, the
    grey values of a whole window deviate from their mean by less than ``config.flat_std``, every
    pixel of the window is flat; black and white ones do not count in it. Folds, cracks and seams
    are looked for at half the size.

    Parameters
    ----------
    image : uint8 ndarray of shape (ny, nx)
        A whole section at ``config.mip``. A part of a section gives the same answer except for
        what touches its border, and for folds, cracks and seams, whose length it cuts.
    config : MasksConfig
        Thresholds, grey values and px at ``config.mip``.

    Returns
    -------
    Examination

    Raises
    ------
    ShapeError
        If `image` is not a 2-D uint8 array.
    """
    if image.ndim != 2 or image.dtype != np.uint8:
        raise ShapeError(
            f"a section must be a uint8 image (y, x), got {image.dtype} of shape {image.shape}; "
            "pass one section at a time, scaled to 0..255"
        )
    reasons = np.zeros(image.shape, np.uint8)
    if image.size == 0:
        return Examination(
            np.zeros(image.shape, np.bool_), reasons, area_fractions(reasons), [], [], 0.0
        )
    dark, bright = image <= config.saturated_low, image >= config.saturated_high
    black = _areas(dark, config.min_object_px)
    no_data, outside = _split_by_border(black)
    white = _areas(bright, config.min_object_px)
    known = ~(dark | bright)
    mean, deviation, count = _windows(image, known)
    flat = _flat(deviation, count, known, config.flat_std)
    clipped = (
        clipped_areas(end, ~(black | white), config.clipped_share, _WINDOW_PX)
        for end in (dark, bright)
    )
    under, over = (_areas(area, config.min_object_px) for area in clipped)
    gloom = dark_areas(mean, deviation, known, known & ~flat, config.underexposed_fraction)
    found = {
        Defect.NO_DATA: no_data,
        Defect.OUTSIDE: outside,
        Defect.SATURATED: white | over,
        Defect.FLAT: _areas(flat, config.min_object_px),
        Defect.UNDEREXPOSED: under | _areas(gloom, config.min_object_px),
    }
    tears, seams, uneven = _examine_halved(image, black, white, found, config)
    for reason, area in found.items():
        if area.any():
            reasons[_grown(area, config.grow_px)] |= np.uint8(reason)
    return Examination(reasons == 0, reasons, area_fractions(reasons), tears, seams, uneven)


def _examine_halved(
    image: NDArray[np.uint8],
    black: NDArray[np.bool_],
    white: NDArray[np.bool_],
    found: dict[Defect, NDArray[np.bool_]],
    config: MasksConfig,
) -> tuple[list[Tear], list[Seam], float]:
    """Add folds, cracks and seams to `found`; return them, and the shading."""
    if min(image.shape) < _SMALLEST_SIDE_PX:
        return [], [], 0.0
    size = tuple(n // 2 for n in image.shape[::-1])
    half = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    share = {
        name: cv2.resize(area.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        for name, area in (("black", black), ("white", white))
    }
    void = share["black"] > 0.5
    known = (share["black"] < 0.01) & (share["white"] < 0.01)
    tears = find_tears(half, known, void, config)
    torn = np.zeros(half.shape, np.bool_)
    for kind in (Defect.FOLD, Defect.CRACK):
        area = np.zeros(half.shape, np.bool_)
        for tear in tears:
            if tear.kind is kind:
                area[tear.part] |= tear.core
        if area.any():
            full = cv2.resize(area.astype(np.float32), image.shape[::-1])
            found[kind] = np.asarray(full >= 0.5)
            torn |= area
    # A border of 2 px: the edges of holes and folds are blurred over that much.
    clean = cv2.erode((known & ~torn).view(np.uint8), np.ones((5, 5), np.uint8)) > 0
    seams = find_seams(half, clean, config)
    if seams:
        found[Defect.SEAM] = draw_seams(seams, image.shape, scale=2, width_px=config.seam_width_px)
    return tears, seams, shading(half, clean)


def is_missing(
    valid: NDArray[np.bool_],
    config: MasksConfig,
    reasons: NDArray[np.uint8] | None = None,
) -> bool:
    """Say whether a section has too little valid tissue to be aligned by itself.

    Parameters
    ----------
    valid : bool ndarray of shape (ny, nx)
        As `estimate_valid` returns it.
    config : MasksConfig
        ``min_valid_fraction`` is the share that must be valid.
    reasons : uint8 ndarray of shape (ny, nx), optional
        If given, the share is of what lies not `Defect.OUTSIDE`: a small section in a wide frame is
        not a missing one. It must then fill ``min_valid_fraction ** 2`` of the frame, for a lone
        shred cannot place a section.

    Returns
    -------
    bool
        True: treat the section as missing and bridge it.
    """
    usable = int(np.count_nonzero(valid))
    least = config.min_valid_fraction
    if reasons is None:
        return usable == 0 or usable < least * valid.size
    shown = valid.size - int(np.count_nonzero(reasons & np.uint8(Defect.OUTSIDE)))
    return usable == 0 or usable < least * shown or usable < least**2 * valid.size


def _areas(mask: NDArray[np.bool_], min_px: int) -> NDArray[np.bool_]:
    """Keep solid, connected areas of at least `min_px` and fill smaller holes in them."""
    if not mask.any():
        return mask
    window = (_SOLID_WINDOW_PX, _SOLID_WINDOW_PX)
    share = cv2.boxFilter(mask.view(np.uint8), cv2.CV_32F, window, borderType=cv2.BORDER_REPLICATE)
    solid = share > 0.5
    # The vote cuts corners; they are part of the area as well.
    near = np.asarray(cv2.dilate(solid.view(np.uint8), np.ones(window, np.uint8)) > 0)
    solid = solid | (mask & near)
    kept = _large(solid, min_px, connectivity=8)
    return ~_large(~kept, min_px, connectivity=4) if kept.any() else kept


def _large(mask: NDArray[np.bool_], min_px: int, *, connectivity: int) -> NDArray[np.bool_]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=connectivity
    )
    keep = stats[:, cv2.CC_STAT_AREA] >= min_px
    keep[0] = False  # the background's label
    return np.asarray(keep[labels], np.bool_)


def _split_by_border(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Part areas into those inside the image and those that touch its border."""
    count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    touches = np.zeros(count, np.bool_)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        touches[edge] = True
    touches[0] = False
    outside = np.asarray(touches[labels], np.bool_)
    return mask & ~outside, outside


def _windows(
    image: NDArray[np.uint8], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return mean, standard deviation and known share of the window round each pixel.

    The image is lightly blurred first; only known pixels count.
    """
    weight = known.astype(np.float32)
    # Centred, so that float32 sums of squares keep their digits; zero where unknown.
    centre = float(image[known].mean()) if known.any() else 0.0
    grey = (image.astype(np.float32) - np.float32(centre)) * weight
    blurred = cv2.GaussianBlur(grey, (0, 0), _FLAT_SMOOTHING_PX, borderType=cv2.BORDER_REFLECT)
    share = cv2.GaussianBlur(weight, (0, 0), _FLAT_SMOOTHING_PX, borderType=cv2.BORDER_REFLECT)
    blurred = np.where(known, blurred / np.maximum(share, np.float32(1e-3)), np.float32(0))
    window = (_WINDOW_PX, _WINDOW_PX)
    border = cv2.BORDER_REFLECT
    count = cv2.boxFilter(weight, -1, window, borderType=border)
    known_share = np.maximum(count, np.float32(1e-3))
    mean = cv2.boxFilter(blurred, -1, window, borderType=border) / known_share
    square = cv2.sqrBoxFilter(blurred, cv2.CV_32F, window, borderType=border)
    deviation = np.sqrt(np.maximum(square / known_share - mean * mean, np.float32(0)))
    average = np.asarray(mean + np.float32(centre), np.float32)
    return average, np.asarray(deviation, np.float32), np.asarray(count, np.float32)


def _flat(
    deviation: NDArray[np.float32],
    count: NDArray[np.float32],
    known: NDArray[np.bool_],
    limit: float,
) -> NDArray[np.bool_]:
    """Return the union of all windows of known pixels whose standard deviation is below `limit`."""
    if limit <= 0 or min(known.shape) < _WINDOW_PX:
        return np.zeros(known.shape, np.bool_)
    # A window that is mostly unknown says nothing about the little that is known.
    centres = (deviation < limit) & (count >= 0.5)
    box = np.ones((_WINDOW_PX, _WINDOW_PX), np.uint8)
    return np.asarray(cv2.dilate(centres.view(np.uint8), box) > 0) & known


def _grown(mask: NDArray[np.bool_], radius_px: int) -> NDArray[np.bool_]:
    """Return `mask` with every pixel that is at most `radius_px` away from it."""
    if radius_px == 0:
        return mask
    if radius_px <= _SMALL_RADIUS_PX:
        # Exact for an integer radius, and several times faster than distances of all pixels.
        y, x = np.mgrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
        disk = (y * y + x * x <= radius_px * radius_px).astype(np.uint8)
        return np.asarray(cv2.dilate(mask.view(np.uint8), disk) > 0)
    distance = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= radius_px)
