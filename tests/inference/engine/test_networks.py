"""Published networks, and random ones, against Keras."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine import compile, from_keras, passes
from inference.engine.engine import Engine, Settings

pytest.importorskip("tensorflow", reason="the extra `train` is not installed")

import keras
from keras import layers

from tests.engine_networks import (
    SMALL_INPUTS,
    SMALL_WIDTHS,
    TWELVE,
    build,
    drawn,
    rsunet,
    unet_2d,
)
from tests.inference.engine.samples import sample

ERROR = 1e-4


def _check(model, shape, choices=("full",), **settings):
    x = sample(shape)
    expected = np.asarray(model(x, training=False))
    graph = from_keras.read(model, shape)
    for names in choices:
        found = Engine(graph, Settings(passes=names, tuning=False, **settings))(x)
        np.testing.assert_allclose(found, expected, rtol=0, atol=ERROR, err_msg=str(names))


QUICK = [("original", "relu", True), ("symmetric", "elu", True), ("residual", "elu", True)]


@pytest.mark.parametrize(("kind", "activation", "normalised"), QUICK)
def test_a_published_network(kind, activation, normalised):
    shape = SMALL_INPUTS[kind]
    model = build(kind, activation, normalised, widths=SMALL_WIDTHS[kind], shape=shape)
    _check(model, shape, ("full", "none"))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "activation", "normalised"), TWELVE)
def test_all_published_networks_with_all_combinations_of_passes(kind, activation, normalised):
    shape = SMALL_INPUTS[kind]
    model = build(kind, activation, normalised, widths=SMALL_WIDTHS[kind], shape=shape)
    names = [c for n in range(len(passes.ALL) + 1) for c in combinations(passes.ALL, n)]
    _check(model, shape, names)


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["portable", "avx2", "auto"])
def test_networks_of_published_widths(isa):
    shape = (5, 64, 48, 1)
    _check(rsunet(shape), shape, isa=isa)
    shape = (48, 64, 1)
    _check(unet_2d(shape), shape, isa=isa)


def test_nothing_stands_alone_in_the_residual_network():
    shape = SMALL_INPUTS["residual"]
    model = build("residual", "elu", True, widths=SMALL_WIDTHS["residual"], shape=shape)
    kinds = {type(n.op).__name__ for n in passes.apply(from_keras.read(model, shape), "full").nodes}
    assert kinds == {"Input", "Conv", "Pool", "Resize"}


# ------------------------------------------------------------------ random networks


class _Net:
    """A random network of images: layers and sums and joins of what fits."""

    def __init__(self, draw, shape):
        self.draw = draw
        self.given = keras.Input(shape)
        self.made = [self.given]

    def step(self):
        x = self.draw(st.sampled_from(self.made))
        kind = self.draw(st.sampled_from(["conv", "conv", "norm", "act", "pool", "up", "two"]))
        y = getattr(self, f"_{kind}")(x)
        if min(y.shape[1:3]) >= 3 and max(y.shape[1:3]) <= 40 and y.shape[3] <= 60:
            self.made.append(y)

    def _conv(self, x):
        side = self.draw(st.sampled_from([1, 2, 3, 3, 5]))
        return layers.Conv2D(
            self.draw(st.integers(1, 35)),
            side,
            strides=self.draw(st.sampled_from([1, 1, 1, 2])),
            padding="same" if min(x.shape[1:3]) <= side else self.draw(_PADDINGS),
            activation=self.draw(st.sampled_from([None, "relu", "elu", "tanh"])),
        )(x)

    def _norm(self, x):
        return layers.BatchNormalization()(x)

    def _act(self, x):
        kinds = ["relu", "elu", "sigmoid", "tanh"]
        if x.shape[-1] > 1:  # else Keras warns
            kinds.append("softmax")
        kind = self.draw(st.sampled_from(kinds))
        return layers.Activation(kind)(x)

    def _pool(self, x):
        kind = self.draw(st.sampled_from([layers.MaxPooling2D, layers.AveragePooling2D]))
        return kind(self.draw(st.sampled_from([2, 3])), strides=2, padding="same")(x)

    def _up(self, x):
        kind = self.draw(st.sampled_from(["nearest", "bilinear", "transposed"]))
        if kind == "transposed":
            return layers.Conv2DTranspose(
                self.draw(st.integers(1, 20)),
                self.draw(st.sampled_from([2, 3])),
                strides=2,
                padding="same",
            )(x)
        return layers.UpSampling2D(2, interpolation=kind)(x)

    def _two(self, x):
        fitting = [y for y in self.made if y.shape[1:3] == x.shape[1:3]]
        y = self.draw(st.sampled_from(fitting))
        if y.shape[3] == x.shape[3] and self.draw(st.booleans()):
            return layers.Add()([x, y])
        return layers.Concatenate()([x, y])


_PADDINGS = st.sampled_from(["same", "valid"])


@st.composite
def networks(draw):
    """Return a model and names of passes."""
    shape = (draw(st.integers(5, 20)), draw(st.integers(5, 20)), draw(st.integers(1, 18)))
    net = _Net(draw, shape)
    for _ in range(draw(st.integers(1, 9))):
        net.step()
    names = draw(st.one_of(st.just("full"), st.sets(st.sampled_from(passes.ALL))))
    used = net.made[-1]
    return drawn(keras.Model(net.given, used), draw(st.integers(0, 9))), shape, names


def _check_random(case):
    model, shape, names = case
    if len(model.layers) < 2:
        return
    x = sample(shape)
    expected = np.asarray(model(x, training=False))
    found = compile(model, shape, passes=names, tuning=False)(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=ERROR)


@settings(max_examples=15, deadline=None)
@given(networks())
def test_random_networks(case):
    _check_random(case)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(networks())
def test_many_random_networks(case):
    _check_random(case)
