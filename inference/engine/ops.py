"""The operations of a graph: what they hold, and what shape they make.

A shape is (channels, z, y, x), without the batch; images have z = 1. Triples are in the order
(z, y, x). Kernels are (z, y, x, channels in, channels out), as Keras has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inference.errors import ShapeError

Array = NDArray[np.float32]
Shape = tuple[int, int, int, int]
Triple = tuple[int, int, int]
Margins = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Voxels (before, after) of each axis."""

NO_MARGINS: Margins = ((0, 0), (0, 0), (0, 0))
ONES: Triple = (1, 1, 1)
Similarity = Literal["pearson", "cosine"]
"""Pearson's r, or without taking off the means, the cosine of the angle between two patches."""
Kind = Literal["linear", "relu", "leaky", "elu", "tanh", "sigmoid", "softmax"]


@dataclass(frozen=True)
class Activation:
    """A function of one value; softmax, of all channels of a voxel."""

    kind: Kind = "linear"
    alpha: float = 0.0
    """Slope of a leaky ReLU below 0; the limit of an ELU is -alpha."""

    @property
    def is_pointwise(self) -> bool:
        """Whether a value depends on no other channel."""
        return self.kind != "softmax"


LINEAR = Activation()


@dataclass(frozen=True, eq=False)
class Op:
    """Base of all operations."""

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the result."""
        return inputs[0]


@dataclass(frozen=True, eq=False)
class Input(Op):
    """What the caller gives."""

    size: Shape

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape that it was declared with."""
        return self.size


@dataclass(frozen=True, eq=False)
class Conv(Op):
    """activation(x * kernel + bias + residual * y), `y` being a second input if there is one."""

    kernel: Array
    bias: Array
    stride: Triple = ONES
    padding: Margins = NO_MARGINS
    """Zeros around x."""
    activation: Activation = LINEAR
    residual: Array | None = None
    """Factor of the second input by channel; None if there is no second input."""

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the result."""
        channels, *size = inputs[0]
        if channels != self.kernel.shape[3]:
            raise ShapeError(f"expected {self.kernel.shape[3]} channels, got {channels}")
        z, y, x = (
            (n + sum(p) - k) // s + 1
            for n, p, k, s in zip(
                size, self.padding, self.kernel.shape[:3], self.stride, strict=True
            )
        )
        found = (self.kernel.shape[4], z, y, x)
        if self.residual is not None and inputs[1] != found:
            raise ShapeError(f"{found} cannot be added to {inputs[1]}")
        return found


@dataclass(frozen=True, eq=False)
class TransposedConv(Op):
    """The gradient of a convolution: every voxel adds its kernel to the result, `stride` apart."""

    kernel: Array
    """(z, y, x, channels in, channels out)."""
    bias: Array
    stride: Triple
    crop: Margins
    """What is cut off the sum of all kernels; after may be negative: zeros are added."""
    activation: Activation = LINEAR

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the result."""
        channels, *size = inputs[0]
        if channels != self.kernel.shape[3]:
            raise ShapeError(f"expected {self.kernel.shape[3]} channels, got {channels}")
        z, y, x = (
            (n - 1) * s + k - sum(c)
            for n, c, k, s in zip(size, self.crop, self.kernel.shape[:3], self.stride, strict=True)
        )
        return self.kernel.shape[4], z, y, x


@dataclass(frozen=True, eq=False)
class Scale(Op):
    """activation(x * scale + shift) by channel: a batch normalisation with fixed statistics."""

    scale: Array
    shift: Array
    activation: Activation = LINEAR


@dataclass(frozen=True, eq=False)
class Activate(Op):
    """activation(x)."""

    activation: Activation


@dataclass(frozen=True, eq=False)
class Add(Op):
    """activation(x + y)."""

    activation: Activation = LINEAR

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the result."""
        if inputs[0] != inputs[1]:
            raise ShapeError(f"{inputs[0]} cannot be added to {inputs[1]}")
        return inputs[0]


@dataclass(frozen=True, eq=False)
class Concat(Op):
    """The channels of all inputs, one after another."""

    in_place: bool = False
    """Whether the inputs are written where the result lies, so that nothing is copied."""

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the result."""
        if any(shape[1:] != inputs[0][1:] for shape in inputs):
            raise ShapeError(f"cannot join the channels of {inputs}")
        return (sum(shape[0] for shape in inputs), *inputs[0][1:])


@dataclass(frozen=True, eq=False)
class Pool(Op):
    """Largest or mean value of a window; what lies beyond the border is left out."""

    kind: Literal["max", "average"]
    size: Triple
    stride: Triple
    padding: Margins = NO_MARGINS

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the result."""
        channels, *size = inputs[0]
        z, y, x = (
            (n + sum(p) - k) // s + 1
            for n, p, k, s in zip(size, self.padding, self.size, self.stride, strict=True)
        )
        return channels, z, y, x


@dataclass(frozen=True, eq=False)
class Resize(Op):
    """activation(scale * x + shift + residual * y), x being enlarged by whole factors."""

    factor: Triple
    kind: Literal["nearest", "linear"] = "nearest"
    """Linear resizing is that of pixels' centres: values at the rim are repeated."""
    activation: Activation = LINEAR
    residual: Array | None = None
    scale: Array | None = None
    shift: Array | None = None

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the result."""
        channels, *size = inputs[0]
        z, y, x = (n * f for n, f in zip(size, self.factor, strict=True))
        return channels, z, y, x


@dataclass(frozen=True, eq=False)
class Crop(Op):
    """x without its margins."""

    margins: Margins

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the result."""
        channels, *size = inputs[0]
        z, y, x = (n - sum(m) for n, m in zip(size, self.margins, strict=True))
        return channels, z, y, x


@dataclass(frozen=True, eq=False)
class Pad(Op):
    """x with zeros around it."""

    margins: Margins

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the result."""
        channels, *size = inputs[0]
        z, y, x = (n + sum(m) for n, m in zip(size, self.margins, strict=True))
        return channels, z, y, x


@dataclass(frozen=True, eq=False)
class Correlate(Op):
    """Normalised cross-correlation of a template, the second input, at every place of the first.

    For images, channel by channel; only as an output, see `inference.engine.heads`.
    """

    similarity: Similarity = "pearson"

    def shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the correlograms."""
        search, template = inputs
        is_flat = search[1] == template[1] == 1
        if (
            search[0] != template[0]
            or not is_flat
            or any(a < b for a, b in zip(search[2:], template[2:], strict=True))
        ):
            raise ShapeError(f"{template} cannot be searched in {search} (channels, z, y, x)")
        y, x = (a - b + 1 for a, b in zip(search[2:], template[2:], strict=True))
        return search[0], 1, y, x


def linear_taps(
    size: int, factor: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return the two values that each enlarged one lies between, and how near to the second."""
    places = (np.arange(size * factor) + 0.5) / factor - 0.5
    low = np.floor(places)
    part = places - low
    low, high = (np.clip(low + n, 0, size - 1).astype(np.intp) for n in (0, 1))
    return low, high, part
