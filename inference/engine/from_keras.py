"""Read Keras 3 models of layers that are known; all others are refused by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from inference.engine import keras_layers
from inference.engine.builder import Builder
from inference.engine.graph import Graph
from inference.engine.keras_model import Call, KerasModel, Layer, Tensor, describe
from inference.engine.shapes import InputShapes, checked_inputs
from inference.errors import ModelError, UnsupportedError

Reader = Callable[[Builder, Layer, list[str]], str]

MOST_CALLS = 20_000
"""Of layers; models inside models could make a small file a graph without an end."""


def read(model: Any, input_shape: InputShapes) -> Graph:
    """Return the graph of a Functional or Sequential model.

    Parameters
    ----------
    model : keras.Model or KerasModel
        In inference: batch normalisation by its stored statistics, no dropout.
    input_shape : sequence of int, or a sequence of those
        (y, x, channels) or (z, y, x, channels), for each input in the model's order.

    Raises
    ------
    ModelError
        If it holds a layer that the engine doesn't know; layer and reason are named.
    """
    described = model if isinstance(model, KerasModel) else describe(model)
    builder, inputs = checked_inputs(described.input_shapes, input_shape)
    return builder.graph(_Walk(builder).apply(described, inputs))


class _Walk:
    """Writes a model, call by call."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.calls = 0

    def apply(self, model: KerasModel, inputs: Sequence[str]) -> list[str]:
        """Write a model, which may lie inside another, and return its outputs."""
        if len(inputs) != len(model.inputs):
            raise ModelError(
                f"the model {model.name!r} takes {len(model.inputs)} inputs, got {len(inputs)}"
            )
        found: dict[Tensor, str] = dict(zip(model.inputs, inputs, strict=True))
        waiting, begun = list(reversed(model.outputs)), set[tuple[str, int]]()
        while waiting:  # not by recursion: networks are deep
            tensor = waiting[-1]
            if tensor in found:
                waiting.pop()
                continue
            call = model.calls.get(tensor[:2])
            if call is None:
                raise ModelError(f"nothing in the model {model.name!r} makes {tensor}")
            missing = [t for t in call.inputs if t not in found]
            if missing and tensor[:2] in begun:
                raise ModelError(f"the layer {tensor.layer!r} waits for its own result")
            begun.add(tensor[:2])
            if missing:
                waiting += reversed(missing)
                continue
            results = self._call(call, [found[t] for t in call.inputs])
            found |= {Tensor(*tensor[:2], n): name for n, name in enumerate(results)}
            if tensor not in found:
                raise ModelError(f"the layer {tensor.layer!r} has no output {tensor.output}")
        return [found[tensor] for tensor in model.outputs]

    def _call(self, call: Call, inputs: list[str]) -> list[str]:
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise ModelError(f"the model has more than {MOST_CALLS} layers")
        layer = call.layer
        if call.others:
            raise UnsupportedError(
                f"the engine does not compute the layer {layer.name!r}: it is called with "
                f"{', '.join(f'{value!r:.40}' for value in call.others)} beside its inputs; run "
                "the network by another backend"
            )
        if isinstance(layer, KerasModel):
            return self.apply(layer, inputs)
        reader: Reader | None = keras_layers.READERS.get(layer.kind)
        if reader is None:
            raise UnsupportedError(
                f"the engine does not know the layer {layer.name!r} of the kind {layer.kind}; it "
                f"knows {', '.join(sorted(keras_layers.READERS))}. Run the network by another "
                "backend"
            )
        keras_layers.check_inputs(layer, inputs)
        return [reader(self.builder, layer, inputs)]
