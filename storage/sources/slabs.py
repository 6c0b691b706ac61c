"""Bands of sections out of volumes that are stored in blocks several sections deep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
from numpy.typing import NDArray

from storage.errors import CorruptError, SourceError
from storage.grid import ZYX, Box

SLAB_BYTES = 256 * 2**20
"""Slabs of sections up to this size are kept, so that their blocks are decoded once. Of larger
ones, a block is decoded again for each section that it holds."""

BLOCKS_AT_ONCE = 16
"""Blocks that are fetched at the same time, and the memory that decoding takes at most."""

Voxels = NDArray[np.uint8]


class Slabs:
    """Reads bands; keeps the last slab.

    Parameters
    ----------
    shape : tuple of int
        (nz, ny, nx) of the volume.
    depth : int
        Sections in a block.
    read : callable
        Returns the voxels of a `Box` inside the volume, uint8 (z, y, x).
    """

    def __init__(self, shape: ZYX, depth: int, read: Callable[[Box], Voxels]) -> None:
        self._shape = shape
        self._depth = depth
        self._read = read
        self._kept: tuple[int, Voxels] | None = None

    def read_rows(self, z: int, y0: int, y1: int) -> Voxels:
        """Return rows [y0, y1) of section `z`, (y1 - y0, nx)."""
        _, ny, nx = self._shape
        if self._depth > 1 and self._depth * ny * nx <= SLAB_BYTES:
            kept = self._slab(z - z % self._depth)
            if kept is not None:
                return np.array(kept[z % self._depth, y0:y1])
        return self._read(Box((z, y0, 0), (z + 1, y1, nx), 0))[0]

    def _slab(self, first: int) -> Voxels | None:
        """Return the slab that begins at z, or None if a part of it cannot be read."""
        kept = self._kept  # one look: another thread may replace it
        if kept is None or kept[0] != first:
            nz, ny, nx = self._shape
            try:
                box = Box((first, 0, 0), (min(first + self._depth, nz), ny, nx), 0)
                kept = (first, self._read(box))
            except (CorruptError, SourceError):
                return None
            self._kept = kept
        return kept[1]


def read_blocks(box: Box, block: ZYX, load: Callable[[ZYX], Voxels | None]) -> Voxels:
    """Return the voxels of `box` out of a grid of blocks.

    Parameters
    ----------
    block : tuple of int
        (z, y, x) of a block; those at the volume's far edges may be smaller.
    load : callable
        Returns the block of an index (z, y, x), or None where there is none: no data.
    """
    voxels = np.zeros(box.shape, np.uint8)

    def place(index: ZYX) -> None:
        found = load(index)
        if found is not None:
            corner = tuple(i * b for i, b in zip(index, block, strict=True))
            start = tuple(max(a, c) for a, c in zip(box.start, corner, strict=True))
            stop = tuple(
                min(b, c + n) for b, c, n in zip(box.stop, corner, found.shape, strict=True)
            )
            voxels[_slices(start, stop, box.start)] = found[_slices(start, stop, corner)]

    with ThreadPoolExecutor(BLOCKS_AT_ONCE) as threads:
        for _ in threads.map(place, _touched(box, block)):
            pass
    return voxels


def _touched(box: Box, block: ZYX) -> Iterator[ZYX]:
    spans = zip(box.start, box.stop, block, strict=True)
    return product(*(range(a // n, -(-b // n)) for a, b, n in spans))


def _slices(start: ZYX, stop: ZYX, origin: ZYX) -> tuple[slice, ...]:
    return tuple(slice(a - o, b - o) for a, b, o in zip(start, stop, origin, strict=True))
