"""A Keras model in plain values: the same whether a file or a live model tells it.

Keras itself isn't imported: whoever holds a live model has done so, and a file needs none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from inference.engine.ops import Array

Size = tuple[int | None, ...]


class Tensor(NamedTuple):
    """What one call of a layer gives."""

    layer: str
    call: int
    output: int


@dataclass(frozen=True)
class Layer:
    """One layer: its class, its settings as Keras writes them, and its weights in that order."""

    kind: str
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[Array, ...] = ()


@dataclass(frozen=True)
class Call:
    """A layer, or a model inside the model, and what it is called with."""

    layer: Layer | KerasModel
    inputs: tuple[Tensor, ...]
    others: tuple[Any, ...] = ()
    """Arguments that are no tensors, without None and False."""


@dataclass(frozen=True)
class KerasModel:
    """A Functional or Sequential model."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    calls: Mapping[tuple[str, int], Call]
    """By the name of the layer and which of its calls it is; without those of inputs."""
    input_shapes: tuple[Size, ...]
    """Without the batch; None where a length is free."""

    @property
    def channels(self) -> tuple[int | None, ...]:
        """Channels of every output, None where they are not known without a size."""
        return _channels(self, [shape[-1] for shape in self.input_shapes])


def _channels(model: KerasModel, given: list[int | None]) -> tuple[int | None, ...]:
    """Return the channels of the outputs; among known layers few change them."""
    found: dict[Tensor, int | None] = dict(zip(model.inputs, given, strict=True))
    waiting = list(model.outputs)
    while waiting:
        tensor = waiting[-1]
        call = model.calls.get(tensor[:2])
        missing = [t for t in call.inputs if t not in found] if call else []
        if call is None or tensor in found or not missing:
            waiting.pop()
            if call and tensor not in found:
                made = _made(call, [found[t] for t in call.inputs])
                found |= {Tensor(*tensor[:2], n): count for n, count in enumerate(made)}
        elif len(waiting) > len(model.calls) + len(model.outputs):
            return (None,) * len(model.outputs)  # a circle: who reads the layers says so
        else:
            waiting.append(missing[0])
    return tuple(found.get(tensor) for tensor in model.outputs)


def _made(call: Call, given: list[int | None]) -> tuple[int | None, ...]:
    if isinstance(call.layer, KerasModel):
        return _channels(call.layer, given)
    if call.layer.kind == "Concatenate":
        return (None if None in given else sum(n or 0 for n in given),)
    return (call.layer.config.get("filters", given[0] if given else None),)


def arguments(value: Any) -> Iterator[Any]:
    """Yield what a layer is called with, flat: tensors as `Tensor`, all else as it is.

    Takes the arguments of a live node and those in a file; None and False are passed over, for
    layers take them for "not given".
    """
    if value is None or value is False:
        return
    if hasattr(value, "_keras_history"):
        yield _tensor(value)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from arguments(item)
    elif not isinstance(value, Mapping):
        yield value
    elif value.get("class_name") == "__keras_tensor__":
        yield Tensor(*value["config"]["keras_history"])
    elif value.get("class_name") == "__tuple__":
        yield from arguments(value["items"])
    elif "class_name" in value:
        yield value["class_name"]
    else:
        for name in sorted(value):
            yield from arguments(value[name])


def call_of(layer: Layer | KerasModel, given: Any) -> Call:
    """Return the call of a layer with arguments as `arguments` takes them."""
    found = list(arguments(given))
    tensors = tuple(value for value in found if isinstance(value, Tensor))
    others = tuple(value for value in found if not isinstance(value, Tensor))
    return Call(layer, tensors, others)


# ---------------------------------------------------------------------- live models


def describe(model: Any) -> KerasModel:
    """Return a live Functional or Sequential model, in inference."""
    calls: dict[tuple[str, int], Call] = {}
    seen: dict[int, Layer | KerasModel] = {}
    starts = [_tensor(tensor) for tensor in model.inputs]
    waiting = list(model.outputs)
    while waiting:  # not by recursion: networks are deep
        history = waiting.pop()._keras_history
        key = (history.operation.name, history.node_index)
        if key in calls or _tensor_of(history) in starts:
            continue
        operation = history.operation
        node = operation._inbound_nodes[history.node_index]
        layer = seen.get(id(operation)) or _layer(operation)
        seen[id(operation)] = layer
        calls[key] = call_of(layer, [node.arguments.args, node.arguments.kwargs])
        waiting += node.input_tensors
    return KerasModel(
        model.name,
        tuple(starts),
        tuple(_tensor(tensor) for tensor in model.outputs),
        calls,
        tuple(tuple(tensor.shape[1:]) for tensor in model.inputs),
    )


def _tensor(tensor: Any) -> Tensor:
    return _tensor_of(tensor._keras_history)


def _tensor_of(history: Any) -> Tensor:
    return Tensor(history.operation.name, history.node_index, history.tensor_index)


def _layer(operation: Any) -> Layer | KerasModel:
    """Describe what a file would hold of a layer; of kinds that nobody reads, only their name."""
    from inference.engine.keras_layers import READERS

    if hasattr(operation, "layers") and hasattr(operation, "outputs"):
        return describe(operation)
    kind, store = type(operation).__name__, dict[str, Any]()
    if kind not in READERS:
        return Layer(kind, operation.name)
    if hasattr(operation, "save_own_variables"):
        operation.save_own_variables(store)
    weights = tuple(np.asarray(store[str(n)], np.float32) for n in range(len(store)))
    return Layer(kind, operation.name, _config(operation), weights)


def _config(operation: Any) -> Mapping[str, Any]:
    config: dict[str, Any] = operation.get_config()
    function = getattr(operation, "activation", None)
    module = getattr(function, "__module__", "keras") or ""
    if module.partition(".")[0] != "keras":  # one of the same name is another function
        config["activation"] = f"{module}.{getattr(function, '__name__', function)}"
    return config
