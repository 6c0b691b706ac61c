"""Networks of which only the inside is computed give what cropping gives."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from inference import native
from inference.engine import Engine, Settings, from_keras
from inference.engine.ops import Crop
from inference.engine.trim import trimmed
from tests.engine_networks import KINDS, SMALL_INPUTS, SMALL_WIDTHS, build, drawn, rsunet, unet_2d

pytestmark = pytest.mark.skipif(native.widest() is None, reason="the kernels are not built")


def check(model, shape, margins):
    """Compare a trimmed network with the whole one, cropped; return its graph."""
    graph = from_keras.read(model, shape)
    inside = trimmed(graph, margins)
    x = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    whole, part = (Engine(g, Settings(tuning=False))(x)[0] for g in (graph, inside))
    sides = margins[-(whole.ndim - 1) :]
    cropped = whole[tuple(slice(m, n - m) for m, n in zip(sides, whole.shape, strict=False))]
    assert part.shape == cropped.shape
    assert np.ptp(cropped) > 0.01
    np.testing.assert_allclose(part, cropped, rtol=0, atol=1e-4)
    return inside


def crops(graph):
    return [node.op.margins for node in graph.nodes if isinstance(node.op, Crop)]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 4), st.integers(0, 23), st.integers(0, 19))
def test_any_margins_of_the_residual_network(z, y, x):
    check(RESIDUAL, (9, 56, 44, 1), (z, y, x))


RESIDUAL = rsunet((9, 56, 44, 1), (4, 6, 8))


def test_layers_before_the_margin_are_not_computed_either():
    graph = check(RESIDUAL, (9, 56, 44, 1), (3, 20, 18))
    # 20 - 2 - 3 and 18 - 2 - 3 voxels are to spare behind the last enlarging: one tile before it.
    assert ((1, 1), (4, 4), (4, 4)) in crops(graph)  # before it, at half the resolution
    assert ((1, 1), (8, 8), (8, 8)) in crops(graph)  # of what is added behind it
    assert ((2, 2), (12, 12), (10, 10)) in crops(graph)  # and the rest before the last layer


@pytest.mark.parametrize("kind", KINDS)
def test_published_networks(kind):
    model = build(kind, "elu", True, widths=SMALL_WIDTHS[kind], shape=SMALL_INPUTS[kind])
    z, y, x, _ = model.output_shape[1:]
    check(model, SMALL_INPUTS[kind], (z // 4, y // 3, x // 3))


def test_images():
    check(unet_2d((48, 64, 1), (4, 6, 8)), (48, 64, 1), (0, 15, 17))


def test_an_input_that_is_given_to_the_end_and_layers_that_are_seen_twice():
    given = keras.Input((16, 24, 1))
    x = layers.Conv2D(5, 3, padding="same")(given)
    low = layers.UpSampling2D(2)(layers.MaxPooling2D(2)(x))
    both = layers.Concatenate()([low, x, given])
    y = layers.Conv2D(3, 3, padding="same")(both)
    model = drawn(keras.Model(given, layers.Add()([y, layers.Conv2D(3, 1)(low)])))
    check(model, (16, 24, 1), (0, 5, 9))


def test_without_margins_nothing_changes():
    graph = from_keras.read(RESIDUAL, (9, 56, 44, 1))
    assert trimmed(graph, (0, 0, 0)) is graph
