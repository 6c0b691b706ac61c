from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import pytest

from inference.config import NCCNetConfig
from inference.errors import BackendError, ShapeError
from inference.model import Network
from inference.nccnet import halo_px, weight_shapes
from tests.inference.networks import drawn, grey

tf = pytest.importorskip("tensorflow", reason="the extra `train` is not installed")

import keras  # noqa: E402

from inference.backends import by_keras  # noqa: E402
from inference.ncc_layer import NCC, siamese  # noqa: E402


def _images(*shape, seed=0):
    return tf.constant(grey(shape, seed))


@pytest.mark.parametrize(("widths", "number"), [((8, 16, 32, 64), 292_281), ((8, 16, 32), None)])
def test_a_new_network(widths, number):
    config = NCCNetConfig(widths=widths, channels=3)
    model = by_keras.build(config, seed=5)
    if number:
        assert model.count_params() == number + 2 * (widths[0] + 1)
    features = model(_images(2, 16, 24, 1))
    assert features.shape == (2, 16, 24, 3)
    assert 0 < abs(features.numpy()).max() < 1
    weights = by_keras.weights_of(model)
    assert {n: w.shape for n, w in weights.items()} == weight_shapes(config)
    for name, weight in weights.items():
        if name.endswith("bias"):
            assert not weight.any()
        else:
            fan = np.prod(weight.shape[:2]) * (weight.shape[2] + weight.shape[3])
            limit = np.sqrt(6 / fan)
            assert abs(weight).max() <= limit
            if weight.size > 500:
                assert weight.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)
    again, other = (by_keras.weights_of(by_keras.build(config, seed=seed)) for seed in (5, 6))
    for name, weight in weights.items():
        np.testing.assert_array_equal(weight, again[name])
        assert name.endswith("bias") or not np.array_equal(weight, other[name])


def test_what_is_computed_is_what_is_published():
    """The network written out, without a description that is read by others."""
    network = drawn((2, 3), grey_zero=100.0, grey_unit=50.0)
    weights = network.weights

    def conv(x, name):
        sums = tf.nn.conv2d(x, weights[f"{name}/kernel"], 1, "SAME")
        return tf.tanh(sums + weights[f"{name}/bias"])

    def block(x, name):
        first = conv(x, f"{name}_1")
        inner = conv(conv(conv(first, f"{name}_2"), f"{name}_3"), f"{name}_4")
        return conv(inner + first, f"{name}_5")

    images = _images(2, 8, 12, 1)
    fine = block((images - 100) / 50, "down0")
    coarse = block(tf.nn.max_pool2d(fine, 2, 2, "VALID"), "down1")
    up = conv(tf.repeat(tf.repeat(coarse, 2, 1), 2, 2), "up0_resized")
    expected = conv(block(up + fine, "up0"), "output")
    np.testing.assert_allclose(by_keras.to_keras(network)(images), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("widths", [(2,), (2, 2), (2, 2, 2), (2, 2, 2, 2)])
def test_the_halo_is_exactly_what_an_output_depends_on(widths):
    """With positive weights and no bias, a pixel of 1 shows in each output that depends on it."""
    config = NCCNetConfig(widths=widths, grey_zero=0, grey_unit=1)
    weights = {
        name: np.full(shape, 0.3 if len(shape) == 4 else 0, np.float32)
        for name, shape in weight_shapes(config).items()
    }
    predict = by_keras.predictor(Network(config, weights))
    before, after = [], []
    side, middle = 512 if len(widths) > 3 else 128, 256 if len(widths) > 3 else 64
    for pixel in range(middle, middle + config.step_px):
        image = np.zeros((config.step_px, side), np.float32)
        image[:, pixel] = 1
        outputs = np.flatnonzero(predict(image)[..., 0].any(axis=0))
        after.append(pixel - outputs[0])  # the first output lies before what it sees
        before.append(outputs[-1] - pixel)
    assert (max(before), max(after)) == halo_px(config)


def test_sides_that_do_not_fit_are_refused():
    model = by_keras.build(NCCNetConfig(widths=(2, 2, 2)))
    with pytest.raises(ShapeError, match="multiples of 4 px, got 16 x 18"):
        model(_images(1, 16, 18, 1))
    assert model(_images(1, 16, 20, 1)).shape == (1, 16, 20, 1)


def test_the_siamese_model_has_one_set_of_weights():
    network = by_keras.build(NCCNetConfig(widths=(2, 3), channels=2))
    both = siamese(network)
    assert [w.path for w in both.trainable_weights] == [w.path for w in network.trainable_weights]
    assert both.trainable_weights[0] is network.trainable_weights[0]
    search, template = _images(2, 24, 24, 1), _images(2, 8, 12, 1, seed=1)
    found = both([search, template])
    np.testing.assert_allclose(found, NCC()(network(search), network(template)), atol=1e-6)
    assert found.shape == (2, 17, 13, 2)
    assert by_keras.weights_of(both).keys() == by_keras.weights_of(network).keys()


def test_the_pyramid_shares_names_and_ends_in_the_output():
    config = NCCNetConfig(widths=(2, 3, 4))
    images = _images(1, 16, 16, 1)
    levels = by_keras.build_pyramid(config, seed=3)(images)
    assert [tuple(level.shape[1:]) for level in levels] == [
        (4, 4, 4), (8, 8, 3), (16, 16, 2), (16, 16, 1)
    ]  # fmt: skip
    np.testing.assert_array_equal(levels[-1], by_keras.build(config, seed=3)(images))
    found = siamese(by_keras.build_pyramid(config, seed=3))([images, images[:, :8, :12]])
    assert [tuple(s.shape[1:]) for s in found] == [(3, 2, 4), (5, 3, 3), (9, 5, 2), (9, 5, 1)]
    only = siamese(by_keras.build(config, seed=3))([images, images[:, :8, :12]])
    np.testing.assert_allclose(found[-1], only, atol=1e-6)


def test_mixed_precision_ends_in_float32():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = by_keras.build(NCCNetConfig(widths=(2, 3)))
    finally:
        keras.config.set_dtype_policy(before)
    assert model.get_layer("up0_1").compute_dtype == "bfloat16"
    assert model(_images(1, 8, 8, 1)).dtype == "float32"
    full = by_keras.build(NCCNetConfig(widths=(2, 3)))(_images(1, 8, 8, 1))
    np.testing.assert_allclose(model(_images(1, 8, 8, 1)), full, atol=0.03)


def test_a_network_survives_keras_and_its_json():
    network = drawn((2, 3), 2)
    model = by_keras.to_keras(network)
    for name, weight in by_keras.weights_of(model).items():
        np.testing.assert_array_equal(weight, network.weights[name])
    again = keras.models.model_from_json(json.dumps(json.loads(model.to_json())))
    by_keras.set_weights(again, network.weights)
    images = _images(1, 8, 8, 1)
    np.testing.assert_array_equal(model(images), again(images))


@pytest.mark.parametrize(
    ("environment", "says"),
    [("KERAS_BACKEND", "KERAS_BACKEND=tensorflow"), ("", r"pip install 'petalign\[train\]'")],
)
def test_what_is_missing_is_named(monkeypatch, environment, says):
    if environment:
        monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    else:
        monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.delitem(sys.modules, "inference.keras_on_tensorflow")
    with pytest.raises(BackendError, match=says):
        importlib.import_module("inference.keras_on_tensorflow")
