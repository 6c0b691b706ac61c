"""Which kernel computes a convolution, and how: what can be chosen, and what it should cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from inference.engine.ops import ONES, Conv, Shape
from inference.engine.winograd import KERNELS

_BLOCKS = {
    16: ((1, 16), (2, 12), (3, 8), (4, 6), (5, 5), (1, 8), (2, 6), (3, 4), (4, 3)),
    8: ((1, 8), (2, 6), (3, 4), (1, 4), (2, 3), (3, 2)),
}
_BLOCKS[4] = _BLOCKS[8]
"""Blocks of registers (vectors of channels, pixels) by lanes, as compiled in `blocks.hpp`."""

_SCRATCH_BYTES = (160_000, 320_000, 640_000, 2_500_000, 5_000_000)
"""What transformed tiles may take: parts of a second-level cache, or of the third, which pays where
there are so many weights that few tiles at a time would wait for them."""

_ANY = float("inf")
_WEIGHTS = ((256_000, 0.5), (2_500_000, 1.0), (_ANY, 4.0))
"""Of so many bytes of weights at most, 32 take so many cycles to come; found on Zen 3."""
_IMAGES = ((256_000, 0.0), (1_000_000, 0.5), (3_000_000, 1.0), (6_000_000, 1.5), (_ANY, 4.0))
"""Likewise of transformed tiles, beyond what products take anyway."""

_APART = 16
"""Floats between the places of a transform, `kApart` in `winograd.cpp`."""


@dataclass(frozen=True)
class Choice:
    """How one convolution is computed."""

    kernel: Literal["direct", "winograd"]
    vectors: int
    """Vectors of output channels in a block of registers."""
    pixels: int
    """Pixels, or tiles, in it."""
    tile: int = 0
    """Side of an output tile of Winograd's."""
    tiles: int = 0
    """Tiles that are transformed together."""
    slices: int = 1
    """Slices of the result that are computed together; 2 takes 4 products for 6."""

    def in_words(self) -> str:
        """Return it for a plan."""
        block = f"{self.vectors} x {self.pixels} registers"
        if self.kernel == "direct":
            return f"direct, {block}"
        pair = "2 x " if self.slices == 2 else ""
        return f"Winograd F({pair}{self.tile} x {self.tile}), {block}, {self.tiles} tiles"

    def as_json(self) -> dict[str, Any]:
        """Return it for a cache."""
        return asdict(self)


@dataclass(frozen=True)
class Work:
    """A convolution, as far as its cost depends on it."""

    inputs: int
    """Channels in memory, with gaps."""
    outputs: int
    sides: tuple[int, int, int]
    stride: tuple[int, int, int]
    size: tuple[int, int, int]
    """Of the result, (z, y, x)."""
    lanes: int
    is_plain: bool
    """Whether the input's channels are apart, as the caller's single channel is."""
    is_residual: bool
    activation: str

    @property
    def flops(self) -> float:
        """Multiplications and additions, without padding."""
        z, y, x = self.size
        taps = self.sides[0] * self.sides[1] * self.sides[2]
        return 2.0 * z * y * x * taps * self.inputs * self.outputs


def work_of(op: Conv, result: Shape, lanes: int, inputs: int, *, is_plain: bool) -> Work:
    """Describe a convolution."""
    z, y, x = op.kernel.shape[:3]
    return Work(
        inputs,
        op.kernel.shape[4],
        (z, y, x),
        op.stride,
        (result[1], result[2], result[3]),
        lanes,
        is_plain,
        op.residual is not None,
        op.activation.kind,
    )


