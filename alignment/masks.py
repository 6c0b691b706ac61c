"""Valid pixels: which parts of a section show tissue that may be matched, and why others do not.

``valid`` is True where tissue may be used. The reason for every other pixel is kept beside it as a
set of `Defect` flags, so that a report can tell a hole from the edge of the section.
"""

from __future__ import annotations

from enum import IntFlag

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.config import MasksConfig
from alignment.errors import ShapeError

_SOLID_WINDOW_PX = 5
"""Side of the windows in which black or white must prevail: twice a membrane's width."""
_FLAT_WINDOW_PX = 31
"""Side of the windows whose contrast is judged: wider than a cell body's smooth inside."""
_FLAT_SMOOTHING_PX = 1.5
"""Sigma of the blur that keeps the camera's noise from passing for contrast."""


class Defect(IntFlag):
    """Why a pixel may not be used; a pixel can have several reasons."""

    NO_DATA = 1
    """Nothing was recorded: holes, black blobs, missing tiles, blacked-out cracks."""
    SATURATED = 2
    """Over-exposed, or a hole in the section that the beam shines through."""
    FLAT = 4
    """No contrast: blank resin, an empty frame."""
    OUTSIDE = 8
    """No data that reaches the border of the image: beyond the section, padding."""


def estimate_valid(
    image: NDArray[np.uint8], config: MasksConfig
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Find the pixels of a section that show tissue.

    Black or white pixels alone, and lines of them, are membranes and noise. Only solid areas count,
    where most of each 5 x 5 px is black (or white), that connect to at least
    ``config.min_object_px``; islands of tissue smaller than that inside such an area are dropped
    with it. Contrast is judged in windows of 31 px after a light
    blur: where the grey values of a whole window deviate from their mean by less than
    ``config.flat_std``, every pixel of the window is flat. Black and white ones do not count in it.

    Parameters
    ----------
    image : uint8 ndarray of shape (ny, nx)
        A whole section at ``config.mip``. A part of a section gives the same answer except for
        what touches its border.
    config : MasksConfig
        Thresholds, grey values and px at ``config.mip``.

    Returns
    -------
    valid : bool ndarray of shape (ny, nx)
        True where tissue may be used; exactly where `reasons` is 0.
    reasons : uint8 ndarray of shape (ny, nx)
        `Defect` flags, grown by ``config.grow_px``; 0 where valid.

    Raises
    ------
    ShapeError
        If `image` is not a 2-D uint8 array.

    Examples
    --------
    >>> image = np.random.default_rng(0).integers(40, 200, (64, 64), dtype=np.uint8)
    >>> image[:, :20] = 0
    >>> valid, reasons = estimate_valid(image, MasksConfig(grow_px=2))
    >>> int(valid.sum()) == 64 * 42, Defect(int(reasons[0, 0]))
    (True, <Defect.OUTSIDE: 8>)
    """
    if image.ndim != 2 or image.dtype != np.uint8:
        raise ShapeError(
            f"a section must be a uint8 image (y, x), got {image.dtype} of shape {image.shape}; "
            "pass one section at a time, scaled to 0..255"
        )
    reasons = np.zeros(image.shape, np.uint8)
    if image.size == 0:
        return np.zeros(image.shape, np.bool_), reasons
    dark, bright = image <= config.saturated_low, image >= config.saturated_high
    no_data, outside = _split_by_border(_areas(dark, config.min_object_px))
    found = {
        Defect.NO_DATA: no_data,
        Defect.OUTSIDE: outside,
        Defect.SATURATED: _areas(bright, config.min_object_px),
        Defect.FLAT: _areas(_flat(image, ~(dark | bright), config.flat_std), config.min_object_px),
    }
    for reason, area in found.items():
        if area.any():
            reasons[_grown(area, config.grow_px)] |= np.uint8(reason)
    return reasons == 0, reasons


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


def _flat(image: NDArray[np.uint8], known: NDArray[np.bool_], limit: float) -> NDArray[np.bool_]:
    """Return the union of all windows of known pixels whose standard deviation is below `limit`."""
    if limit <= 0 or min(image.shape) < _FLAT_WINDOW_PX:
        return np.zeros(image.shape, np.bool_)
    weight = known.astype(np.float32)
    # Centred, so that float32 sums of squares keep their digits; zero where unknown.
    centre = float(image[known].mean()) if known.any() else 0.0
    grey = (image.astype(np.float32) - np.float32(centre)) * weight
    blurred = cv2.GaussianBlur(grey, (0, 0), _FLAT_SMOOTHING_PX, borderType=cv2.BORDER_REFLECT)
    share = cv2.GaussianBlur(weight, (0, 0), _FLAT_SMOOTHING_PX, borderType=cv2.BORDER_REFLECT)
    blurred = np.where(known, blurred / np.maximum(share, np.float32(1e-3)), np.float32(0))
    window = (_FLAT_WINDOW_PX, _FLAT_WINDOW_PX)
    border = cv2.BORDER_REFLECT
    count = cv2.boxFilter(weight, -1, window, borderType=border)
    mean = cv2.boxFilter(blurred, -1, window, borderType=border) / np.maximum(count, 1e-3)
    square = cv2.sqrBoxFilter(blurred, cv2.CV_32F, window, borderType=border)
    variance = square / np.maximum(count, 1e-3) - mean * mean
    # A window that is mostly unknown says nothing about the little that is known.
    centres = (variance < limit * limit) & (count >= 0.5)
    box = np.ones(window, np.uint8)
    return np.asarray(cv2.dilate(centres.view(np.uint8), box) > 0) & known


def _grown(mask: NDArray[np.bool_], radius_px: int) -> NDArray[np.bool_]:
    """Return `mask` with every pixel that is at most `radius_px` away from it."""
    if radius_px == 0:
        return mask
    distance = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= radius_px)
