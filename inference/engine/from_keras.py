"""Read Keras 3 models of layers that are known; all others are refused by name.

Keras itself isn't imported: whoever holds a model has done so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from inference.engine import keras_layers
from inference.engine.builder import Builder
from inference.engine.graph import Graph
from inference.engine.ops import Shape
from inference.errors import ModelError

Reader = Callable[[Builder, Any, list[str]], str]


def read(model: Any, input_shape: Sequence[int]) -> Graph:
    """Return the graph of a Functional or Sequential model.

    Parameters
    ----------
    model : keras.Model
        With one input; in inference: batch normalisation by its stored statistics, no dropout.
    input_shape : sequence of int
        (y, x, channels) or (z, y, x, channels).

    Raises
    ------
    ModelError
        If it holds a layer that the engine doesn't know; layer and reason are named.
    """
    if len(model.inputs) != 1:
        raise ModelError(f"the engine takes models of one input, this one has {model.inputs}")
    rank = len(model.inputs[0].shape) - 1
    if len(input_shape) != rank or rank not in (3, 4):
        raise ModelError(
            f"the model takes {tuple(model.inputs[0].shape[1:])}, without the batch; "
            f"got the input shape {tuple(input_shape)}"
        )
    *size, channels = (int(n) for n in input_shape)
    shape: Shape = (channels, 1, *size) if rank == 3 else (channels, *size)  # type: ignore[assignment]
    builder = Builder(is_flat=rank == 3)
    outputs = _apply(builder, model, [builder.input("input", shape)])
    return builder.graph(outputs)


def _apply(builder: Builder, model: Any, inputs: list[str]) -> list[str]:
    """Write a model, which may lie inside another, and return its outputs."""
    found = {id(t): name for t, name in zip(model.inputs, inputs, strict=True)}
    waiting = list(reversed(model.outputs))
    while waiting:  # not by recursion: networks are deep
        tensor = waiting[-1]
        if id(tensor) in found:
            waiting.pop()
            continue
        node, made = _node_of(tensor)
        missing = [t for t in node.input_tensors if id(t) not in found]
        if missing:
            waiting += reversed(missing)
            continue
        results = _layer(builder, node.operation, [found[id(t)] for t in node.input_tensors])
        for output, name in zip(made, results, strict=True):
            found[id(output)] = name
    return [found[id(tensor)] for tensor in model.outputs]


def _node_of(tensor: Any) -> tuple[Any, Sequence[Any]]:
    history = tensor._keras_history
    node = history.operation._inbound_nodes[history.node_index]
    return node, node.output_tensors


def _layer(builder: Builder, layer: Any, inputs: list[str]) -> list[str]:
    if hasattr(layer, "layers") and hasattr(layer, "outputs"):
        return _apply(builder, layer, inputs)
    kind = type(layer).__name__
    reader: Reader | None = keras_layers.READERS.get(kind)
    if reader is None:
        raise ModelError(
            f"the engine does not know the layer {layer.name!r} of the kind {kind}; it knows "
            f"{', '.join(sorted(keras_layers.READERS))}. Run the network by another backend"
        )
    return [reader(builder, layer, inputs)]
