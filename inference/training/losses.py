"""What a network is trained to lower, and how good it is."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from inference.dice import dice, dice_of_labels
from inference.keras_on_tensorflow import tf
from inference.training.config import TrainConfig

Tensor = Any


def losses_of(scores: Tensor, labels: Tensor, config: TrainConfig) -> Tensor:
    """Return the loss of each image (n,); of a pooled one, n times the same.

    Parameters
    ----------
    scores : tensor of shape (n, ..., outputs)
        As a network gives them without its last softmax or sigmoid.
    labels : int tensor of shape (n, ...)
    """
    space = list(range(1, len(labels.shape)))
    is_binary = scores.shape[-1] == 1
    if config.loss == "cross_entropy":
        if is_binary:
            truth = tf.cast(labels, scores.dtype)
            each = tf.nn.sigmoid_cross_entropy_with_logits(truth, scores[..., 0])
        else:
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores)
        return tf.reduce_mean(each, space)
    if is_binary:
        likely, truth = tf.sigmoid(scores), tf.cast(labels, scores.dtype)[..., tf.newaxis]
    else:  # the background is left out: where it is most of an image, its Dice tells little
        likely = tf.nn.softmax(scores)[..., 1:]
        truth = tf.one_hot(labels, scores.shape[-1], dtype=scores.dtype)[..., 1:]
    pooled = config.loss == "pooled_dice"
    agreement = dice(likely, truth, pooled=pooled, smooth=config.dice_smooth_px)
    loss = 1 - tf.reduce_mean(agreement, -1)
    return tf.fill(tf.shape(labels)[:1], loss) if pooled else loss


def classes_of(scores: Tensor) -> Tensor:
    """Return the likeliest class of each pixel."""
    if scores.shape[-1] == 1:
        return tf.cast(scores[..., 0] > 0, tf.int32)
    return tf.argmax(scores, -1, output_type=tf.int32)


def likelihood_of(scores: Tensor) -> Tensor:
    """Return the probability of each pixel to be anything but background."""
    if scores.shape[-1] == 1:
        return tf.sigmoid(scores[..., 0])
    return 1 - tf.nn.softmax(scores)[..., 0]


def accuracy_of(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the share of pixels whose class is right."""
    return tf.reduce_mean(tf.cast(classes_of(scores) == labels, tf.float32))


class Judgement(NamedTuple):
    """How good a network is on held-out samples; Dice over classes but the background."""

    loss: float
    error: float
    dice: float
    pooled_dice: float


def judge(scores: Tensor, labels: Tensor, config: TrainConfig) -> Judgement:
    """Return how good class scores (n, ..., outputs) are."""
    loss = float(tf.reduce_mean(losses_of(scores, labels, config)))
    found, classes = classes_of(scores), config.network.classes
    each = dice_of_labels(found, labels, classes)[:, 1:]
    pooled = dice_of_labels(found, labels, classes, pooled=True)[1:]
    error = 1 - float(accuracy_of(scores, labels))
    return Judgement(loss, error, float(np.mean(each)), float(np.mean(pooled)))
