"""Voxel boxes and grids of chunks: where data lies. Nothing here knows what the voxels mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from storage.errors import ChunkGridError, MismatchError

ZYX = tuple[int, ...]  # always three: z, y, x
Region = tuple[slice, ...]  # one slice per axis, for arrays of any number of axes


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """Half-open box [start, stop) of voxels at one mip."""

    start: ZYX
    stop: ZYX
    mip: int

    @property
    def shape(self) -> ZYX:
        """Extent (nz, ny, nx); an empty axis has 0.

        >>> Box((7, 2, 4), (8, 4, 8), mip=1).shape
        (1, 2, 4)
        """
        return tuple(max(b - a, 0) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as numpy indices; only for boxes that lie inside their array."""
        (z0, y0, x0), (z1, y1, x1) = self.start, self.stop
        return slice(z0, z1), slice(y0, y1), slice(x0, x1)

    @property
    def z(self) -> int:
        """The first section."""
        return self.start[0]

    @property
    def label(self) -> str:
        """A short name that is safe in object keys and unique within one grid.

        >>> Box((7, 0, 2048), (8, 2048, 4096), mip=1).label
        'm1_z7_y0_x2048'
        """
        z, y, x = self.start
        return f"m{self.mip}_z{z}_y{y}_x{x}"

    def finer(self) -> Box:
        """Return the box of mip - 1 that covers the same tissue.

        >>> Box((7, 2, 4), (8, 4, 8), mip=1).finer()
        Box(start=(7, 4, 8), stop=(8, 8, 16), mip=0)
        """
        (z0, y0, x0), (z1, y1, x1) = self.start, self.stop
        return Box((z0, 2 * y0, 2 * x0), (z1, 2 * y1, 2 * x1), self.mip - 1)

    def coarser(self) -> Box:
        """Return the box of mip + 1 that shows the same tissue; it must begin at even y and x.

        >>> Box((7, 4, 8), (8, 7, 16), mip=0).coarser()
        Box(start=(7, 2, 4), stop=(8, 4, 8), mip=1)

        Raises
        ------
        ChunkGridError
            If it does not: another box would hold the rest of its first pixel.
        """
        (z0, y0, x0), (z1, y1, x1) = self.start, self.stop
        if y0 % 2 or x0 % 2:
            raise ChunkGridError(f"{self} begins within a pixel of mip {self.mip + 1}")
        return Box((z0, y0 // 2, x0 // 2), (z1, -(-y1 // 2), -(-x1 // 2)), self.mip + 1)

    def grow(self, halo: ZYX) -> Box:
        """Return the box with a margin on both sides of each axis; it may leave the array."""
        start = tuple(a - h for a, h in zip(self.start, halo, strict=True))
        stop = tuple(b + h for b, h in zip(self.stop, halo, strict=True))
        return Box(start, stop, self.mip)

    def overlaps(self, other: Box) -> bool:
        """Return whether the boxes share a voxel.

        >>> Box((0, 0, 0), (1, 4, 4), mip=0).overlaps(Box((0, 4, 0), (1, 8, 4), mip=0))
        False
        """
        ends = zip(self.start, self.stop, other.start, other.stop, strict=True)
        return all(a < d and c < b for a, b, c, d in ends)

    def clip(self, shape: ZYX) -> Box:
        """Return the part that lies inside an array of `shape`; empty axes get start == stop.

        >>> Box((0, -3, 5), (1, 4, 9), mip=0).clip((1, 8, 8))
        Box(start=(0, 0, 5), stop=(1, 4, 8), mip=0)
        """
        start = tuple(min(max(a, 0), n) for a, n in zip(self.start, shape, strict=True))
        stop = tuple(max(min(b, n), a) for a, b, n in zip(start, self.stop, shape, strict=True))
        return Box(start, stop, self.mip)


def tile(shape: ZYX, block: ZYX, *, mip: int) -> Iterator[Box]:
    """Yield boxes that cover `shape` once; those at the far edges are clipped."""
    for corner in product(*(range(0, n, b) for n, b in zip(shape, block, strict=True))):
        stop = tuple(min(c + b, n) for c, b, n in zip(corner, block, shape, strict=True))
        yield Box(corner, stop, mip)


def cut_grid(
    shape: tuple[int, ...], chunk: tuple[int, ...], shard: tuple[int, ...] | None
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return chunk and shard for an array of `shape`, cut where the array is smaller.

    A chunk is cut to the array, a shard to the smallest multiple of its chunk that covers the
    array; None for the shard means that it would hold a single chunk.

    >>> cut_grid((30, 600, 300), (1, 512, 512), (1, 4096, 4096))
    ((1, 512, 300), (1, 1024, 300))
    >>> cut_grid((30, 300, 300), (1, 512, 512), (1, 4096, 4096))
    ((1, 300, 300), None)

    Raises
    ------
    ChunkGridError
        If the axes do not agree in number, a size is below 1, or a shard is not a whole number
        of chunks.
    """
    if not len(shape) == len(chunk) == len(shard or chunk):
        raise ChunkGridError(f"shape {shape}, chunk {chunk} and shard {shard} differ in their axes")
    if any(n < 1 for n in (*shape, *chunk, *(shard or ()))):
        raise ChunkGridError(f"shape {shape}, chunk {chunk} and shard {shard} must be 1 or more")
    if shard is not None and any(s % c for s, c in zip(shard, chunk, strict=True)):
        raise ChunkGridError(
            f"shard {shard} is not a whole number of chunks {chunk} in each axis; make the shard "
            "in the configuration's section `volume` a multiple of its chunk"
        )
    small = tuple(min(c, n) for c, n in zip(chunk, shape, strict=True))
    if shard is None:
        return small, None
    cut = tuple(s if s < n else -(-n // c) * c for s, c, n in zip(shard, small, shape, strict=True))
    return small, (None if cut == small else cut)


def region_box(shape: tuple[int, ...], region: Region) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return start and stop of a region that lies inside an array.

    >>> region_box((4, 100), (slice(None), slice(0, 64)))
    ((0, 0), (4, 64))

    Raises
    ------
    MismatchError
        If there is not one slice per axis, a slice has a step, or it leaves the array.
    """
    if len(region) != len(shape) or any(s.step not in (None, 1) for s in region):
        raise MismatchError(f"expected {len(shape)} slices without a step, got {region}")
    start = tuple(0 if s.start is None else int(s.start) for s in region)
    stop = tuple(n if s.stop is None else int(s.stop) for s, n in zip(region, shape, strict=True))
    if not all(0 <= a <= b <= n for a, b, n in zip(start, stop, shape, strict=True)):
        raise MismatchError(f"{show_region(start, stop)} does not lie inside the array {shape}")
    return start, stop


def torn_axes(
    start: tuple[int, ...], stop: tuple[int, ...], unit: tuple[int, ...], shape: tuple[int, ...]
) -> list[int]:
    """Return the axes along which a region is empty or covers part of a unit.

    Ending at the array's edge is whole.

    >>> torn_axes((0, 64), (4, 90), (4, 64), (4, 100))
    [1]
    """
    return [
        axis
        for axis, (a, b, u, n) in enumerate(zip(start, stop, unit, shape, strict=True))
        if a == b or a % u or (b % u and b != n)
    ]


def show_region(start: tuple[int, ...], stop: tuple[int, ...]) -> str:
    """Return a region as it is written in Python.

    >>> show_region((0, 64), (4, 90))
    '[0:4, 64:90]'
    """
    return "[" + ", ".join(f"{a}:{b}" for a, b in zip(start, stop, strict=True)) + "]"
