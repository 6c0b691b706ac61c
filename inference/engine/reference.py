"""The graph computed by numpy, as plainly as can be: what the kernels are tested against."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.engine.graph import Graph
from inference.engine.ops import (
    Activate,
    Activation,
    Add,
    Concat,
    Conv,
    Correlate,
    Crop,
    Input,
    Margins,
    Op,
    Pad,
    Pool,
    Resize,
    Scale,
    TransposedConv,
    linear_taps,
)

Values = NDArray[Any]  # (z, y, x, channels), float32 or float64


def run(graph: Graph, *inputs: Values, dtype: type = np.float64) -> list[Values]:
    """Compute the outputs (z, y, x, channels) of one sample."""
    found: dict[str, Values] = {}
    given = iter(inputs)
    for node in graph.nodes:
        if isinstance(node.op, Input):
            found[node.name] = np.asarray(next(given), dtype)
        else:
            found[node.name] = _compute(node.op, [found[name] for name in node.inputs])
        channels, *size = graph.shapes[node.name]
        assert found[node.name].shape == (*size, channels), node
    return [found[name] for name in graph.outputs]


def activate(x: Values, activation: Activation) -> Values:
    """Apply an activation to the last axis's channels."""
    match activation.kind:
        case "linear":
            return x
        case "relu":
            return np.maximum(x, 0)
        case "leaky":
            return np.where(x > 0, x, activation.alpha * x)
        case "elu":
            return np.where(x > 0, x, activation.alpha * np.expm1(np.minimum(x, 0)))
        case "tanh":
            return np.asarray(np.tanh(x))
        case "sigmoid":
            return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))
        case "softmax":
            power = np.exp(x - x.max(axis=-1, keepdims=True))
            return np.asarray(power / power.sum(axis=-1, keepdims=True))


@singledispatch
def _compute(op: Op, x: Sequence[Values]) -> Values:
    raise NotImplementedError(op)


@_compute.register
def _(op: Conv, x: Sequence[Values]) -> Values:
    padded = _padded(x[0], op.padding)
    sides, (sz, sy, sx) = op.kernel.shape[:3], op.stride
    nz, ny, nx = (
        (n - k) // s + 1 for n, k, s in zip(padded.shape[:3], sides, op.stride, strict=True)
    )
    total: Values = np.zeros((nz, ny, nx, op.kernel.shape[4]), padded.dtype) + op.bias
    for z, y, x_ in product(*map(range, sides)):
        seen = padded[z:, y:, x_:][: (nz - 1) * sz + 1 : sz, : (ny - 1) * sy + 1 : sy]
        total += seen[:, :, : (nx - 1) * sx + 1 : sx] @ op.kernel[z, y, x_].astype(x[0].dtype)
    if op.residual is not None:
        total += op.residual * x[1]
    return activate(total, op.activation)


@_compute.register
def _(op: TransposedConv, x: Sequence[Values]) -> Values:
    sides, (sz, sy, sx) = op.kernel.shape[:3], op.stride
    size = [(n - 1) * s + k for n, s, k in zip(x[0].shape[:3], op.stride, sides, strict=True)]
    more = [max(-after, 0) for _, after in op.crop]
    total: Values = np.zeros(
        (*(n + m for n, m in zip(size, more, strict=True)), op.kernel.shape[4]), x[0].dtype
    )
    nz, ny, nx = x[0].shape[:3]
    for z, y, x_ in product(*map(range, sides)):
        added = x[0] @ op.kernel[z, y, x_].astype(x[0].dtype)
        total[
            z : z + (nz - 1) * sz + 1 : sz,
            y : y + (ny - 1) * sy + 1 : sy,
            x_ : x_ + (nx - 1) * sx + 1 : sx,
        ] += added
    z0, y0, x0 = ((before, max(after, 0)) for before, after in op.crop)
    return activate(_cropped(total, (z0, y0, x0)) + op.bias.astype(x[0].dtype), op.activation)


@_compute.register
def _(op: Scale, x: Sequence[Values]) -> Values:
    return activate(x[0] * op.scale + op.shift, op.activation).astype(x[0].dtype)


@_compute.register
def _(op: Activate, x: Sequence[Values]) -> Values:
    return activate(x[0], op.activation).astype(x[0].dtype)


@_compute.register
def _(op: Add, x: Sequence[Values]) -> Values:
    return activate(x[0] + x[1], op.activation)


@_compute.register
def _(op: Concat, x: Sequence[Values]) -> Values:
    return np.concatenate(x, axis=-1)


@_compute.register
def _(op: Pool, x: Sequence[Values]) -> Values:
    is_max = op.kind == "max"
    padded = _padded(x[0], op.padding, -np.inf if is_max else 0)
    counted = _padded(np.ones_like(x[0]), op.padding)
    windows, counts = _windows(padded, op), _windows(counted, op)
    if is_max:
        return np.asarray(windows.max(axis=(-3, -2, -1)))
    return np.asarray(windows.sum(axis=(-3, -2, -1)) / counts.sum(axis=(-3, -2, -1)))


def _windows(x: Values, op: Pool) -> Values:
    all_of_them = np.lib.stride_tricks.sliding_window_view(x, op.size, axis=(0, 1, 2))
    sz, sy, sx = op.stride
    return np.asarray(all_of_them[::sz, ::sy, ::sx])


@_compute.register
def _(op: Resize, x: Sequence[Values]) -> Values:
    found = x[0]
    for axis, factor in enumerate(op.factor):
        if op.kind == "nearest":
            found = found.repeat(factor, axis)
        elif factor > 1:
            low, high, part = linear_taps(found.shape[axis], factor)
            part = part.astype(found.dtype).reshape([-1 if a == axis else 1 for a in range(4)])
            found = found.take(low, axis) * (1 - part) + found.take(high, axis) * part
    if op.scale is not None and op.shift is not None:
        found = found * op.scale + op.shift
    if op.residual is not None:
        found = found + op.residual * x[1]
    return activate(found, op.activation).astype(x[0].dtype)


@_compute.register
def _(op: Correlate, x: Sequence[Values]) -> Values:
    (search, template) = (np.asarray(values[0], np.float64) for values in x)
    windows = np.lib.stride_tricks.sliding_window_view(search, template.shape[:2], axis=(0, 1))
    patches, sought = windows, np.moveaxis(template, -1, 0)
    if op.similarity == "pearson":
        patches = windows - windows.mean(axis=(-2, -1), keepdims=True)
        sought = sought - sought.mean(axis=(-2, -1), keepdims=True)
    products = (patches * sought).sum(axis=(-2, -1))
    norms = np.sqrt((patches**2).sum(axis=(-2, -1)) * (sought**2).sum(axis=(-2, -1)))
    return np.asarray(products / np.where(norms > 0, norms, np.inf))[np.newaxis]


@_compute.register
def _(op: Crop, x: Sequence[Values]) -> Values:
    return _cropped(x[0], op.margins)


@_compute.register
def _(op: Pad, x: Sequence[Values]) -> Values:
    return _padded(x[0], op.margins)


def _padded(x: Values, margins: Margins, value: float = 0) -> Values:
    return np.pad(x, (*margins, (0, 0)), constant_values=value)


def _cropped(x: Values, margins: Margins) -> Values:
    return x[tuple(slice(a, n - b) for (a, b), n in zip(margins, x.shape, strict=False))]
