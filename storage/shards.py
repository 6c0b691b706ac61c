"""What a shard must hold: the index of zarr's sharding codec, read without zarr.

A shard ends in one (offset, length) pair of uint64 per inner chunk, in C order, and the index's
crc32c; both numbers are 2**64 - 1 for a chunk that is absent. Specification:
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

_ABSENT = np.iinfo(np.uint64).max


@dataclass(frozen=True)
class ShardLayout:
    """Which inner chunks each shard of an array must hold; the index lies at the shard's end."""

    shape: tuple[int, ...]
    shard: tuple[int, ...]
    chunk: tuple[int, ...]

    @property
    def chunks_per_shard(self) -> tuple[int, ...]:
        """Size of a shard's index, in inner chunks."""
        return tuple(s // c for s, c in zip(self.shard, self.chunk, strict=True))

    @property
    def index_bytes(self) -> int:
        """Offset and length of each chunk as uint64, and a crc32c."""
        return 16 * prod(self.chunks_per_shard) + 4

    def absent(self, index: bytes, position: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the inner chunks (positions in the array's chunk grid) that a shard lacks.

        Chunks that lie wholly outside the array may be absent: nobody reads them.
        """
        entries = np.frombuffer(index[:-4], "<u8").reshape(*self.chunks_per_shard, 2)
        missing = (entries == _ABSENT).all(axis=-1)
        first = [p * n for p, n in zip(position, self.chunks_per_shard, strict=True)]
        inside = tuple(
            slice(0, max(-(-n // c) - f, 0))
            for n, c, f in zip(self.shape, self.chunk, first, strict=True)
        )
        return [
            tuple(int(f + i) for f, i in zip(first, found, strict=True))
            for found in np.argwhere(missing[inside])
        ]
