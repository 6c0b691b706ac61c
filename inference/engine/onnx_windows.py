"""How windows that slide over an image are written into a graph: convolutions and pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from inference.engine.onnx_node import OnnxNode
from inference.engine.ops import NO_MARGINS, Array, Margins, Pool, TransposedConv, Triple


def _padding(node: OnnxNode, sides: Triple, stride: Triple) -> Margins:
    """Return the zeros around an image by either way of saying it."""
    spatial = len(node.layout) - 2
    pads = node.attribute("pads", [0] * 2 * spatial)
    kind = node.attribute("auto_pad", "NOTSET")
    if kind == "NOTSET":
        if len(pads) != 2 * spatial or min(pads) < 0:
            raise node.refused(f"its pads are {list(pads)}")
        axes = node.layout[2:]
        return node.margins({a: (pads[n], pads[n + spatial]) for n, a in enumerate(axes)})
    if kind == "VALID":
        return NO_MARGINS
    z, y, x = node.builder.same(node.image, sides, stride)
    if kind == "SAME_UPPER":
        return z, y, x
    if kind == "SAME_LOWER":  # the odd zero lies before
        return (z[1], z[0]), (y[1], y[0]), (x[1], x[0])
    raise node.refused(f"auto_pad is {kind!r}")


def _check_plain(node: OnnxNode) -> None:
    node.check_order()
    ones = [1] * (len(node.layout) - 2)
    dilations = list(node.attribute("dilations", ones))
    if dilations != ones:
        raise node.refused(f"it is dilated by {dilations}")


def _kernel(node: OnnxNode, order: tuple[int, int]) -> Array:
    """Return the kernel as (z, y, x, channels in, channels out); `order` names those in the file.

    Sides that the file gives beside it must agree.
    """
    node.only("group", 1)
    kernel = node.weights(1)
    if kernel.ndim != len(node.layout):
        raise node.refused(f"its kernel has the shape {kernel.shape}")
    sides = list(kernel.shape[2:])
    if list(node.attribute("kernel_shape", sides)) != sides:
        raise node.refused(f"kernel_shape is not that of its kernel {kernel.shape}")
    moved = kernel.transpose(*range(2, kernel.ndim), *order)
    moved = moved[np.newaxis] if moved.ndim == 4 else moved
    channels = node.size()["c"]
    if moved.shape[3] != channels:
        raise node.refused(f"its kernel takes {moved.shape[3]} channels, its input has {channels}")
    return np.ascontiguousarray(moved)


def _bias(node: OnnxNode, channels: int) -> Array:
    if node.constant(2) is None:
        return np.zeros(channels, np.float32)
    bias = node.weights(2)
    if bias.shape != (channels,):
        raise node.refused(f"its bias has the shape {bias.shape}, not ({channels},)")
    return bias


def _strides(node: OnnxNode) -> Triple:
    return node.triple(list(node.attribute("strides", [1] * (len(node.layout) - 2))))


def conv(node: OnnxNode) -> str:
    """Read `Conv`."""
    _check_plain(node)
    kernel, stride = _kernel(node, (1, 0)), _strides(node)
    sides = (kernel.shape[0], kernel.shape[1], kernel.shape[2])
    padding, bias = _padding(node, sides, stride), _bias(node, kernel.shape[4])
    return node.builder.conv(
        node.operator.name, node.image, kernel, bias, stride=stride, padding=padding
    )


def transposed(node: OnnxNode) -> str:
    """Read `ConvTranspose`."""
    _check_plain(node)
    node.only("auto_pad", "NOTSET", "VALID")
    if node.attribute("output_shape"):
        raise node.refused("it has an output_shape")
    kernel, stride = _kernel(node, (0, 1)), _strides(node)
    pads = _padding(node, (1, 1, 1), stride)
    more = node.attribute("output_padding", [0] * (len(node.layout) - 2))
    z, y, x = (
        (before, after - extra)
        for (before, after), extra in zip(pads, _zeros_and(node, more), strict=True)
    )
    op = TransposedConv(kernel, _bias(node, kernel.shape[4]), stride, (z, y, x))
    return node.add(op)


def _zeros_and(node: OnnxNode, sizes: list[int]) -> list[int]:
    """Return sizes of (z,) y, x as three, 0 for a z that is not there."""
    return [0, *sizes] if len(node.layout) == 4 else list(sizes)


def pool(kind: Literal["max", "average"]) -> Callable[[OnnxNode], str]:
    """Return the reader of `MaxPool` or `AveragePool`."""

    def read(node: OnnxNode) -> str:
        _check_plain(node)
        node.only("storage_order", 0)
        sides, stride = node.triple(list(node.attribute("kernel_shape", []))), _strides(node)
        padding = _padding(node, sides, stride)
        if any(max(pads) >= side for pads, side in zip(padding, sides, strict=True) if any(pads)):
            raise node.refused(f"its pads {padding} are as wide as its window {sides}")
        size = node.builder.shape(node.image)[1:]
        rests = [
            (n + sum(pads) - side) % step
            for n, pads, side, step in zip(size, padding, sides, stride, strict=True)
        ]
        if node.attribute("ceil_mode", 0) and any(rests):
            raise node.refused("ceil_mode makes windows that reach beyond the border")
        if kind == "average" and node.attribute("count_include_pad", 0):
            x = node.builder.padded(node.operator.name, node.image, padding)
            return node.add(Pool(kind, sides, stride), x)
        return node.add(Pool(kind, sides, stride, padding))

    return read
