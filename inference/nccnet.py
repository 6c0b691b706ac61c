"""NCCNet: a residual U-Net that makes sections easier to match, described once.

The published network: residual blocks of five 3 x 3 convolutions, 2 x 2 max-pools down, nearest
resizing with a 2 x 2 convolution up, skips that are *added*, tanh after every convolution, zeros
beyond the border, and a 1 x 1 convolution to the output channels. It is siamese by use: one
network, with one set of weights, makes the search image and the template.

`layers` is the description. Whoever reads it brings the operations: Keras and OpenVINO
(`inference.backends`) build the network, and here it yields the shapes of its weights, and exactly
which pixels an output depends on. So these can't disagree.

References
----------
.. [1] D. Buniatyan et al., "Deep Learning Improves Template Matching by Normalized Cross
   Correlation", arXiv:1705.08593, 2017.
.. [2] T. M. Quan et al., "FusionNet: a deep fully residual convolutional neural network for image
   segmentation in connectomics", arXiv:1612.05360, 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from inference.config import NCCNetConfig
from inference.errors import ShapeError


class Operations[T](Protocol):
    """What a reader of the description does at each step; `T` is its kind of feature map."""

    def scale(self, x: T, zero: float, unit: float) -> T:
        """Return (x - zero) / unit."""

    def conv(self, x: T, name: str, side_px: int, channels: int) -> T:
        """Return tanh of the convolution `name`; of an even side the last row lies beyond."""

    def pool(self, x: T) -> T:
        """Return the largest of each 2 x 2 square."""

    def enlarge(self, x: T) -> T:
        """Repeat each pixel 2 x 2 times."""

    def add(self, x: T, y: T) -> T:
        """Return x + y."""


def layers[T](x: T, config: NCCNetConfig, ops: Operations[T]) -> list[T]:
    """Apply the network to grey values `x`.

    Returns
    -------
    list
        The decoder's feature maps, the coarsest first and the finest last but one, then the output.
    """
    x = ops.scale(x, config.grey_zero, config.grey_unit)
    skips: list[T] = []
    for level, width in enumerate(config.widths):
        if level:
            x = ops.pool(x)
        x = _residual_block(x, f"down{level}", width, ops)
        skips.append(x)
    decoded = [x]
    for level, width in reversed(list(enumerate(config.widths[:-1]))):
        x = ops.conv(ops.enlarge(x), f"up{level}_resized", 2, width)
        x = _residual_block(ops.add(x, skips[level]), f"up{level}", width, ops)
        decoded.append(x)
    return [*decoded, ops.conv(x, "output", 1, config.channels)]


def _residual_block[T](x: T, name: str, width: int, ops: Operations[T]) -> T:
    x = first = ops.conv(x, f"{name}_1", 3, width)
    for n in (2, 3, 4):
        x = ops.conv(x, f"{name}_{n}", 3, width)
    return ops.conv(ops.add(x, first), f"{name}_5", 3, width)


def check_sides(sides_px: tuple[int, int], config: NCCNetConfig) -> None:
    """Check that the network takes images of sides (y, x).

    Raises
    ------
    ShapeError
        If a side is not a multiple of the coarsest level's pixel.
    """
    if any(n % config.step_px for n in sides_px):
        raise ShapeError(
            f"with {len(config.widths)} levels the sides of images must be multiples of "
            f"{config.step_px} px, got {sides_px[0]} x {sides_px[1]}; crop them, or run the "
            "network through inference.tiling, which takes any size"
        )


# --------------------------------------------------------------------------- weights


def weight_shapes(config: NCCNetConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight by name: kernels (h, w, cin, cout), and biases.

    >>> sum(int(np.prod(shape)) for shape in weight_shapes(NCCNetConfig()).values())
    292281
    """
    reader = _Shapes({})
    layers(1, config, reader)
    return reader.found


@dataclass(frozen=True)
class _Shapes:
    """Reads the description with numbers of channels for feature maps."""

    found: dict[str, tuple[int, ...]]

    def scale(self, x: int, zero: float, unit: float) -> int:
        return x

    def conv(self, x: int, name: str, side_px: int, channels: int) -> int:
        self.found[f"{name}/kernel"] = (side_px, side_px, x, channels)
        self.found[f"{name}/bias"] = (channels,)
        return channels

    def pool(self, x: int) -> int:
        return x

    def enlarge(self, x: int) -> int:
        return x

    def add(self, x: int, y: int) -> int:
        return x


# --------------------------------------------------------------------------- what it sees


class Halo(NamedTuple):
    """How far along an axis an output pixel sees, px; the same for y and x."""

    before: int
    after: int


def halo_px(config: NCCNetConfig) -> Halo:
    """Return the margin that an output depends on, exactly.

    An output pixel p is a function of the pixels p - before to p + after, and some output is one of
    each end. The two differ by the convolutions of an even side.

    >>> halo_px(NCCNetConfig(widths=(8,)))  # five convolutions of 3 x 3
    Halo(before=5, after=5)
    """
    step = config.step_px
    pixels = np.arange(step)
    seen = layers(_Seen(pixels, pixels, step), config, _Intervals())[-1]
    return Halo(int((pixels - seen.first).max()), int((seen.last - pixels).max()))


@dataclass(frozen=True)
class _Seen:
    """The first and last input pixel that a pixel of a feature map depends on.

    Of as many pixels as make up one pixel of the coarsest level, `step` input pixels; all others
    are these, moved.
    """

    first: NDArray[np.int_]
    last: NDArray[np.int_]
    step: int

    def at(self, pixels: NDArray[np.int_]) -> _Seen:
        """Return what other pixels of the same feature map depend on."""
        turns, within = np.divmod(pixels, len(self.first))
        first, last = (ends[within] + turns * self.step for ends in (self.first, self.last))
        return _Seen(first, last, self.step)

    def join(self, other: _Seen) -> _Seen:
        """Return what depends on both."""
        first, last = np.minimum(self.first, other.first), np.maximum(self.last, other.last)
        return _Seen(first, last, self.step)


class _Intervals:
    """Reads the description with intervals for feature maps."""

    def scale(self, x: _Seen, zero: float, unit: float) -> _Seen:
        return x

    def conv(self, x: _Seen, name: str, side_px: int, channels: int) -> _Seen:
        pixels = np.arange(len(x.first))
        return x.at(pixels - (side_px - 1) // 2).join(x.at(pixels + side_px // 2))

    def pool(self, x: _Seen) -> _Seen:
        pixels = 2 * np.arange(len(x.first) // 2)
        return x.at(pixels).join(x.at(pixels + 1))

    def enlarge(self, x: _Seen) -> _Seen:
        return x.at(np.arange(2 * len(x.first)) // 2)

    def add(self, x: _Seen, y: _Seen) -> _Seen:
        return x.join(y)
