"""Passes change no result, and do what they are for."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from inference.engine import passes, reference
from inference.engine.builder import Builder
from inference.engine.ops import (
    Activate,
    Activation,
    Add,
    Concat,
    Conv,
    Crop,
    Pad,
    Pool,
    Resize,
    Scale,
    TransposedConv,
)
from inference.errors import ConfigError

ELU = Activation("elu", 1.0)
SAME = ((0, 0), (1, 1), (1, 1))


class Net:
    """Writes networks of random weights."""

    def __init__(self, channels=3, size=(3, 8, 9), seed=0):
        self.random = np.random.default_rng(seed)
        self.builder = Builder()
        self.x = self.builder.input("grey", (channels, *size))

    def draw(self, *shape):
        return self.random.normal(size=shape).astype(np.float32)

    def conv(self, x, channels, side=3, name="conv", **settings):
        inputs = self.builder.shape(x)[0]
        kernel = self.draw(1, side, side, inputs, channels) / (side * np.sqrt(inputs))
        settings = {"padding": "same", **settings}
        return self.builder.conv(name, x, kernel, self.draw(channels), **settings)

    def scale(self, x, name="scale", *, is_shifted=True):
        channels = self.builder.shape(x)[0]
        shift = self.draw(channels) * is_shifted
        return self.builder.add(name, Scale(self.draw(channels), shift), x)

    def elu(self, x):
        return self.builder.add("elu", Activate(ELU), x)

    def add(self, x, y):
        return self.builder.add("sum", Add(), x, y)

    def graph(self, *outputs):
        return self.builder.graph(outputs)


def residual_net():
    """BN behind a sum, a convolution with two consumers, ELU, and a gap between channels."""
    net = Net()
    x = first = net.elu(net.scale(net.conv(net.x, 5)))
    x = net.conv(x, 5)
    x = net.elu(net.scale(net.add(x, first)))
    small = net.builder.add("pool", Pool("max", (1, 2, 2), (1, 2, 2)), x)
    small = net.elu(net.conv(small, 7))
    large = net.builder.add("large", Resize((1, 2, 2)), small)
    large = net.conv(large, 5, side=1, name="thin")
    x = net.builder.add("cut", Crop(((0, 0), (0, 0), (0, 1))), x)
    x = net.elu(net.scale(net.add(large, x)))
    joined = net.builder.add("joined", Concat(), x, net.elu(net.conv(x, 6)))
    return net.graph(net.conv(joined, 4))


def twice_used():
    """A convolution whose result is scaled, and used as it is."""
    net = Net()
    x = net.conv(net.x, 4)
    return net.graph(net.add(net.scale(x), net.elu(x)))


def sum_with_itself():
    net = Net()
    x = net.conv(net.x, 4)
    return net.graph(net.elu(net.add(x, x)))


def two_convolutions_added():
    net = Net()
    a, b = net.conv(net.x, 4), net.conv(net.x, 4, side=1)
    return net.graph(net.elu(net.scale(net.add(a, b))))


def scaled_before():
    net = Net()
    return net.graph(net.conv(net.scale(net.x, is_shifted=False), 4))


def shifted_before():
    net = Net()
    return net.graph(net.conv(net.scale(net.x), 4), net.conv(net.scale(net.x), 4, padding="valid"))


def output_in_the_middle():
    net = Net()
    a = net.conv(net.x, 4)
    b = net.elu(net.scale(a))
    return net.graph(a, b, net.conv(b, 2))


def transposed():
    net = Net()
    op = TransposedConv(net.draw(1, 2, 2, 3, 4), net.draw(4), (1, 2, 2), ((0, 0),) * 3)
    return net.graph(net.elu(net.scale(net.builder.add("up", op, net.x))))


NETS = [
    residual_net,
    twice_used,
    sum_with_itself,
    two_convolutions_added,
    scaled_before,
    shifted_before,
    output_in_the_middle,
    transposed,
]
COMBINATIONS = [c for n in range(len(passes.PASSES) + 1) for c in combinations(passes.PASSES, n)]


@pytest.mark.parametrize("make", NETS)
def test_no_combination_of_passes_changes_a_result(make):
    graph = make()
    channels, *size = graph.inputs[0].op.size
    given = np.random.default_rng(1).normal(size=(*size, channels))
    expected = reference.run(graph, given)
    for names in COMBINATIONS:
        found = reference.run(passes.apply(graph, names), given)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-5, err_msg=str(names))


def _kinds(graph):
    return [type(node.op) for node in graph.nodes]


def test_nothing_stands_alone_in_a_residual_net():
    full = passes.apply(residual_net(), "full")
    assert not {Scale, Activate, Add, Pad} & set(_kinds(full))
    assert [node.op.in_place for node in full.nodes if isinstance(node.op, Concat)] == [True]
    none = passes.apply(residual_net(), "none")
    assert {Scale, Activate, Add, Pad} <= set(_kinds(none))
    assert none.notes == ()
    assert "sum added by conv" in " ".join(full.notes)


def test_a_thin_convolution_is_computed_before_enlarging():
    net = Net()
    large = net.builder.add("large", Resize((1, 2, 2)), net.x)
    graph = passes.apply(net.graph(net.conv(large, 5, side=1)), "resize")
    assert _kinds(graph)[1:] == [Conv, Resize]


def test_what_others_use_is_not_fused():
    full = passes.apply(twice_used(), "full")
    assert _kinds(full).count(Scale) == 1
    assert _kinds(full).count(Activate) == 1
    assert Add in _kinds(passes.apply(sum_with_itself(), "full"))


def test_a_shift_before_zeros_stays():
    full = passes.apply(shifted_before(), "full")
    assert _kinds(full).count(Scale) == 1
    assert Scale not in _kinds(passes.apply(scaled_before(), "full"))


def test_of_two_convolutions_the_later_one_adds():
    full = passes.apply(two_convolutions_added(), "full")
    assert [node.op.residual is None for node in full.nodes if isinstance(node.op, Conv)] == [
        True,
        False,
    ]


def test_an_unknown_pass_is_refused():
    with pytest.raises(ConfigError, match=r"\['sum'\]"):
        passes.apply(transposed(), ["sum"])
    assert passes.chosen("add") == {"add"}
