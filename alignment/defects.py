"""The reasons for which pixels of a section may not be used: one bit each, stored as uint8."""

from __future__ import annotations

from enum import IntFlag

import numpy as np
from numpy.typing import NDArray


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
    FOLD = 16
    """A long, dark band: the section lies over itself and absorbs two or three times."""
    CRACK = 32
    """A long, bright or black gap between tissue on both sides."""
    SEAM = 64
    """A straight step of grey or contrast along an axis: where two tiles meet."""
    UNDEREXPOSED = 128
    """Dark without contrast, or with most pixels at the lower end of the scale."""


def area_fractions(reasons: NDArray[np.uint8]) -> dict[str, float]:
    """Return the share of all pixels that each `Defect` takes, by name, largest flags last.

    >>> shares = area_fractions(np.array([[0, 1, 17, 16]], np.uint8))
    >>> shares["NO_DATA"], shares["FOLD"], shares["SEAM"]
    (0.5, 0.5, 0.0)
    """
    counts = np.bincount(reasons.ravel(), minlength=256)
    values = np.arange(256)
    size = max(reasons.size, 1)
    return {
        defect.name or "": float(counts[(values & defect) > 0].sum() / size) for defect in Defect
    }
