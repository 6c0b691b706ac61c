"""Which bytes of which objects a box of an array needs: zarr's arithmetic, without its reading.

Specification: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from storage.grid import Box
from storage.shards import ShardLayout

_ABSENT = int(np.iinfo(np.uint64).max)


@dataclass(frozen=True)
class Needs:
    """The layout of one array, as far as it tells where a box lies.

    `layout` is None where chunks are objects of their own, or lie in shards whose index is not at
    the end or not plain; then whole objects are needed.
    """

    shape: tuple[int, ...]
    unit: tuple[int, ...]
    encode: Callable[[tuple[int, ...]], str]
    layout: ShardLayout | None

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> Needs:
        """Return the layout of an open array."""
        layout = getattr(array.store, "layout", None)
        if layout is not None and not layout.indexed:
            layout = None
        unit = tuple(array.shards or array.chunks)
        return cls(array.shape, unit, array.metadata.encode_chunk_key, layout)

    def objects(self, box: Box) -> list[tuple[str, tuple[int, ...]]]:
        """Return key and grid position of the objects that the box meets."""
        inside = box.clip(self.shape)
        if 0 in inside.shape:
            return []
        return [(self.encode(position), position) for position in _grid(inside, self.unit)]

    @cached_property
    def index_bytes(self) -> int:
        """How long the index at an object's end is; 0 if there is none."""
        return 0 if self.layout is None else self.layout.index_bytes

    def entries(self, index: NDArray[np.uint8]) -> NDArray[np.uint64]:
        """Return offset and length of each chunk of a shard, from the bytes of its index."""
        if self.layout is None:
            return np.empty(0, np.uint64)
        return index[:-4].view("<u8").reshape(*self.layout.chunks_per_shard, 2)

    def parts(
        self, box: Box, position: tuple[int, ...], entries: NDArray[np.uint64]
    ) -> list[tuple[int, int | None]]:
        """Return first and last byte of what a box needs of an object, its index before all."""
        if self.layout is None:
            return [(0, None)]
        parts: list[tuple[int, int | None]] = [(-self.index_bytes, None)]
        inside = _within(box.clip(self.shape), position, self.unit)
        for chunk in _grid(inside, self.layout.chunk):
            offset, length = entries[chunk].tolist()
            if offset != _ABSENT:
                parts.append((offset, offset + length))
        return parts


def _within(box: Box, position: tuple[int, ...], unit: tuple[int, ...]) -> Box:
    """Return the part of a box that lies in a shard, relative to the shard's corner."""
    corner = tuple(p * u for p, u in zip(position, unit, strict=True))
    start = tuple(a - c for a, c in zip(box.start, corner, strict=True))
    stop = tuple(b - c for b, c in zip(box.stop, corner, strict=True))
    return Box(start, stop, box.mip).clip(unit)


def _grid(box: Box, unit: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    ranges = zip(box.start, box.stop, unit, strict=True)
    return product(*(range(a // u, -(-b // u)) for a, b, u in ranges))
