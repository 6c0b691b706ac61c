"""What training lowers: the first peak of a correlogram shall stand out, and only where it belongs.

Two forms of one aim. "peaks", as published, is the second peak less the first, plus the first peak
where a template is searched in another pair's image. "contrast" weighs all places at once: how
unlikely the first peak is, among all places beyond it and all of the other image, if scores over
the temperature are logits. It pulls at every place that competes, hard pairs more than easy ones.

References
----------
.. [1] D. Buniatyan et al., "Deep Learning Improves Template Matching by Normalized Cross
   Correlation", arXiv:1705.08593, 2017: the first form.
.. [2] A. van den Oord, Y. Li, O. Vinyals, "Representation Learning with Contrastive Predictive
   Coding", arXiv:1807.03748, 2018: the second, there over samples of a batch.
"""

from __future__ import annotations

from typing import Any

from inference.config import NCCTrainingConfig
from inference.correlogram import Peaks, find_peaks
from inference.keras_on_tensorflow import tf
from inference.tf_ncc import correlograms

Tensor = Any
_MUCH_LOWER = -1e4
"""A logit of nothing."""


def matching_loss(
    search: Tensor, template: Tensor, place: Tensor, config: NCCTrainingConfig, *, scale: int = 1
) -> Tensor:
    """Return the mean loss of a batch, in units of a correlation.

    Parameters
    ----------
    search : tensor of shape (b, H, W, c)
        Features without their rims.
    template : tensor of shape (b, h, w, c)
        Likewise.
    place : tensor of int64, shape (b, 2)
        Where templates were cut, in px of the images.
    scale : int
        Pixels of the images to a pixel of these features.
    """
    peaks, surface = peaks_of(search, template, place, config, scale=scale)
    foreign = tf.reduce_mean(correlograms(search, tf.roll(template, 1, axis=0)), axis=3)
    if config.loss == "peaks":
        highest = tf.reduce_mean(tf.reduce_max(foreign, axis=(1, 2)))
        return config.dissimilar * highest - tf.reduce_mean(peaks.r_delta)
    heat = config.temperature
    elsewhere = tf.where(peaks.near, _MUCH_LOWER, surface / heat)
    competing = [tf.reduce_logsumexp(elsewhere, axis=(1, 2))]
    if config.dissimilar:
        logits = foreign / heat + tf.math.log(config.dissimilar)
        competing.append(tf.reduce_logsumexp(logits, axis=(1, 2)))
    odds = tf.reduce_logsumexp(tf.stack(competing), axis=0) - peaks.first / heat
    return heat * tf.reduce_mean(tf.nn.softplus(odds))


def peaks_of(
    search: Tensor, template: Tensor, place: Tensor, config: NCCTrainingConfig, *, scale: int = 1
) -> tuple[Peaks, Tensor]:
    """Return the peaks as training sees them, and the correlograms (b, y, x), channels averaged."""
    scores = correlograms(search, template)
    radius = max(config.radius_px // scale, 1)
    within = None
    if config.guided:
        within = _near(tf.shape(scores), place // scale, -(-config.slack_px // scale))
    return find_peaks(scores, radius_px=radius, within=within), tf.reduce_mean(scores, axis=3)


def _near(shape: Tensor, place: Tensor, radius: int) -> Tensor:
    """Return which places (b, y, x) lie within a square around `place` (b, 2)."""
    along = [
        tf.abs(tf.range(shape[axis + 1], dtype=tf.int64) - place[:, axis : axis + 1]) <= radius
        for axis in range(2)
    ]
    return along[0][:, :, tf.newaxis] & along[1][:, tf.newaxis, :]
