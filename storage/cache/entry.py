"""One file of the cache: up to a block of bytes, each page of them with its checksum.

A file is a header of one disk page, then the data. The header holds the name under which the
file was stored and one crc32c for each 64 KiB of data, so that a small read need not check a whole
block. Whatever is wrong with a file (torn, flipped, swapped with another, of an older format), the
checks fail and the caller takes it for absent.
"""

from __future__ import annotations

import os
import struct

import google_crc32c
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

HEADER_BYTES = 4096
PAGE_BYTES = 2**16
NAME_BYTES = 20
MAX_BLOCK_BYTES = 32 * 2**20
"""As many pages as the header has room for, rounded down to a power of two."""

_FRONT = struct.Struct(f"<8sI{NAME_BYTES}s")  # magic, length of the data, name
_MAGIC = b"petalig1"
_CRCS_AT = 64


class BadEntryError(Exception):
    """A file of the cache does not hold what its name says; internal to the cache."""


def header(name: bytes, data: Bytes) -> Bytes:
    """Return the header of an entry that holds `data` (uint8, 1-D) under `name`."""
    front = np.zeros(HEADER_BYTES, np.uint8)
    front[: _FRONT.size] = np.frombuffer(_FRONT.pack(_MAGIC, data.size, name), np.uint8)
    crcs = _page_crcs(data)
    front[_CRCS_AT : _CRCS_AT + crcs.size] = crcs
    front[-4:] = np.array([_crc(front[:-4])], "<u4").view(np.uint8)
    return front


def read(handle: int, name: bytes, start: int, out: Bytes, *, check: bool = True) -> None:
    """Fill `out` with the entry's bytes from `start` on, all of them checked.

    Parameters
    ----------
    check : bool
        False: only name and length, for data that carry checksums which the caller checks.

    Raises
    ------
    BadEntryError
        If the file is not the whole, undamaged entry `name`, or is shorter than asked for.
    """
    front = np.empty(HEADER_BYTES, np.uint8)
    if os.preadv(handle, [front.data], 0) != HEADER_BYTES:
        raise BadEntryError("no header")
    magic, length, found = _FRONT.unpack_from(front.data)
    if (
        int.from_bytes(front[-4:].data, "little") != _crc(front[:-4])
        or magic != _MAGIC
        or found != name
    ):
        raise BadEntryError("the header is damaged or of another entry")
    stop = start + out.size
    if stop > length:
        raise BadEntryError(f"it has {length} bytes, {stop} were asked for")
    if not check:
        if os.preadv(handle, [out.data], HEADER_BYTES + start) != out.size:
            raise BadEntryError("it is truncated")
        return
    first, last = start // PAGE_BYTES, -(-stop // PAGE_BYTES)
    low, high = first * PAGE_BYTES, min(last * PAGE_BYTES, length)
    # What was asked for goes straight to its place; only the rest of its outer pages does not.
    before, after = np.empty(start - low, np.uint8), np.empty(high - stop, np.uint8)
    if os.preadv(handle, [before.data, out.data, after.data], HEADER_BYTES + low) != high - low:
        raise BadEntryError("it is truncated")
    stored = front[_CRCS_AT + 4 * first : _CRCS_AT + 4 * last]
    if stored.tobytes() != _page_crcs(out, before, after).tobytes():
        raise BadEntryError("a checksum does not hold")


_NOTHING = np.empty(0, np.uint8)


def _page_crcs(data: Bytes, before: Bytes = _NOTHING, after: Bytes = _NOTHING) -> Bytes:
    """Return the crc32c of the pages that `before`, `data` and `after` make up together."""
    crcs = []
    crc, at = _crc(before), 0
    for end in range(PAGE_BYTES - before.size, data.size, PAGE_BYTES):
        crcs.append(_crc(data[at:end], crc))
        crc, at = 0, end
    if data.size or before.size:
        crcs.append(_crc(after, _crc(data[at:], crc)))
    return np.array(crcs, "<u4").view(np.uint8)


def _crc(data: Bytes, crc: int = 0) -> int:
    return int(google_crc32c.extend(crc, data))
