"""Read ONNX files of operators that are known; all others are refused by name."""

from __future__ import annotations

import numpy as np

from inference.engine import onnx_constants, onnx_operators
from inference.engine.builder import Builder
from inference.engine.graph import Graph
from inference.engine.onnx_model import OnnxModel, Operator
from inference.engine.onnx_node import OnnxNode, Value
from inference.engine.shapes import InputShapes, checked_inputs
from inference.errors import InferenceError, ModelError, ShapeError, UnsupportedError


def read(model: OnnxModel, input_shape: InputShapes) -> Graph:
    """Return the graph of a network.

    The engine takes and gives channels last, whatever the file does: an input (N, C, z, y, x) of
    the file is (n, z, y, x, C) here, and so is an output. Where an exporter put transpositions
    around a network of channels last, both agree as they are.

    Parameters
    ----------
    model : OnnxModel
        As `onnx_model.parse` gives it.
    input_shape : sequence of int, or a sequence of those
        (y, x, channels) or (z, y, x, channels), for each input in the file's order.

    Raises
    ------
    UnsupportedError
        If it holds an operator that the engine doesn't know; node and reason are named.
    """
    builder, names = checked_inputs(model.input_shapes, input_shape)
    values: dict[str, Value] = dict(model.constants)
    values |= zip(model.inputs, names, strict=True)
    for operator in model.operators:
        values[operator.outputs[0]] = _read(builder, model, operator, values)
    outputs = [values.get(name) for name in model.outputs]
    results = [name for name in outputs if isinstance(name, str)]
    if len(results) != len(outputs):
        raise ModelError(f"outputs of {list(model.outputs)} depend on no input")
    return builder.graph(results)


def _read(
    builder: Builder, model: OnnxModel, operator: Operator, values: dict[str, Value]
) -> Value:
    unknown = [name for name in operator.inputs if name and name not in values]
    if unknown:
        raise UnsupportedError(
            f"the node {operator.name!r} ({operator.kind}) reads {unknown[0]!r}, which is made by "
            "no node before it, or is a second result of one"
        )
    given = [values[name] if name else None for name in operator.inputs]
    if not any(isinstance(value, str) for value in given):
        return onnx_constants.fold(operator, [v for v in given if isinstance(v, np.ndarray)])
    node = OnnxNode(builder, model, operator, given)
    if operator.kind == "Shape":
        return node.sizes()
    reader = onnx_operators.READERS.get(operator.kind)
    if reader is None:
        raise UnsupportedError(
            f"the engine does not know the node {operator.name!r} of the kind {operator.kind}; it "
            f"knows {', '.join(sorted(onnx_operators.READERS))}. Run the network by another backend"
        )
    try:
        made = reader(node)
    except ShapeError as error:
        raise ShapeError(f"node {operator.name!r} ({operator.kind}): {error}") from error
    except InferenceError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
        raise UnsupportedError(
            f"the attributes of the node {operator.name!r} ({operator.kind}) are not those of the "
            f"standard: {type(error).__name__} {error}"
        ) from error
    node.check_all_was_read()
    return made
