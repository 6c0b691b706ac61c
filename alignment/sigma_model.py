"""From the solver's standard errors to errors as they are: a curve fitted on known warps.

What the solver knows of its own error (`alignment.uncertainty`) ranks places well, and is too
small: it counts the errors of overlapping templates as independent, and cannot know how far changed
tissue, which agrees with itself, leads everything astray. How much is missing depends on the figure
itself: a factor of three where sections fit to a few hundredths of a pixel, of two where they do
not fit well. A power law is all that this takes. ``python -m tests.accuracy.sigma_table --fit``
fits it on two tissues, and the table of docs/relaxation-accuracy.md judges it on two others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FACTOR = 2.16
"""The error, px, where the solver states 1 px."""
EXPONENT = 0.88


def calibrated(sigma: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the standard error of each node's place that the solver's own stands for.

    Parameters
    ----------
    sigma : float32 ndarray of any shape
        As `relax_stack` gives it, px per component; NaN stays.

    Returns
    -------
    float32 ndarray of that shape
        px per component: on known warps two thirds of the errors are smaller, and 95 % are smaller
        than twice as much.

    Examples
    --------
    >>> calibrated(np.array([0.05, 1], np.float32)).round(2)
    array([0.15, 2.16], dtype=float32)
    """
    return np.asarray(FACTOR * sigma**EXPONENT, np.float32)
