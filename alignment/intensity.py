"""Grey values of sections: brightness and contrast of the tissue, and how to make them alike.

Brightness is the median, contrast the distance of the percentiles 10 and 90, of the pixels where
tissue may be used: dirt, folds and resin do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_MOST_GAIN = 2.0
"""Contrast is not raised beyond this, nor lowered by more: a faint section would be all noise."""


class Grey(NamedTuple):
    """Brightness and contrast, in grey levels."""

    median: float
    spread: float


def measure_grey(image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> Grey | None:
    """Return the grey of a section's valid tissue, to 0.01; None if it has none.

    Percentiles are interpolated within the levels, taken as even: the mean of a million pixels is
    known better than to a level.
    """
    counts = np.bincount(image[valid], minlength=256)
    total = counts.sum()
    if not total:
        return None
    there = np.flatnonzero(counts)
    below = np.r_[0, np.cumsum(counts[there])] / total
    # A level v fills v - 0.5 .. v + 0.5; between levels without pixels the quantile jumps.
    shares = np.stack([below[:-1], below[1:]], axis=1).ravel()
    edges = np.stack([there - 0.5, there + 0.5], axis=1).ravel()
    low, median, high = np.interp([0.1, 0.5, 0.9], shares, edges)
    return Grey(round(float(median), 2), round(float(high - low), 2))


def common_grey(sections: Sequence[Grey]) -> Grey:
    """Return the grey that all sections shall have: the medians of theirs, in whole levels.

    Whole levels, so that one section more or less hardly ever changes all others.
    """
    median, spread = np.median(np.array(sections), axis=0)
    return Grey(float(np.rint(median)), float(np.rint(spread)))


def grey_table(own: Grey, common: Grey) -> NDArray[np.uint8]:
    """Return what each grey level becomes, (256,); no data stays 0, and tissue above it.

    >>> grey_table(Grey(100, 40), Grey(120, 80))[[0, 80, 100, 120, 255]]
    array([  0,  80, 120, 160, 255], dtype=uint8)
    """
    gain = np.clip(common.spread / max(own.spread, 1.0), 1 / _MOST_GAIN, _MOST_GAIN)
    levels = (np.arange(256) - own.median) * gain + common.median
    table = np.clip(np.rint(levels), 1, 255).astype(np.uint8)
    table[0] = 0
    return table
