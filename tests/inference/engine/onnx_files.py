"""ONNX files of a few nodes, written by the package `onnx`."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model(nodes, shape, *, weights=None, opset=17, channels=None):
    """Return the file of nodes from "x" to "y"; weights are arrays by name."""

    def value(name, size):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, size)

    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", shape)],
        [value("y", [None, channels, *[None] * (len(shape) - 2)])],
        [numpy_helper.from_array(np.asarray(w), n) for n, w in (weights or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8
    onnx.checker.check_model(made)
    return made.SerializeToString()


def node(kind, inputs="x", output="y", **attributes):
    """Return a node; the last one is called by its kind."""
    name = f"the {kind}" if output == "y" else f"{kind} to {output}"
    return helper.make_node(kind, inputs.split(), [output], name=name, **attributes)


def drawn(*shape, seed=0):
    """Return weights of order 1."""
    size = np.sqrt(np.prod(shape[1:]) or 1)
    return (np.random.default_rng(seed).normal(size=shape) / size).astype(np.float32)


def floats(*values):
    return np.array(values, np.float32)


def whole(*values):
    return np.array(values, np.int64)
