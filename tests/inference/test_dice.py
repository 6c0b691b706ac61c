"""Dice's coefficient against its definition."""

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("tensorflow") is None:
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from inference.dice import dice, dice_of_labels
from inference.keras_on_tensorflow import tf

SHAPES = array_shapes(min_dims=3, max_dims=4, max_side=4)


def defined(predicted, truth):
    """Of two arrays of one class."""
    both = predicted.sum() + truth.sum()
    return 1.0 if both == 0 else 2 * (predicted * truth).sum() / both


@st.composite
def pairs(draw):
    shape = draw(SHAPES)
    shares = st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0])  # exact in binary, often empty
    predicted = draw(arrays(np.float64, shape, elements=shares))
    return predicted, draw(arrays(np.float64, shape, elements=st.sampled_from([0.0, 1.0])))


@settings(deadline=None, max_examples=50)
@given(pairs())
def test_it_is_what_is_defined_of_each_image_and_class(pair):
    predicted, truth = pair
    images, classes = predicted.shape[0], predicted.shape[-1]
    expected = [
        [defined(predicted[n, ..., c], truth[n, ..., c]) for c in range(classes)]
        for n in range(images)
    ]
    np.testing.assert_allclose(dice(predicted, truth), expected, rtol=1e-12)
    pooled = [defined(predicted[..., c], truth[..., c]) for c in range(classes)]
    np.testing.assert_allclose(dice(predicted, truth, pooled=True), pooled, rtol=1e-12)


@settings(deadline=None, max_examples=30)
@given(pairs())
def test_gradients_are_numbers_also_where_masks_are_empty(pair):
    predicted, truth = map(tf.constant, pair)
    with tf.GradientTape() as tape:
        tape.watch(predicted)
        agreement = tf.reduce_sum(dice(predicted, truth))
    assert np.isfinite(tape.gradient(agreement, predicted)).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 4), st.data())
def test_of_labels_it_is_that_of_their_masks(classes, data):
    shape = data.draw(array_shapes(min_dims=3, max_dims=3, max_side=4))
    first, second = (
        data.draw(arrays(np.int64, shape, elements=st.integers(0, classes - 1))) for _ in range(2)
    )
    expected = [
        [defined((a == c).astype(float), (b == c).astype(float)) for c in range(classes)]
        for a, b in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(dice_of_labels(first, second, classes), expected, rtol=1e-6)


def test_a_smoothed_loss_teaches_where_nothing_is_to_be_found():
    predicted, truth = tf.constant(np.full((1, 4, 4, 1), 0.25)), np.zeros((1, 4, 4, 1))
    for smooth, teaches in ((0.0, False), (1.0, True)):
        with tf.GradientTape() as tape:
            tape.watch(predicted)
            loss = 1 - dice(predicted, truth, smooth=smooth)
        assert bool(np.any(tape.gradient(loss, predicted) > 0)) is teaches
