"""Write a graph layer by layer: what all readers of networks share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from inference.engine import bounds
from inference.engine.graph import Graph, Node
from inference.engine.ops import (
    LINEAR,
    NO_MARGINS,
    ONES,
    Activate,
    Activation,
    Array,
    Conv,
    Input,
    Margins,
    Op,
    Pad,
    Shape,
    Triple,
)
from inference.errors import ShapeError


class Builder:
    """Collects nodes; a result is known by its node's name.

    Zeros around an image, and activations, become nodes of their own: passes fuse them.

    Parameters
    ----------
    is_flat : bool
        Whether the network is one of images (y, x, channel), without z.
    """

    def __init__(self, *, is_flat: bool = False) -> None:
        self.is_flat = is_flat
        self._nodes: dict[str, Node] = {}
        self._shapes: dict[str, Shape] = {}

    def add(self, name: str, op: Op, *inputs: str) -> str:
        """Add a node, under another name if this one is taken, and return its name."""
        name = self._free(name)
        try:
            self._shapes[name] = op.shape(*(self._shapes[i] for i in inputs))
            bounds.check(op, self._shapes[name])
        except ShapeError as error:
            raise ShapeError(f"layer {name!r}: {error}") from error
        self._nodes[name] = Node(name, op, inputs)
        return name

    def _free(self, name: str) -> str:
        count = 1
        while (free := name if count == 1 else f"{name}#{count}") in self._nodes:
            count += 1
        return free

    def input(self, name: str, size: Shape) -> str:
        """Add an input of (channels, z, y, x)."""
        return self.add(name, Input(size))

    def shape(self, name: str) -> Shape:
        """Return the shape of a result."""
        return self._shapes[name]

    def padded(self, name: str, x: str, margins: Margins) -> str:
        """Put zeros around x."""
        return x if margins == NO_MARGINS else self.add(f"{name}/pad", Pad(margins), x)

    def same(self, x: str, sides: Triple, stride: Triple) -> Margins:
        """Return the margins of TensorFlow's padding "same"."""
        margins = []
        for n, k, s in zip(self._shapes[x][1:], sides, stride, strict=True):
            total = max((-(-n // s) - 1) * s + k - n, 0)
            margins.append((total // 2, total - total // 2))
        return margins[0], margins[1], margins[2]

    def activated(self, name: str, x: str, activation: Activation) -> str:
        """Apply an activation as a node of its own."""
        return x if activation == LINEAR else self.add(name, Activate(activation), x)

    def conv(
        self,
        name: str,
        x: str,
        kernel: ArrayLike,
        bias: ArrayLike | None = None,
        *,
        stride: Triple = ONES,
        padding: Margins | str = "valid",
        activation: Activation = LINEAR,
    ) -> str:
        """Add a convolution with its zeros before it and its activation behind it."""
        weights = np.asarray(kernel, np.float32)
        zeros = np.zeros(weights.shape[4], np.float32)
        margins = self._margins(x, padding, weights, stride)
        op = Conv(weights, zeros if bias is None else _float32(bias), stride)
        done = self.add(name, op, self.padded(name, x, margins))
        return self.activated(f"{name}/{activation.kind}", done, activation)

    def _margins(self, x: str, padding: Margins | str, kernel: Array, stride: Triple) -> Margins:
        if padding == "same":
            sides = (kernel.shape[0], kernel.shape[1], kernel.shape[2])
            return self.same(x, sides, stride)
        return NO_MARGINS if isinstance(padding, str) else padding

    def graph(self, outputs: Sequence[str]) -> Graph:
        """Return what was written, without what no output needs."""
        nodes = tuple(self._nodes.values())
        return Graph(nodes, tuple(outputs), is_flat=self.is_flat).with_nodes(nodes)


def _float32(values: ArrayLike) -> Array:
    return np.asarray(values, np.float32)
