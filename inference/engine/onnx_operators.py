"""How each operator of ONNX is written into a graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from inference.engine import onnx_resize
from inference.engine.onnx_constants import slices
from inference.engine.onnx_node import OnnxNode
from inference.engine.onnx_windows import conv, pool, transposed
from inference.engine.ops import (
    NO_MARGINS,
    Activation,
    Add,
    Concat,
    Crop,
    Kind,
    Scale,
)

Reader = Callable[[OnnxNode], str]


def _normalised(node: OnnxNode) -> str:
    node.check_order()
    node.only("training_mode", 0)
    node.only("spatial", 1)
    node.attribute("momentum")  # of training
    if node.opset < 7 and not node.attribute("is_test", 0):
        raise node.refused("it is in training")
    scale, shift, mean, variance = (node.weights(n).astype(np.float64) for n in range(1, 5))
    channels = node.size()["c"]
    if any(vector.shape != (channels,) for vector in (scale, shift, mean, variance)):
        raise node.refused(f"its weights are not of {channels} channels")
    scale = scale / np.sqrt(variance + node.attribute("epsilon", 1e-5))
    shift = shift - mean * scale
    return node.add(Scale(scale.astype(np.float32), shift.astype(np.float32)))


def _activated(kind: Kind, slope: float | None = None) -> Reader:
    def read(node: OnnxNode) -> str:
        alpha = 0.0 if slope is None else float(node.attribute("alpha", slope))
        activation = Activation(kind, alpha)
        return node.builder.activated(node.operator.name, node.image, activation)

    return read


def _softmax(node: OnnxNode) -> str:
    axis = node.attribute("axis", -1 if node.opset >= 13 else 1)
    is_last = axis in (-1, len(node.layout) - 1)
    if node.opset < 13 and not is_last:
        raise node.refused(f"before operator set 13 it runs over all axes from {axis} on")
    if node.axis(axis) != "c":
        raise node.refused(f"it runs over the axis {node.axis(axis)!r}, not channels")
    return node.builder.activated(node.operator.name, node.image, Activation("softmax"))


# ------------------------------------------------------------------ arithmetic


def _sum(node: OnnxNode) -> str:
    total, *others = node.images
    if len(node.images) != len(node.given):
        raise node.refused("it adds constants; use Add")
    for other in others:
        total = node.add(Add(), total, other)
    return total


def _arithmetic(node: OnnxNode) -> str:
    """Add two results, or compute with one and constants by channel."""
    kind = node.operator.kind
    if len(node.given) != 2:
        raise node.refused(f"it has {len(node.given)} inputs")
    if len(node.images) == 2:
        if kind != "Add":
            raise node.refused("of two results only the sum is computed")
        return node.add(Add(), *node.images)
    is_second = isinstance(node.given[0], np.ndarray)
    values = _by_channel(node, 0 if is_second else 1)
    ones, zeros = np.ones_like(values), np.zeros_like(values)
    if kind == "Div" and is_second:
        raise node.refused("it divides by a result")
    scale = {"Mul": values, "Div": 1 / values if kind == "Div" else ones}.get(kind, ones)
    shift = {"Add": values, "Sub": values if is_second else -values}.get(kind, zeros)
    if kind == "Sub" and is_second:
        scale = -ones
    return node.add(Scale(scale.astype(np.float32), shift.astype(np.float32)), node.images[0])


def _by_channel(node: OnnxNode, index: int) -> np.typing.NDArray[np.float64]:
    """Return a constant as one value a channel, if it is no more than that."""
    values = node.weights(index).astype(np.float64)
    rank, channels = len(node.layout), node.size()["c"]
    shape = (*[1] * (rank - values.ndim), *values.shape)
    place = node.layout.index("c")
    if len(shape) != rank or any(n != 1 for axis, n in enumerate(shape) if axis != place):
        raise node.refused(f"its constant {values.shape} is more than one value a channel")
    if shape[place] not in (1, channels):
        raise node.refused(f"its constant {values.shape} is not one of {channels} channels")
    return np.broadcast_to(values.ravel(), (channels,))


# ------------------------------------------------------------------ sizes


def _concat(node: OnnxNode) -> str:
    if node.axis(node.attribute("axis", 1)) != "c":
        raise node.refused("it joins another axis than channels")
    if len(node.images) != len(node.given):
        raise node.refused("it joins constants")
    return node.add(Concat(), *node.images)


def _pad(node: OnnxNode) -> str:
    node.only("mode", "constant")
    given, value = node.constant(1), node.constant(2)
    if node.attribute("value", 0.0) or (value is not None and value.any()):
        raise node.refused("it pads by other values than 0")
    x = node.image
    pads = [int(n) for n in (node.attribute("pads", []) if given is None else given)]
    numbers = node.constant(3)
    axes = node.layout if numbers is None else [node.axis(int(n)) for n in numbers]
    if len(pads) != 2 * len(axes):
        raise node.refused(f"it has {len(pads)} pads for {len(axes)} axes")
    pairs = {axis: (pads[n], pads[n + len(axes)]) for n, axis in enumerate(axes)}
    margins = node.margins(pairs)
    z, y, x_ = ((max(a, 0), max(b, 0)) for a, b in margins)
    x = node.builder.padded(node.operator.name, x, (z, y, x_))
    z, y, x_ = ((max(-a, 0), max(-b, 0)) for a, b in margins)
    return x if (z, y, x_) == NO_MARGINS else node.add(Crop((z, y, x_)), x)


_WHOLE = 2**31 - 1  # what exporters write for "to the end"


def _slice(node: OnnxNode) -> str:
    x, size = node.image, node.size()
    for name in ("starts", "ends", "axes"):
        node.attribute(name)
    rest = [node.constant(n) for n in range(1, len(node.given))]
    found: dict[str, tuple[int, int]] = {}
    for number, start, end, step in slices(
        node.operator.attributes, [r for r in rest if r is not None], len(node.layout)
    ):
        axis = node.axis(number)
        first, last, _ = slice(start, end).indices(size[axis])
        if step != 1:
            raise node.refused(f"its step is {step}")
        if axis != "n":
            found[axis] = (first, size[axis] - last)
        elif start != 0 or end < _WHOLE:
            raise node.refused("it cuts the batch")
    margins = node.margins(found)
    return x if margins == NO_MARGINS else node.add(Crop(margins), x)


def _same(node: OnnxNode) -> str:
    return node.image


def _dropped(node: OnnxNode) -> str:
    for name in ("ratio", "seed"):
        node.attribute(name)
    if len(node.given) > 2 and node.constant(2) is not None and np.any(node.constant(2)):
        raise node.refused("it is in training")
    return node.images[0]


def _moved(node: OnnxNode) -> str:
    node.attribute("perm")  # the layout of what comes has it
    return node.image


READERS: dict[str, Reader] = {
    "Add": _arithmetic,
    "AveragePool": pool("average"),
    "BatchNormalization": _normalised,
    "Concat": _concat,
    "Conv": conv,
    "ConvTranspose": transposed,
    "Div": _arithmetic,
    "Dropout": _dropped,
    "Elu": _activated("elu", 1.0),
    "Identity": _same,
    "LeakyRelu": _activated("leaky", 0.01),
    "MaxPool": pool("max"),
    "Mul": _arithmetic,
    "Pad": _pad,
    "Relu": _activated("relu"),
    "Resize": onnx_resize.read,
    "Sigmoid": _activated("sigmoid"),
    "Slice": _slice,
    "Softmax": _softmax,
    "Sub": _arithmetic,
    "Sum": _sum,
    "Tanh": _activated("tanh"),
    "Transpose": _moved,
    "Upsample": onnx_resize.read,
}
"""Operators by their names; what is missing here is refused."""
