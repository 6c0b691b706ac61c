"""What the objects of an array may hold: their sizes, and the index of zarr's sharding codec.

A shard ends in one (offset, length) pair of uint64 per inner chunk, in C order, and the index's
crc32c; both numbers are 2**64 - 1 for a chunk that is absent. Specification:
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from storage.commit.tails import PlacedTails
from storage.limits import inflated_bytes

_ABSENT = np.iinfo(np.uint64).max
_COALESCED_BYTES = 16 * 2**20
"""What zarr reads in one request for neighbouring chunks of a shard."""


@dataclass(frozen=True)
class ShardLayout:
    """Which inner chunks each shard of an array must hold, and how large it can be.

    An array without shards has `shard` equal to `chunk`.
    """

    shape: tuple[int, ...]
    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    itemsize: int = 1
    indexed: bool = True
    """Whether the objects end in an index as described above."""
    tails: PlacedTails | None = None
    """What the objects must end in, if the run that they are of says so."""

    @property
    def chunks_per_shard(self) -> tuple[int, ...]:
        """Size of a shard's index, in inner chunks."""
        return tuple(s // c for s, c in zip(self.shard, self.chunk, strict=True))

    @property
    def index_bytes(self) -> int:
        """Offset and length of each chunk as uint64, and a crc32c."""
        return 16 * prod(self.chunks_per_shard) + 4

    @property
    def max_object_bytes(self) -> int:
        """More than any encoding of a whole shard takes."""
        return inflated_bytes(prod(self.shard) * self.itemsize) + 32 * prod(self.chunks_per_shard)

    @property
    def max_part_bytes(self) -> int:
        """More than one request for a part of a shard asks for: chunks, or the index."""
        chunk = inflated_bytes(prod(self.chunk) * self.itemsize)
        return max(chunk, _COALESCED_BYTES, self.index_bytes)

    def absent(self, index: bytes, position: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the inner chunks (positions in the array's chunk grid) that a shard lacks.

        Chunks that lie wholly outside the array may be absent: nobody reads them.
        """
        entries = np.frombuffer(index[:-4], "<u8").reshape(*self.chunks_per_shard, 2)
        missing = (entries == _ABSENT).all(axis=-1)
        if not missing.any():
            return []
        first = [p * n for p, n in zip(position, self.chunks_per_shard, strict=True)]
        inside = tuple(
            slice(0, max(-(-n // c) - f, 0))
            for n, c, f in zip(self.shape, self.chunk, first, strict=True)
        )
        return [
            tuple(int(f + i) for f, i in zip(first, found, strict=True))
            for found in np.argwhere(missing[inside])
        ]
