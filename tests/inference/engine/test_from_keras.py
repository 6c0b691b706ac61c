"""What is read from Keras, computed plainly, against Keras itself."""

from __future__ import annotations

import numpy as np
import pytest

from inference.engine import from_keras, reference
from inference.errors import ModelError

pytest.importorskip("tensorflow", reason="the extra `train` is not installed")

import keras
from keras import layers

from tests.engine_networks import (
    SMALL_INPUTS,
    SMALL_WIDTHS,
    TWELVE,
    build,
    drawn,
    unet_2d,
)
from tests.inference.engine.layers import FLAT, SOLID, model_of
from tests.inference.engine.samples import sample


def _check(model, shape, tolerance=2e-5):
    graph = from_keras.read(model, shape)
    given = sample(shape)
    expected = np.asarray(model(given, training=False))[0]
    (found,) = reference.run(graph, given.reshape(-1, *given.shape[-3:]))
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", FLAT)
def test_layers_of_images(name):
    shape = (11, 14, 3)
    _check(model_of(FLAT[name], shape), shape)


@pytest.mark.parametrize("name", SOLID)
def test_layers_of_volumes(name):
    shape = (5, 8, 7, 3)
    _check(model_of(SOLID[name], shape), shape)


@pytest.mark.parametrize(("kind", "activation", "normalised"), TWELVE[::3])
def test_published_networks(kind, activation, normalised):
    shape = SMALL_INPUTS[kind]
    _check(build(kind, activation, normalised, widths=SMALL_WIDTHS[kind], shape=shape), shape)


def test_the_flat_u_net():
    _check(unet_2d((32, 48, 1), (5, 7, 9)), (32, 48, 1))


def test_models_inside_models_and_shared_layers():
    inner_in = keras.Input((8, 8, 3))
    inner = keras.Model(inner_in, layers.Conv2D(3, 3, padding="same")(inner_in))
    shared = layers.Conv2D(3, 1)
    x = given = keras.Input((8, 8, 3))
    x = shared(inner(shared(x)))
    x = inner(x)
    _check(drawn(keras.Model(given, layers.Add()([x, given, x]))), (8, 8, 3))


def test_a_sequence_of_layers():
    model = keras.Sequential(
        [
            keras.Input((8, 9, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(axis=3),
            layers.MaxPooling2D(2),
        ]
    )
    _check(drawn(model), (8, 9, 3))


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (layers.Conv2D(4, 3, dilation_rate=2), "dilated"),
        (layers.Conv2D(3, 3, groups=3), "groups"),
        (layers.DepthwiseConv2D(3), "DepthwiseConv2D"),
        (layers.LayerNormalization(), "LayerNormalization"),
        (layers.Activation("gelu"), "gelu"),
        (layers.ReLU(max_value=6), "largest value"),
        (layers.UpSampling2D(2, interpolation="bicubic"), "bicubic"),
        (layers.Softmax(axis=1), "axis 1"),
        (layers.BatchNormalization(axis=1), "axis 1"),
        (layers.Lambda(lambda x: x * 2), "Lambda"),
    ],
)
def test_what_is_not_known_is_refused_by_name(layer, why):
    given = keras.Input((8, 8, 3))
    with pytest.raises(ModelError, match=why) as refusal:
        from_keras.read(keras.Model(given, layer(given)), (8, 8, 3))
    assert layer.name in str(refusal.value)


def test_a_wrong_input_shape_is_refused():
    given = keras.Input((8, 8, 3))
    with pytest.raises(ModelError, match="without the batch"):
        from_keras.read(keras.Model(given, layers.ReLU()(given)), (1, 8, 8, 3))
