"""Folds and cracks: long bands that are darker, brighter or blacker than tissue can be.

Where a section lies over itself it absorbs two or three times: a fold is a dark band that hides
tissue. Where it is torn, a bright gap shows the resin, or a black one nothing at all. Both are
found by the same directional filter (`alignment.bands`) on the section at half the size, as grey
values from the local median in units of the local spread.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.bands import Band, find_bands
from alignment.config import MasksConfig
from alignment.defects import Defect
from alignment.illumination import Background, local_background

Image = NDArray[np.float32]

_GAP_GREY, _GAP_SPREAD = 0.15, 0.1
"""A dark band is a gap, not a fold, if its grey and the spread of it are below these
shares of the tissue's median: nothing is seen through it."""


_LEAST_CRACK = 0.75
"""Share of ``crack_contrast`` that a bright crack's inner part reaches: it is evenly bright."""


class Tear(NamedTuple):
    """One fold or crack."""

    kind: Defect
    """`Defect.FOLD` or `Defect.CRACK`."""
    core: NDArray[np.bool_]
    """Its pixels, of `part` of the image searched."""
    part: tuple[slice, slice]
    length_px: float
    width_px: float
    contrast: float
    """Distance of its inner part's grey from the local background, in spreads of the tissue."""
    strength: float
    """How surely it is a band, 0.4..1."""


def find_tears(
    image: Image, known: NDArray[np.bool_], black: NDArray[np.bool_], config: MasksConfig
) -> list[Tear]:
    """Find folds and cracks.

    Parameters
    ----------
    image : float32 ndarray of shape (ny, nx)
        A section, grey values; px here are twice those of ``config.mip``.
    known : bool ndarray of shape (ny, nx)
        What shows tissue or resin.
    black : bool ndarray of shape (ny, nx)
        What shows nothing: no data. A long strip of it is a crack.
    config : MasksConfig
        ``band_min_length_px``, ``band_max_width_px``, ``fold_contrast``, ``crack_contrast``.

    Returns
    -------
    list of Tear
        The dark ones first, then by length; empty if ``band_min_length_px`` is 0.
    """
    if not config.band_min_length_px or not known.any():
        return []
    background = local_background(image, known)
    dark = (background.median - image) / background.below
    bright = (image - background.median) / background.above
    evidence = np.where(dark > 0, dark / config.fold_contrast, -bright / config.crack_contrast)
    evidence[~known] = 0
    evidence[black] = 1
    tears = []
    for band in find_bands(
        evidence.clip(-1, 1).astype(np.float32),
        min_length_px=config.band_min_length_px / 2,
        max_width_px=config.band_max_width_px / 2,
    ):
        is_dark = band.sign > 0
        # Of its inner part: the rest is the band's edge, which is half tissue.
        contrast = float(np.percentile((dark if is_dark else bright)[band.part][band.core], 75))
        if not is_dark and contrast < _LEAST_CRACK * config.crack_contrast:
            continue
        is_fold = is_dark and not _is_gap(band, image, black, background)
        tears.append(
            Tear(
                Defect.FOLD if is_fold else Defect.CRACK,
                _filled(band.core),
                band.part,
                band.length_px,
                band.width_px,
                contrast,
                band.strength,
            )
        )
    return tears


def _is_gap(band: Band, image: Image, black: NDArray[np.bool_], background: Background) -> bool:
    """Say whether a dark band shows nothing at all: no data, or black without texture."""
    if black[band.part][band.core].mean() > 0.5:
        return True
    # The brighter half is the band's edge, which lies in tissue.
    low, median, high = np.percentile(image[band.part][band.core], (5, 25, 45))
    usual = float(np.median(background.median[band.part][band.core]))
    return bool(median <= _GAP_GREY * usual and high - low <= _GAP_SPREAD * usual)


def _filled(core: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Close gaps of a few px and fill the holes that texture leaves inside a band."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    padded = np.pad(core.view(np.uint8), 3, mode="edge")  # so that closing keeps the border
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[3:-3, 3:-3]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(1 - closed), connectivity=4
    )
    # What a band encloses is small beside it; the tissue on its two sides is not, and reaches the
    # border.
    small = stats[:, cv2.CC_STAT_AREA] < 0.1 * core.sum()
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        small[edge] = False
    small[0] = False
    return np.asarray((closed > 0) | small[labels])