def _parts(whole: int, size: int) -> int:
    """Return how many parts of a size make up the whole."""
    return -(-whole // size)


def candidates(work: Work, *, largest_tile: int = 4) -> list[Choice]:
    """Return what may compute a convolution, the cheapest by formula first.

    Winograd's tiles are up to `largest_tile` wide; with 1, only direct sums are left.
    """
    found = [Choice("direct", v, m) for v, m in _blocks(work)]
    found += [
        Choice("winograd", v, m, tile, tiles, slices)
        for tile in _tiles_of(work)
        if tile <= largest_tile
        for slices in _slices_of(work)
        for v, m in _blocks(work)
        for tiles in _numbers_of_tiles(work, v, m, tile, slices)
    ]
    return sorted(found, key=lambda choice: cost(work, choice))


def _blocks(work: Work) -> list[tuple[int, int]]:
    """Return blocks that waste no whole vector more than another does."""
    vectors = _parts(work.outputs, work.lanes)
    return [(v, m) for v, m in _BLOCKS[work.lanes] if v == 1 or v <= vectors]


def _tiles_of(work: Work) -> list[int]:
    _, height, width = work.sides
    if work.stride != ONES or height != width or work.is_plain:
        return []
    return [tile for tile, taps in KERNELS if taps == height]


def _slices_of(work: Work) -> tuple[int, ...]:
    return (1, 2) if work.sides[0] == 3 and work.size[0] > 1 else (1,)


def _numbers_of_tiles(work: Work, vectors: int, pixels: int, tile: int, slices: int) -> list[int]:
    places = (tile + work.sides[1] - 1) ** 2
    lanes = work.lanes
    blocks_in = _parts(work.inputs, lanes)
    each = 4 * places * lanes * ((work.sides[0] + slices - 1) * blocks_in + slices * vectors)
    _, y, x = work.size
    most = _parts(_parts(y, tile) * _parts(x, tile), pixels) * pixels
    found = {max(pixels, min(n // each // pixels * pixels, most)) for n in _SCRATCH_BYTES}
    return sorted(found)


def cost(work: Work, choice: Choice) -> float:
    """Return roughly the cycles of one core that a convolution takes."""
    z, y, x = work.size
    lanes, (depth, height, width) = work.lanes, work.sides
    blocks_out = _parts(work.outputs, lanes)
    vectors = _parts(blocks_out, choice.vectors) * choice.vectors
    load = 1 + 0.35 / choice.vectors + 0.5 / choice.pixels  # of operands, beside each product
    stored = z * y * x * -(-work.outputs // lanes)
    ending = stored * (
        4 + 3 * work.is_residual + (1 if work.activation in ("linear", "relu") else 14)
    )
    if choice.kernel == "direct":
        columns = -(-x // choice.pixels) * choice.pixels
        return (
            z * y * columns * vectors * work.inputs * depth * height * width * load * 1.1 + ending
        )
    tile, places = choice.tile, (choice.tile + height - 1) ** 2
    number = _parts(_parts(y, tile) * _parts(x, tile), choice.pixels) * choice.pixels
    steps = _parts(z, choice.slices)  # along z
    taps = depth + choice.slices - 1
    products = steps * places * number * vectors * taps * work.inputs * load
    blocks_in = _parts(work.inputs, lanes)
    weights = places * taps * work.inputs * vectors
    images = places * taps * blocks_in * min(choice.tiles, number)
    wide = lanes / 8  # times 32 bytes
    again = wide * _cycles(images * lanes, _IMAGES)  # for every group of channels of the result
    groups = vectors // choice.vectors
    pieces = steps * _parts(number, choice.tiles)
    refilled = wide * _cycles(weights * lanes, _WEIGHTS) * weights * pieces
    transforms = z * number * places * (5.0 * blocks_in + 5.0 * vectors)
    if choice.slices == 2:  # sums of four slices, for each group of channels, and of products
        transforms += steps * number * places * (12.0 * blocks_in * groups + 8.0 * vectors)
        again *= 4.0  # sums of slices are written between them
    refilled += again * steps * places * taps * blocks_in * number * groups
    return products + refilled + transforms + ending


def _cycles(floats: float, of: tuple[tuple[float, float], ...]) -> float:
    """Return the cycles until 32 bytes come, of so many floats that are read in turn."""
    return next(cycles for most, cycles in of if 4 * floats <= most)


def scratch_floats(work: Work, choice: Choice) -> int:
    """Return the memory that a thread needs for transformed tiles."""
    if choice.kernel == "direct":
        return 0
    places = (choice.tile + work.sides[1] - 1) ** 2
    lanes, number = work.lanes, _parts(choice.tiles, choice.pixels) * choice.pixels
    blocks_in = _parts(work.inputs, lanes)
    ring, slices = work.sides[0] + choice.slices - 1, choice.slices
    each = ring * (number * blocks_in * lanes + _APART)
    each += slices * (number * choice.vectors * lanes + _APART)
    sums = ring * blocks_in * choice.pixels * lanes if slices == 2 else 0
    return places * each + sums
