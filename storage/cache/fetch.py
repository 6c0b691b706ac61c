"""Fetching what the cache lacks: neighbours in one request, each block once, then kept.

Two threads that want the same block wait for one fetch, which is tied to the object's version. Who
waits has the bytes before they are stored, and a cache that cannot take them changes nothing.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from storage.cache import entry
from storage.cache.folder import CacheFolder
from storage.cache.origin import Origin, Part, Version
from storage.errors import CorruptError

FETCH_BYTES = 8 * 2**20
"""Neighbouring missing blocks are fetched by requests of at most this."""

MAX_FETCHES = 32


class Block(NamedTuple):
    """Bytes [low, high) of one version of an object, and the entry that holds them."""

    name: bytes
    low: int
    high: int


@dataclass
class Fetch:
    """One request for neighbouring blocks, and who waits for it."""

    blocks: list[Block] = field(default_factory=list)
    part: Future[Part] = field(default_factory=Future)
    kept: threading.Event = field(default_factory=threading.Event)

    def takes(self, block: Block) -> bool:
        """Return whether a block follows on, and the request stays small enough."""
        return self.blocks[-1].high == block.low and block.high - self.blocks[0].low <= FETCH_BYTES


@dataclass
class Counts:
    """What a process had from the cache and what it fetched."""

    hit_bytes: int = 0
    fetched_bytes: int = 0
    requests: int = 0
    declined: int = 0
    """Blocks that the cache did not take: disk full, or all of a bucket leased."""


class Fetcher:
    """Brings blocks of objects into a folder of entries."""

    def __init__(self, folder: CacheFolder, block_bytes: int) -> None:
        self.folder = folder
        self.block_bytes = block_bytes
        self.counts = Counts()
        self._guard = threading.Lock()
        self._under_way: dict[bytes, Fetch] = {}
        self._threads = ThreadPoolExecutor(MAX_FETCHES, thread_name_prefix="cache-fetch")

    @property
    def is_busy(self) -> bool:
        """Whether a block is being fetched or stored."""
        return bool(self._under_way)

    def count_hit(self, size: int) -> None:
        """Note bytes that were in the cache."""
        with self._guard:
            self.counts.hit_bytes += size

    def blocks(
        self, source: Origin, version: Version, start: int, stop: int | None
    ) -> Iterator[Block]:
        """Yield the blocks that hold a part of one version of an object."""
        first, last, _ = slice(start, stop).indices(version.size)
        key = f"{source.name}|{version.tag}|{version.size}"
        for low in range(first - first % self.block_bytes, last, self.block_bytes):
            yield Block(entry_name(key, str(low)), low, min(low + self.block_bytes, version.size))

    def bring(
        self, source: Origin, version: Version, missing: list[Block], lease_s: float = 0.0
    ) -> list[Fetch]:
        """Return fetches that together bring the missing blocks; join those under way."""
        fetches: dict[int, Fetch] = {}
        fresh: list[Fetch] = []
        with self._guard:
            for block in missing:
                fetch = self._under_way.get(block.name)
                if fetch is None:
                    if not (fresh and fresh[-1].takes(block)):
                        fresh.append(Fetch())
                    fetch = fresh[-1]
                    fetch.blocks.append(block)
                    self._under_way[block.name] = fetch
                fetches[id(fetch)] = fetch
        for fetch in fresh:
            self._threads.submit(self._bring, source, version, fetch, lease_s)
        return list(fetches.values())

    def _bring(self, source: Origin, version: Version, fetch: Fetch, lease_s: float) -> None:
        """Fetch neighbouring blocks, hand them to who waits, then keep them."""
        low, high = fetch.blocks[0].low, fetch.blocks[-1].high
        try:
            part = self.read(source, low, high, version.tag)
            if (part.start, part.data.size, part.version) != (low, high - low, version):
                raise CorruptError(
                    f"{source.name}: asked for bytes {low} to {high} of {version}, got "
                    f"{part.data.size} from {part.start} of {part.version}; read again"
                )
            fetch.part.set_result(part)
            self.keep(source, part, lease_s)
        except BaseException as error:
            if not fetch.part.done():
                fetch.part.set_exception(error)
        finally:
            with self._guard:
                for block in fetch.blocks:
                    self._under_way.pop(block.name, None)
            fetch.kept.set()

    def read(
        self,
        source: Origin,
        start: int,
        stop: int | None,
        tag: str | None,
        limit: int | None = None,
    ) -> Part:
        """Read from the origin, and count it."""
        part = source.read(start, stop, tag, limit)
        with self._guard:
            self.counts.requests += 1
            self.counts.fetched_bytes += part.data.size
        return part

    def keep(self, source: Origin, part: Part, lease_s: float = 0.0) -> None:
        """Store the whole blocks of what was fetched."""
        end = part.start + part.data.size
        for block in self.blocks(source, part.version, part.start, end):
            if block.low >= part.start and block.high <= end:
                data = part.data[block.low - part.start : block.high - part.start]
                if not self.folder.put(block.name, data, lease_s=lease_s):
                    with self._guard:
                        self.counts.declined += 1


def entry_name(key: str, what: str) -> bytes:
    """Return the name of the entry for something of an object."""
    return hashlib.blake2b(f"{what}|{key}".encode(), digest_size=entry.NAME_BYTES).digest()
