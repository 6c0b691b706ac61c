"""What a unit of work writes and reads, noted where it happens: nobody has to tell it.

A journal is open in a context (`contextvars`), which zarr's event loop and `asyncio.to_thread`
carry into their threads; threads that a stage starts by itself do not have it. What is written
without being noted shows up in `storage.commit.verify` as an object that nobody planned.

Mending is the one way to overwrite an object of a run: by the content that its record names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
from blake3 import blake3


@dataclass(frozen=True)
class Entry:
    """One stored object."""

    uri: str
    bytes: int
    crc32c: str
    """8 hex digits, Castagnoli."""
    blake3: str
    """64 hex digits."""
    tail: str
    """The last 4 bytes, 8 hex digits: a checksum of the whole in arrays of ours, see `Tails`."""


@dataclass
class Journal:
    """What was written and read in a context, in the order in which it was finished."""

    written: list[Entry] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    """URIs of the objects that were read, whole or in part."""


_journal: ContextVar[Journal | None] = ContextVar("journal", default=None)
_mends: ContextVar[Mapping[str, str] | None] = ContextVar("mends", default=None)


@contextmanager
def journal() -> Iterator[Journal]:
    """Note every object that is created, or found to be there already, and every one read.

    >>> with journal() as noted:
    ...     note_written("s3://bucket/run/zarr.json", b"{}")
    >>> [(entry.bytes, entry.crc32c) for entry in noted.written]
    [(2, '297bd0aa')]
    """
    opened = Journal()
    token = _journal.set(opened)
    try:
        yield opened
    finally:
        _journal.reset(token)


@contextmanager
def mending(digests: Mapping[str, str]) -> Iterator[None]:
    """Let `store.create_bytes` replace the named objects, by the named content only.

    Parameters
    ----------
    digests : mapping of str to str
        blake3 (hex) by URI, from the records of a run.
    """
    token = _mends.set(digests)
    try:
        yield
    finally:
        _mends.reset(token)


def is_mending() -> bool:
    """Return whether only recorded content is let in now, whatever the inputs claim to be."""
    return _mends.get() is not None


def note_written(uri: str, data: bytes | memoryview) -> None:
    """Note an object that holds `data`; hashes it only if somebody listens."""
    opened = _journal.get()
    if opened is not None:
        opened.written.append(entry_of(uri, data))


def note_read(uri: str) -> None:
    """Note that an object was read."""
    opened = _journal.get()
    if opened is not None:
        opened.read.add(uri)


def digest_to_mend(uri: str) -> str | None:
    """Return the digest of the content that may replace an object now; None: nothing may."""
    mends = _mends.get()
    return None if mends is None else mends.get(uri)


def entry_of(uri: str, data: Any) -> Entry:
    """Return the entry of an object that holds `data` (bytes-like)."""
    import numpy as np  # the ledger's readers, such as Airflow's triggerer, write nothing

    flat = np.frombuffer(data, np.uint8)  # the one bytes-like that both take without a copy
    tail = flat[-4:].tobytes().hex()
    return Entry(uri, flat.size, f"{google_crc32c.value(flat):08x}", digest_of(flat), tail)


def digest_of(data: Any) -> str:
    """Return the blake3 (hex) of bytes.

    >>> digest_of(b"")[:8]
    'af1349b9'
    """
    return str(blake3(data).hexdigest())
