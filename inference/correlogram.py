"""Peaks of correlograms, differentiable: what a matching network is trained to raise.

The exclusion zone is that of NCCNet's published training: a square around *every* place that is
within 1e-4 of the highest score, so that a plateau does not compete with itself. Where
`alignment.correlation.find_peaks` judges matches, a second peak below 0 counts as 0; here it does
not, for a loss must go on pushing it down.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from inference.errors import ShapeError
from inference.keras_on_tensorflow import tf

Tensor = Any
PLATEAU = 1e-4
"""Places so close to the highest score belong to the first peak."""
NO_SECOND = -1.0
"""Score of the second peak where the exclusion zone covers the correlogram: the lowest possible."""


class Peaks(NamedTuple):
    """The two highest peaks of each correlogram, float32 (or float64) tensors of shape (b,)."""

    first: Tensor
    second: Tensor
    place: Tensor
    """int64 (b, 2): where the first peak lies, px (y, x)."""
    near: Tensor
    """bool (b, y, x): the exclusion zone, around all that belongs to the first peak."""

    @property
    def r_delta(self) -> Tensor:
        """First minus second peak; gradients go through both values."""
        return self.first - self.second


def find_peaks(scores: Tensor, *, radius_px: int = 10, within: Tensor = None) -> Peaks:
    """Return the first and second peak of correlograms (b, y, x, c).

    Parameters
    ----------
    scores : tensor of shape (b, y, x, c)
        Channels are averaged first.
    radius_px : int
        The exclusion zone is a square of side 2 * radius_px + 1.
    within : tensor of bool, shape (b, y, x), optional
        Where the first peak is looked for; the second may lie anywhere, and be the higher.

    Raises
    ------
    ShapeError
        If `scores` has another number of axes.
    """
    if len(scores.shape) != 4:
        raise ShapeError(f"correlograms must have shape (b, y, x, c), got {tuple(scores.shape)}")
    if scores.dtype not in (tf.float32, tf.float64):
        scores = tf.cast(scores, tf.float32)
    surface = tf.reduce_mean(scores, axis=3)
    lowest = tf.fill(tf.shape(surface), tf.cast(NO_SECOND, surface.dtype))
    allowed = surface if within is None else tf.where(within, surface, lowest)
    first = tf.reduce_max(allowed, axis=(1, 2))
    near = _dilated(allowed >= first[:, tf.newaxis, tf.newaxis] - PLATEAU, radius_px)
    second = tf.reduce_max(tf.where(near, lowest, surface), axis=(1, 2))
    return Peaks(first, second, _place(allowed), near)


def _dilated(mask: Tensor, radius_px: int) -> Tensor:
    """Grow (b, y, x) by a square: along one axis, then along the other."""
    grown = tf.cast(mask, tf.float32)[..., tf.newaxis]
    side = 2 * radius_px + 1
    for window in ((side, 1), (1, side)):
        grown = tf.nn.max_pool2d(grown, window, 1, "SAME")
    return grown[..., 0] > 0


def _place(surface: Tensor) -> Tensor:
    shape = tf.shape(surface, tf.int64)
    index = tf.argmax(tf.reshape(surface, (shape[0], -1)), axis=1)
    return tf.stack([index // shape[2], index % shape[2]], axis=1)
