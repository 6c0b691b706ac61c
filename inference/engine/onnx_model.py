"""An ONNX file in plain values; the package `onnx` parses it, and is needed nowhere else.

A *layout* names the axes of a value in the file's order: "ncyx" or "nczyx", as exporters write it,
or another order behind a transposition. A network whose exporter put one before everything else
takes its images channels last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import BackendError, ModelError, UnsupportedError

Size = tuple[int | None, ...]
OPSETS = range(6, 29)
"""Versions of the standard's operators of which the meaning was looked up."""


@dataclass(frozen=True)
class Operator:
    """One node of the file."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class OnnxModel:
    """A network as its file describes it."""

    data: bytes
    """The file itself."""
    opset: int
    operators: tuple[Operator, ...]
    """Each after those that it depends on."""
    constants: Mapping[str, NDArray[Any]]
    inputs: Mapping[str, Size]
    """As the file declares them, batch and all; None where a length is free."""
    outputs: Mapping[str, Size]
    layouts: Mapping[str, str]
    """Of everything that is computed; empty for what has neither 4 nor 5 axes."""

    @property
    def input_shapes(self) -> tuple[Size, ...]:
        """Channels last, without the batch."""
        return tuple(_channels_last(size, self.layouts[n]) for n, size in self.inputs.items())

    @property
    def channels(self) -> tuple[int | None, ...]:
        """Channels of every output, None where the file leaves them open."""
        found = [_channels_last(size, self.layouts[n]) for n, size in self.outputs.items()]
        return tuple(size[-1] if size else None for size in found)


def _channels_last(size: Size, layout: str) -> Size:
    if len(size) != len(layout):
        return ()
    return tuple(size[layout.index(axis)] for axis in [*layout_of(len(size))[2:], "c"])


def layout_of(rank: int) -> str:
    """Return the layout of the standard for so many axes, empty if there is none."""
    return {4: "ncyx", 5: "nczyx"}.get(rank, "")


def parse(data: bytes) -> OnnxModel:
    """Return the network of a file.

    Raises
    ------
    ModelError
        If it is no ONNX, keeps weights in other files, or uses operators of somebody's own.
    BackendError
        If the package `onnx` is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise BackendError(
            "ONNX files are read by the package onnx, which is not installed: "
            "pip install 'petalign[onnx]'"
        ) from error
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # whatever its parser raises
        raise ModelError(f"the model's file is no ONNX: {error}") from error
    if not model.graph.node or not model.graph.output:
        raise ModelError("the model's file is no ONNX, or one of an empty network")
    graph = model.graph
    constants = {tensor.name: _array(onnx, tensor) for tensor in graph.initializer}
    if graph.sparse_initializer:
        raise UnsupportedError("the engine does not read sparse weights of ONNX files")
    operators = tuple(_operator(onnx, n, node) for n, node in enumerate(graph.node))
    inputs = {one.name: _size(one) for one in graph.input if one.name not in constants}
    return OnnxModel(
        data,
        _opset(model),
        operators,
        constants,
        inputs,
        {one.name: _size(one) for one in graph.output},
        _layouts(operators, inputs),
    )


def _opset(model: Any) -> int:
    found = [one.version for one in model.opset_import if one.domain in ("", "ai.onnx")]
    opset = int(found[0]) if found else 0
    if opset not in OPSETS:
        raise UnsupportedError(
            f"the ONNX file is of the operator set {opset}; those from {OPSETS.start} to "
            f"{OPSETS.stop - 1} are read"
        )
    return opset


def _operator(onnx: Any, number: int, node: Any) -> Operator:
    name = node.name or f"{node.op_type}_{number}"
    if not node.output:
        raise ModelError(f"the node {name!r} of the model has no result")
    if node.domain not in ("", "ai.onnx"):
        raise UnsupportedError(
            f"the engine does not know the node {name!r}: {node.op_type} is an operator of "
            f"{node.domain!r}"
        )
    attributes = {one.name: _attribute(onnx, one) for one in node.attribute}
    return Operator(name, node.op_type, tuple(node.input), tuple(node.output), attributes)


def _attribute(onnx: Any, attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _array(onnx, value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, int | float) else list(value) if _is_row(value) else value


def _is_row(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str)


def _array(onnx: Any, tensor: Any) -> NDArray[Any]:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise ModelError(
            f"the weights {tensor.name[:80]!r} of the model lie in another file; save it as one"
        )
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except (TypeError, ValueError) as error:
        raise ModelError(f"the weights {tensor.name[:80]!r} cannot be read: {error}") from error


def _size(value: Any) -> Size:
    dims = value.type.tensor_type.shape.dim
    return tuple(int(dim.dim_value) or None for dim in dims)


def _layouts(operators: Iterable[Operator], inputs: Mapping[str, Size]) -> dict[str, str]:
    found = {name: _input_layout(name, len(size), operators) for name, size in inputs.items()}
    for operator in operators:
        layouts = [found[name] for name in operator.inputs if name in found]
        if not layouts:
            continue
        given = max(layouts, key=len)  # sizes, which have none, may come first
        if operator.kind == "Transpose" and given:
            given = transposed(given, operator)
        elif operator.kind == "Shape":
            given = ""
        found |= dict.fromkeys(operator.outputs, given)
    return found


def _input_layout(name: str, rank: int, operators: Iterable[Operator]) -> str:
    """Return the layout of an input: channels last if it is only read by what moves them."""
    first = layout_of(rank)
    last = first.replace("c", "") + "c"
    readers = [operator for operator in operators if name in operator.inputs]
    moves = first and all(
        reader.kind == "Transpose" and transposed(last, reader) == first for reader in readers
    )
    return last if moves else first


def transposed(layout: str, operator: Operator) -> str:
    """Return the layout behind a transposition."""
    order = operator.attributes.get("perm") or list(reversed(range(len(layout))))
    if sorted(order) != list(range(len(layout))):
        raise ModelError(f"the node {operator.name!r} orders {len(layout)} axes as {order}")
    return "".join(layout[axis] for axis in order)
