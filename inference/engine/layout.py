"""Where the channels and voxels of every result lie in memory.

A buffer is [block of channels][z][y][x][lane], with a margin of zeros in y and x as wide as any
reader needs. Most results have a buffer of their own; those that a `Concat` joins in place are
parts of its buffer, and so are the parts of an image that are written or read with an offset.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from inference.engine.ops import Shape
from inference.native.structures import Tensor

_PAGE = 1024
_APART = 16
"""Floats."""


@dataclass
class Margin:
    """Zeros around an image, px."""

    before_y: int = 0
    after_y: int = 0
    before_x: int = 0
    after_x: int = 0

    def widen(self, other: Margin) -> None:
        """Make it at least as wide as another."""
        self.before_y = max(self.before_y, other.before_y)
        self.after_y = max(self.after_y, other.after_y)
        self.before_x = max(self.before_x, other.before_x)
        self.after_x = max(self.after_x, other.after_x)

    def __bool__(self) -> bool:
        """Whether there is one."""
        return bool(self.before_y or self.after_y or self.before_x or self.after_x)


@dataclass
class Buffer:
    """Memory for one result, or for several that are joined."""

    name: str
    blocks: int
    lanes: int
    size: tuple[int, int, int]
    margin: Margin = field(default_factory=Margin)
    origin: int = 0
    """Where it begins in the arena, floats."""

    @property
    def row(self) -> int:
        """Floats of a row with its margins."""
        return (self.margin.before_x + self.size[2] + self.margin.after_x) * self.lanes

    @property
    def plane(self) -> int:
        """Floats of a slice of one block."""
        return (self.margin.before_y + self.size[1] + self.margin.after_y) * self.row

    @property
    def block(self) -> int:
        """Floats of a block with all its slices, and some more.

        A kernel reads a pixel of all blocks in turn: whole pages apart, they would fall onto the
        same few lines of a cache.
        """
        floats = self.size[0] * self.plane
        return floats + (_APART if floats % _PAGE == 0 else 0)

    @property
    def floats(self) -> int:
        """All of them."""
        return self.blocks * self.block


@dataclass(frozen=True)
class Place:
    """Where one result lies in a buffer."""

    buffer: Buffer
    positions: NDArray[np.intp]
    """Of every channel, counted in lanes from the first block."""
    size: tuple[int, int, int]
    first_block: int = 0
    offset: tuple[int, int, int] = (0, 0, 0)
    """Of its first voxel in the buffer."""
    step: tuple[int, int, int] = (1, 1, 1)
    """From one of its voxels to the next."""

    @property
    def channels(self) -> int:
        """Channels with gaps."""
        return int(self.positions[-1]) + 1

    def tensor(self) -> Tensor:
        """Return it as the kernels see it; the buffer has its place by now."""
        b = self.buffer
        plane = b.plane
        z, y, x = self.offset
        start = self.first_block * b.block + z * plane
        start += (b.margin.before_y + y) * b.row + (b.margin.before_x + x) * b.lanes
        return Tensor(
            origin=b.origin + start,
            block=b.block,
            plane=plane * self.step[0],
            row=b.row * self.step[1],
            pixel=b.lanes * self.step[2],
            lanes=b.lanes,
            channels=self.channels,
            depth=self.size[0],
            height=self.size[1],
            width=self.size[2],
            before_y=b.margin.before_y,
            after_y=b.margin.after_y,
            before_x=b.margin.before_x,
            after_x=b.margin.after_x,
            external=-1,
        )

    def part(
        self,
        offset: tuple[int, int, int],
        size: tuple[int, int, int],
        step: tuple[int, int, int] = (1, 1, 1),
    ) -> Place:
        """Return voxels of it, the first at `offset`, `step` apart."""
        z, y, x = (a + b for a, b in zip(self.offset, offset, strict=True))
        return replace(self, offset=(z, y, x), size=size, step=step)


def own_place(name: str, shape: Shape, lanes: int) -> Place:
    """Return a buffer of its own for a result."""
    channels, *size = shape
    z, y, x = size
    buffer = Buffer(name, -(-channels // lanes), lanes, (z, y, x))
    return Place(buffer, np.arange(channels), (z, y, x))


def joined_places(name: str, shapes: list[Shape], lanes: int) -> tuple[Place, list[Place]]:
    """Return one buffer for several results, each from a new block on, and where these lie."""
    z, y, x = shapes[0][1:]
    blocks = [-(-shape[0] // lanes) for shape in shapes]
    buffer = Buffer(name, sum(blocks), lanes, (z, y, x))
    firsts = [sum(blocks[:n]) for n in range(len(blocks))]
    parts = [
        Place(buffer, np.arange(shape[0]), (z, y, x), first)
        for shape, first in zip(shapes, firsts, strict=True)
    ]
    positions = np.concatenate([p.positions + p.first_block * lanes for p in parts])
    return Place(buffer, positions, (z, y, x)), parts


def external(shape: Shape, index: int) -> Tensor:
    """Return an array of the caller's (z, y, x, channels)."""
    channels, z, y, x = shape
    return Tensor(
        origin=0,
        block=0,
        plane=y * x * channels,
        row=x * channels,
        pixel=channels,
        lanes=channels,
        channels=channels,
        depth=z,
        height=y,
        width=x,
        external=index,
    )
