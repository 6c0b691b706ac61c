"""What the objects of an array may hold: their sizes, and the index of zarr's sharding codec.

A shard ends in one (offset, length) pair of uint64 per inner chunk, in C order, and the index's
crc32c; both numbers are 2**64 - 1 for a chunk that is absent. Specification:
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import google_crc32c
import numpy as np

from storage.commit.tails import PlacedTails
from storage.limits import inflated_bytes

_ABSENT = np.iinfo(np.uint64).max
_ARRANGED_CHUNKS = 8
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
    sound: bool = False
    """Whether each chunk ends in a crc32c, so that decoding finds any flipped bit."""
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

    def arranged(self, data: memoryview) -> bytes | memoryview:
        """Return a shard with its chunks in an order that their content decides.

        Its index, and so the checksum of the index that `storage.commit.tails` states, then tells
        shards apart even where all chunks have one length, as in noise that does not compress.
        Among neighbours of eight the chunks are sorted by their last four bytes, their crc32c;
        what lies near each other stays so. Readers follow the index.
        """
        size = self.index_bytes
        flat = np.frombuffer(data, np.uint8)
        entries = flat[-size:-4].view("<u8").reshape(-1, 2)
        present = np.flatnonzero(entries[:, 0] != _ABSENT)
        if len(present) < 2:
            return data
        stored = present[np.argsort(entries[present, 0], kind="stable")]
        ends = entries[stored].sum(axis=1).astype(np.int64)
        sums = flat[ends[:, None] - np.arange(1, 5)].astype(np.uint32)
        checksum = sums @ np.array([1 << 24, 1 << 16, 1 << 8, 1], np.uint32)
        order = stored[np.lexsort((checksum, np.arange(len(stored)) // _ARRANGED_CHUNKS))]
        index = entries.copy()
        lengths = entries[order, 1]
        index[order, 0] = np.cumsum(lengths) - lengths
        chunks = [
            flat[int(offset) : int(offset + length)] for offset, length in entries[order].tolist()
        ]
        told = index.tobytes()
        return b"".join([*chunks, told, google_crc32c.value(told).to_bytes(4, "little")])

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
