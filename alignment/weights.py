"""Interpolation weights: tables over the fractions of a position, which move no ramp.

A position lies at `part` / 32 px behind a pixel, along y and x. Its weights are whole multiples of
2**-14. In each of the 32 x 32 tables they add up to 1, and their centre of mass is the position,
both exactly: flat tissue stays flat, and a ramp of grey is sampled where it is asked for.

- Cubic is R. G. Keys, "Cubic convolution interpolation for digital image processing", IEEE Trans.
  Acoust. Speech Signal Process. 29(6), 1981, with a = -3/4, as in OpenCV.
- Lanczos is the sinc windowed by its own main lobe, four px to each side (C. E. Duchon, J. Appl.
  Meteorol. 18(8), 1979).

By themselves these move ramps by up to 0.05 and 0.015 px. They get the smallest change, in the sum
of squares, that stops it; that leaves less error in textures of every grain, too.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

BITS = 5
STEPS = 2**BITS
"""Positions are told apart to this part of a px."""
ONE = 2**14
WIDTHS = {"nearest": 1, "linear": 2, "cubic": 4, "lanczos": 8}
"""Side of a kernel, px."""


def reach(width: int) -> tuple[int, int]:
    """Return how many px a kernel takes before and after the pixel that a position lies on.

    >>> [reach(width) for width in WIDTHS.values()]
    [(0, 0), (0, 1), (1, 2), (3, 4)]
    """
    return max(width // 2 - 1, 0), width // 2


@cache
def table(width: int) -> NDArray[np.int16]:
    """Return the weights of a kernel of one of `WIDTHS`.

    Returns
    -------
    int16 ndarray of shape (32, 32, width, width)
        By the fractions of y and x, then by the pixels' rows and columns. Not to be changed.
    """
    before = reach(width)[0]
    line = _line(width)
    along_y = np.rint(ONE * line).astype(np.int64)
    _keep_moments(along_y, np.full(STEPS, ONE), before)
    weights = np.rint(along_y[:, None, :, None] * line[None, :, None, :]).astype(np.int64)
    _keep_moments(weights, along_y[:, None, :], before)
    found = weights.astype(np.int16)
    found.flags.writeable = False
    return found


def _line(width: int) -> NDArray[np.float64]:
    """Return the weights along one axis, (32, width): rows add up to 1 and keep ramps."""
    if width == 1:
        return np.ones((STEPS, 1))
    part = np.arange(STEPS)[:, None] / STEPS
    t = np.arange(width) - reach(width)[0] - part
    if width == 2:
        line = 1 - np.abs(t)
    elif width == 4:
        a, d = -0.75, np.abs(t)
        inner, outer = ((a + 2) * d - (a + 3)) * d**2 + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        line = np.where(d <= 1, inner, outer)
    else:
        line = np.sinc(t) * np.sinc(t / 4)
    lacks, moment = 1 - line.sum(1, keepdims=True), -(line * t).sum(1, keepdims=True)
    middle = t.mean(1, keepdims=True)
    slope = (moment - lacks * middle) / ((t - middle) ** 2).sum(1, keepdims=True)
    return np.asarray(line + lacks / width + slope * (t - middle))


def _keep_moments(weights: NDArray[np.int64], sums: NDArray[np.int64], before: int) -> None:
    """Mend what rounding did to sums and centre of mass along the last axis.

    Each row of weights gets its sum, and all rows of a table together the centre that
    they shall have: what they lack is shared out among them, one step each.
    """
    width = weights.shape[-1]
    weights[..., before] += sums - weights.sum(-1)
    if width == 1:
        return
    rows = weights if weights.ndim == 4 else weights[:, None]
    place = np.arange(width) - before
    lacking = np.arange(STEPS) * (ONE // STEPS) - (rows @ place).sum(-1)
    n = rows.shape[-2]
    share = (lacking[..., None] + np.arange(n)) // n
    rows[..., before] -= share
    rows[..., before + 1] += share
