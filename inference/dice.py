"""Dice's coefficient: how much of two masks is common to both.

``2 |P and T| / (|P| + |T|)``, for probabilities as for masks. Two empty masks agree: theirs is 1.

References
----------
.. [1] F. Milletari et al., "V-Net: Fully Convolutional Neural Networks for Volumetric Medical
   Image Segmentation", arXiv:1606.04797, 2016: as a loss.
"""

from __future__ import annotations

from typing import Any

from inference.keras_on_tensorflow import tf

Tensor = Any


def dice(predicted: Tensor, truth: Tensor, *, pooled: bool = False, smooth: float = 0.0) -> Tensor:
    """Return Dice's coefficient of each class.

    Parameters
    ----------
    predicted, truth : tensors of shape (image, ..., class)
        In 0..1: masks or probabilities.
    pooled : bool
        Over all images at once; else of each image by itself.
    smooth : float
        Added to both sides of the fraction. The gradient where `truth` is empty is 0 without it.

    Returns
    -------
    tensor of shape (image, class), or (class,) if pooled
        1 where neither has anything.
    """
    predicted = tf.convert_to_tensor(predicted)
    truth = tf.cast(truth, predicted.dtype)
    first = 0 if pooled else 1
    axes = list(range(first, predicted.shape.rank - 1))
    common = tf.reduce_sum(predicted * truth, axes)
    both = tf.reduce_sum(predicted, axes) + tf.reduce_sum(truth, axes)
    is_empty = both + smooth <= 0
    # Divided by 1 there, so that no gradient is a NaN that `where` cannot take back.
    fraction = (2 * common + smooth) / tf.where(is_empty, tf.ones_like(both), both + smooth)
    return tf.where(is_empty, tf.ones_like(both), fraction)


def dice_of_labels(
    predicted: Tensor, truth: Tensor, classes: int, *, pooled: bool = False
) -> Tensor:
    """Return Dice's coefficient of each class of label images (image, ...), the background's too.

    Returns
    -------
    float32 tensor of shape (image, classes), or (classes,) if pooled
    """
    masks = (tf.one_hot(tf.cast(labels, tf.int32), classes) for labels in (predicted, truth))
    return dice(*masks, pooled=pooled)
