"""Where the chunks of a sharded precomputed volume lie.

Specification: https://github.com/google/neuroglancer, src/datasource/precomputed/sharded.md. The
hash is MurmurHash3_x86_128 by Austin Appleby, for inputs of eight bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import store
from storage.errors import MissingError, SourceError
from storage.sources.files import FileIdentity, identity, inflate, open_file, read_at

_MAX_INDEX_BYTES = 64 * 2**20
_MAX_CHUNK_BYTES = 512 * 2**20
_U32 = 2**32 - 1


@dataclass(frozen=True)
class Sharding:
    """How chunk numbers are spread over files."""

    preshift_bits: int
    hash: str
    minishard_bits: int
    shard_bits: int
    index_encoding: str
    data_encoding: str

    def place(self, chunk: int) -> tuple[str, int]:
        """Return the name of the file that holds a chunk, and the minishard inside it."""
        number = chunk >> self.preshift_bits
        hashed = number if self.hash == "identity" else murmur_hash(number)
        minishard = hashed & (2**self.minishard_bits - 1)
        shard = (hashed >> self.minishard_bits) & (2**self.shard_bits - 1)
        return f"{shard:0{-(-self.shard_bits // 4)}x}.shard", minishard


def parse_sharding(stated: Any) -> Sharding | None:
    """Return the sharding that ``info`` states, None if there is none.

    Raises
    ------
    SourceError
        If it is of another kind or uses another hash or encoding.
    """
    if stated is None:
        return None
    sharding = Sharding(
        int(stated["preshift_bits"]),
        str(stated["hash"]),
        int(stated["minishard_bits"]),
        int(stated["shard_bits"]),
        str(stated.get("minishard_index_encoding", "raw")),
        str(stated.get("data_encoding", "raw")),
    )
    encodings = {sharding.index_encoding, sharding.data_encoding}
    if (
        stated["@type"] != "neuroglancer_uint64_sharded_v1"
        or sharding.hash not in ("identity", "murmurhash3_x86_128")
        or not encodings <= {"raw", "gzip"}
        or not 0 <= sharding.minishard_bits <= 20
    ):
        raise SourceError(f"sharding of an unknown kind: {stated}")
    return sharding


def morton_code(index_xyz: tuple[int, ...], grid_xyz: tuple[int, ...]) -> int:
    """Return the compressed Morton code of a chunk: bits of x, y, z in turn, where there are any.

    >>> morton_code((1, 1, 0), (4, 2, 1)), morton_code((2, 0, 0), (4, 2, 1))
    (3, 4)
    """
    code, place = 0, 0
    for bit in range(max(n - 1 for n in grid_xyz).bit_length()):
        for i, n in zip(index_xyz, grid_xyz, strict=True):
            if (n - 1) >> bit:
                code |= (i >> bit & 1) << place
                place += 1
    return code


def murmur_hash(number: int) -> int:
    """Return the low 64 bits of MurmurHash3_x86_128 of a uint64, with the seed 0."""
    k1, k2 = number & _U32, number >> 32
    h2 = _rotated(k2 * 0xAB0E9789 & _U32, 16) * 0x38B34AE5 & _U32
    h1 = _rotated(k1 * 0x239B961B & _U32, 15) * 0xAB0E9789 & _U32
    h1, h2, h3, h4 = h1 ^ 8, h2 ^ 8, 8, 8
    h1 = (h1 + h2 + h3 + h4) & _U32
    h2, h3, h4 = ((h + h1) & _U32 for h in (h2, h3, h4))
    h1, h2, h3, h4 = (_mixed(h) for h in (h1, h2, h3, h4))
    h1 = (h1 + h2 + h3 + h4) & _U32
    return ((h2 + h1) & _U32) << 32 | h1


def read_sharded(uri: str, sharding: Sharding, chunk: int) -> bytes | None:
    """Return the stored bytes of a chunk, None if there is none.

    Raises
    ------
    SourceError
        If the shard is truncated.
    """
    name, minishard = sharding.place(chunk)
    shard = store.join(uri, name)
    try:
        found = identity(shard)
        index = _minishard_index(shard, found, sharding, minishard)
        at = int(np.searchsorted(index[0], np.uint64(chunk)))
        if at == index.shape[1] or index[0, at] != chunk:
            return None
        start, size = int(index[1, at]), int(index[2, at])
        if size > _MAX_CHUNK_BYTES:
            raise SourceError(f"{shard} is damaged: a chunk of {size} bytes")
        with open_file(shard) as file:
            data = read_at(file, start, size, f"chunk {chunk} of {shard}")
    except MissingError:
        return None
    return _plain(data, sharding.data_encoding, _MAX_CHUNK_BYTES)


@lru_cache(maxsize=1024)
def _minishard_index(
    shard: str, found: FileIdentity, sharding: Sharding, minishard: int
) -> NDArray[np.uint64]:
    """Return numbers, places in the file, and sizes of a minishard's chunks, (3, n)."""
    first = 16 * 2**sharding.minishard_bits
    with open_file(shard) as file:
        entry = read_at(file, 16 * minishard, 16, f"the index of {shard}")
        start, stop = (int(n) for n in np.frombuffer(entry, "<u8"))
        if not 0 <= stop - start <= _MAX_INDEX_BYTES:
            raise SourceError(f"{shard} is damaged: its minishard {minishard} has no valid index")
        data = read_at(file, first + start, stop - start, f"minishard {minishard} of {shard}")
    content = _plain(data, sharding.index_encoding, _MAX_INDEX_BYTES) if data else b""
    deltas = np.frombuffer(content, "<u8").reshape(3, -1).astype(np.uint64)
    sizes = deltas[2]
    # Each start is counted from the end of the chunk before.
    ends = np.cumsum(deltas[1] + sizes, dtype=np.uint64)
    return np.stack([np.cumsum(deltas[0], dtype=np.uint64), ends - sizes + np.uint64(first), sizes])


def _plain(data: bytes, encoding: str, n_bytes: int) -> bytes:
    return data if encoding == "raw" else inflate(data, n_bytes)


def _rotated(number: int, bits: int) -> int:
    return (number << bits | number >> (32 - bits)) & _U32


def _mixed(h: int) -> int:
    h = (h ^ h >> 16) * 0x85EBCA6B & _U32
    h = (h ^ h >> 13) * 0xC2B2AE35 & _U32
    return h ^ h >> 16
