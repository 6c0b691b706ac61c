"""Tails: what tells a reader that a shard is the one that belongs at its place.

Every object of our arrays ends in a crc32c: a shard in that of its index, which holds the place and
length of each of its chunks (`ShardLayout.arranged`), a chunk without a shard in its own. Checksums
inside an object cannot tell that two objects were swapped, or that one is of an older copy of the
run; these four bytes, stated elsewhere, can, and a reader sees them anyway. ::

    <run_uri>/manifests/tails/<array>   uint32, little endian, C order over the grid of objects

For 10^6 shards that is one read of 4 MB when the volume is opened.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

from storage import store
from storage.commit.records import StoredObject
from storage.errors import CorruptError
from storage.journal import digest_of

FOLDER = "manifests/tails"
_CHUNK = re.compile(r"(.+)/c/([0-9]+(?:/[0-9]+)*)")


@dataclass(frozen=True)
class Tails:
    """What a seal says of the tails of an array."""

    grid: tuple[int, ...]
    """Number of objects along each axis, up to the last one that was written."""
    blake3: str


def path_of(path: str) -> str:
    """Return where the tails of the array `path` are, below the run."""
    return f"{FOLDER}/{path}"


def arrays_of(objects: Iterable[StoredObject]) -> set[str]:
    """Return the paths of the arrays that objects belong to."""
    matches = (_CHUNK.fullmatch(stored.path) for stored in objects)
    return {match[1] for match in matches if match}


def write(run_uri: str, objects: Iterable[StoredObject]) -> dict[str, Tails]:
    """Write the tails of all arrays that objects belong to; return what to say of them."""
    places: dict[str, dict[tuple[int, ...], int]] = defaultdict(dict)
    for stored in objects:
        match = _CHUNK.fullmatch(stored.path)
        if match and len(stored.tail) == 8:
            place = tuple(int(part) for part in match[2].split("/"))
            places[match[1]][place] = int.from_bytes(bytes.fromhex(stored.tail), "little")
    return {path: _write_one(run_uri, path, found) for path, found in sorted(places.items())}


def read(run_uri: str, path: str, tails: Tails) -> PlacedTails:
    """Return the tails of an array.

    Raises
    ------
    CorruptError
        If they are not what the seal says.
    """
    uri = store.join(run_uri, path_of(path))
    data = store.read_bytes(uri)
    if digest_of(data) != tails.blake3 or len(data) != 4 * prod(tails.grid):
        raise CorruptError(f"{uri} is not what its seal says; mend it with `petalign repair`")
    return PlacedTails(tails.grid, data)


@dataclass(frozen=True)
class PlacedTails:
    """The expected last bytes of an array's objects, by their place in the grid."""

    grid: tuple[int, ...]
    data: bytes = field(repr=False)

    def at(self, place: tuple[int, ...]) -> bytes | None:
        """Return the last 4 bytes of the object at `place`; None if none was recorded there."""
        if len(place) != len(self.grid) or any(
            not 0 <= p < n for p, n in zip(place, self.grid, strict=True)
        ):
            return None
        index = 0
        for p, n in zip(place, self.grid, strict=True):
            index = index * n + p
        return self.data[4 * index : 4 * index + 4]


def _write_one(run_uri: str, path: str, found: dict[tuple[int, ...], int]) -> Tails:
    grid = tuple(max(axis) + 1 for axis in zip(*found, strict=True))
    values = array("I", bytes(4 * prod(grid)))
    for place, value in found.items():
        index = 0
        for p, n in zip(place, grid, strict=True):
            index = index * n + p
        values[index] = value
    if sys.byteorder == "big":
        values.byteswap()
    data = values.tobytes()
    store.create_bytes(store.join(run_uri, path_of(path)), data)
    return Tails(grid, digest_of(data))
