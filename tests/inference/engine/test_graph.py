from __future__ import annotations

import numpy as np
import pytest

from inference.engine import from_nccnet, reference
from inference.engine.builder import Builder
from inference.engine.graph import Graph, Node
from inference.engine.ops import Add, Concat, Conv, Crop, Input, Pool, TransposedConv
from inference.errors import ShapeError
from tests.inference.networks import drawn, grey


def test_shapes_are_inferred():
    kernel = np.zeros((1, 3, 3, 2, 5), np.float32)
    conv = Conv(kernel, np.zeros(5, np.float32), (1, 2, 2), ((0, 0), (1, 1), (0, 1)))
    assert conv.shape((2, 4, 9, 8)) == (5, 4, 5, 4)
    up = TransposedConv(kernel, np.zeros(5, np.float32), (1, 2, 2), ((0, 0), (0, 1), (0, 1)))
    assert up.shape((2, 4, 9, 8)) == (5, 4, 18, 16)
    assert Pool("max", (1, 2, 2), (1, 2, 2)).shape((2, 4, 9, 8)) == (2, 4, 4, 4)
    assert Concat().shape((2, 4, 9, 8), (3, 4, 9, 8)) == (5, 4, 9, 8)


def test_what_does_not_fit_is_named():
    builder = Builder()
    x = builder.input("grey", (1, 1, 8, 8))
    y = builder.add("cut", Crop(((0, 0), (1, 0), (0, 0))), x)
    with pytest.raises(ShapeError, match=r"'sum'.*\(1, 1, 7, 8\)"):
        builder.add("sum", Add(), x, y)
    with pytest.raises(ShapeError, match=r"'cut'.*larger input"):
        Graph(
            (
                Node("grey", Input((1, 1, 4, 4))),
                Node("cut", Crop(((0, 0), (2, 2), (0, 0))), ("grey",)),
            ),
            ("cut",),
        )


def test_nodes_nobody_needs_are_left_out_and_order_is_restored():
    builder = Builder()
    x = builder.input("grey", (1, 1, 8, 8))
    a = builder.add("a", Crop(((0, 0), (1, 0), (0, 0))), x)
    b = builder.add("b", Crop(((0, 0), (0, 0), (1, 0))), a)
    builder.add("unused", Add(), x, x)
    graph = builder.graph([b])
    assert [node.name for node in graph.nodes] == ["grey", "a", "b"]
    assert [n.name for n in graph.with_nodes(reversed(graph.nodes)).nodes] == ["grey", "a", "b"]


def test_names_are_made_unique():
    builder = Builder()
    x = builder.input("grey", (1, 1, 8, 8))
    assert builder.add("sum", Add(), x, x) == "sum"
    assert builder.add("sum", Add(), x, x) == "sum#2"


def test_nccnet_is_read_from_its_description():
    network = drawn((3, 4, 5), channels=2, grey_zero=100.0, grey_unit=50.0)
    graph = from_nccnet.read(network, (24, 16))
    assert graph.shapes[graph.outputs[0]] == (2, 1, 24, 16)
    image = grey((24, 16))
    (found,) = reference.run(graph, image[np.newaxis, ..., np.newaxis])
    by_keras = _by_keras(network, image)
    np.testing.assert_allclose(found[0], by_keras, rtol=0, atol=2e-6)


def _by_keras(network, image):
    pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
    from inference.backends import by_keras

    return by_keras.predictor(network)(image)
