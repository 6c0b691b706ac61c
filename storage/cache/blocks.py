"""Blocks of objects: which part of which version of which object an entry of the folder holds.

An entry's name is a digest of the object's origin, of the version (ETag or the like, and size)
and of the block's number, so that an entry is never out of date: another version has other names,
and the entries of the old one age out. What can be out of date is the answer to "which version is
the current one?"; `max_age_s` says how long it is believed:

- None, for objects that are written once (those of a run): for ever. The answer is kept in the
  cache too, and a read of cached blocks sends no request at all.
- a number, for what others may overwrite: one HEAD request per object and that time.

Blocks that are missing are fetched, neighbours together, tied to the version (`fetch`).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np

from storage.cache.entry import Bytes
from storage.cache.fetch import Block, Counts, Fetcher, entry_name
from storage.cache.folder import CacheFolder
from storage.cache.origin import ChangedError, Origin, Version, check_size

BLOCK_BYTES = 2**20
"""About two inner chunks of 32 x 128 x 128; docs/performance.md compares sizes."""
_VERSIONS_IN_MEMORY = 100_000
_VERSION_BYTES = 256


class BlockCache:
    """A cache in the folder `path` of at most `max_bytes`; any number of processes may share it.

    Use `open_cache`, which gives all users of a folder in one process the same object.
    """

    def __init__(self, path: str | Path, max_bytes: int, block_bytes: int = BLOCK_BYTES) -> None:
        self.folder = CacheFolder(Path(path), max_bytes=max_bytes, block_bytes=block_bytes)
        self.block_bytes = block_bytes
        self.max_bytes = max_bytes
        self._fresh_process()
        _caches.add(self)

    def _fresh_process(self) -> None:
        """Forget what does not survive a fork: threads, and fetches that they would finish."""
        self._guard = threading.Lock()
        self._versions: dict[str, tuple[Version, float]] = {}
        self.fetcher = Fetcher(self.folder, self.block_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as settings: the files stay, and another machine has its own."""
        return open_cache, (str(self.folder.path), self.max_bytes, self.block_bytes)

    @property
    def counts(self) -> Counts:
        """What this process had from the cache and what it fetched."""
        return self.fetcher.counts

    def get(
        self,
        source: Origin,
        start: int = 0,
        stop: int | None = None,
        *,
        max_age_s: float | None,
        limit: int | None = None,
    ) -> Bytes:
        """Return bytes of an object like a slice; a negative `start` counts from its end.

        Parameters
        ----------
        max_age_s : float or None
            How long the object's version is believed; None if it is written only once.
        limit : int, optional
            Bytes; more are not read.

        Raises
        ------
        MissingError
            If the object does not exist.
        LimitError
            If the part has more bytes than `limit`.
        StorageError
            As the origin's reading does.
        """
        (found,) = self.get_parts(source, [slice(start, stop)], max_age_s=max_age_s, limit=limit)
        return found

    def get_parts(
        self,
        source: Origin,
        parts: Sequence[slice],
        *,
        max_age_s: float | None,
        limit: int | None = None,
        sound: bool = False,
    ) -> list[Bytes]:
        """Return several parts of an object, all of one version; see `get`.

        Parameters
        ----------
        sound : bool
            The bytes carry checksums that the caller checks; what the disk holds is not checked
            twice. `forget` what turns out to be damaged.
        """
        version = self._known_version(source, max_age_s)
        if version is None:
            first = self._read_unknown(source, parts[0].start, parts[0].stop, limit)
            if len(parts) == 1:
                return [first]
            version = self._versions[source.name][0]
        for part in parts:
            begin, end, _ = part.indices(version.size)
            check_size(source.name, end - begin, limit)
        try:
            return self._read(source, version, parts, sound)
        except ChangedError:
            self.forget(source)
        if len(parts) == 1:
            return [self._read_unknown(source, parts[0].start, parts[0].stop, limit)]
        return self._read(source, source.version(), parts)

    def get_version(
        self, source: Origin, version: Version, start: int = 0, stop: int | None = None
    ) -> Bytes:
        """Return bytes of a known version of an object.

        Raises
        ------
        ChangedError
            If a block must be fetched and the object has another version by now.
        """
        return self._read(source, version, [slice(start, stop)])[0]

    def version(self, source: Origin, *, max_age_s: float | None) -> Version:
        """Return the version of an object that reads get at present."""
        version = self._known_version(source, max_age_s)
        if version is None:  # a block at once costs no more than asking for the version
            self.get(source, 0, 1, max_age_s=None)
            version = self._versions[source.name][0]
        return version

    def lease(self, blocks: Sequence[Block], lease_s: float) -> list[Block]:
        """Keep blocks from eviction for some time; return those that are not here."""
        return [block for block in blocks if not self.folder.lease(block.name, lease_s)]

    def hold(self, source: Origin, version: Version, blocks: list[Block], lease_s: float) -> None:
        """Bring blocks into the cache and keep them from eviction for some time.

        Raises
        ------
        StorageError
            As the origin's reading does.
        """
        missing = self.lease(blocks, lease_s)
        for fetch in self.fetcher.bring(source, version, missing, lease_s):
            fetch.part.result()
            fetch.kept.wait()
        self.lease(missing, lease_s)  # what another reader was fetching already

    def release(self, name: bytes) -> None:
        """Let a block be evicted again; it counts as just used."""
        self.folder.lease(name, 0)

    def forget(self, source: Origin) -> None:
        """Remove all that is kept of an object's known version, which is in doubt."""
        version = self._known_version(source, None)
        with self._guard:
            self._versions.pop(source.name, None)
        self.folder.drop(entry_name(source.name, "version"))
        if version is not None:
            for block in self.fetcher.blocks(source, version, 0, None):
                self.folder.drop(block.name)

    def _known_version(self, source: Origin, max_age_s: float | None) -> Version | None:
        """Return the version to read; None if the first read has to tell."""
        key = source.name
        version, when = self._versions.get(key, (None, 0.0))
        if version is not None and (max_age_s is None or time.monotonic() - when < max_age_s):
            return version
        if max_age_s is None:
            version = self._stored_version(key)
        elif version is not None or self._stored_version(key) is not None:
            version = source.version()  # blocks may be here: worth a HEAD request
        if version is not None:
            self._learn(source, version)
        return version

    def _stored_version(self, key: str) -> Version | None:
        text = np.empty(_VERSION_BYTES, np.uint8)
        if not self.folder.read(entry_name(key, "version"), 0, text):
            return None
        tag, size = json.loads(text.tobytes())
        return Version(tag, size)

    def _learn(self, source: Origin, version: Version) -> None:
        key = source.name
        known = self._versions.get(key)
        with self._guard:
            if len(self._versions) >= _VERSIONS_IN_MEMORY:
                self._versions.clear()
            self._versions[key] = (version, time.monotonic())
        if known is None or known[0] != version:
            text = json.dumps(version).ljust(_VERSION_BYTES).encode()
            if len(text) == _VERSION_BYTES:
                data = np.frombuffer(text, np.uint8)
                self.folder.put(entry_name(key, "version"), data, again=True)

    def _read_unknown(
        self, source: Origin, start: int, stop: int | None, limit: int | None
    ) -> Bytes:
        """Read a part of an object whose version is not known, and learn it from the answer."""
        size = self.block_bytes
        most = None if limit is None else limit + 2 * size  # the part, rounded to whole blocks
        if start < 0:
            # So much that the object's last block is whole; its others are fetched if needed.
            part = self.fetcher.read(source, min(start, -size), None, None, most)
        else:
            end = None if stop is None else -(-stop // size) * size
            part = self.fetcher.read(source, start // size * size, end, None, most)
        self._learn(source, part.version)
        self.fetcher.keep(source, part)
        first, last, _ = slice(start, stop).indices(part.version.size)
        check_size(source.name, last - first, limit)
        if part.start <= first and last <= part.start + part.data.size:
            return part.data[first - part.start : max(last, first) - part.start]
        return self._read(source, part.version, [slice(start, stop)])[0]

    def _read(
        self, source: Origin, version: Version, parts: Sequence[slice], sound: bool = False
    ) -> list[Bytes]:
        found = []
        missing: dict[Block, list[tuple[int, Bytes]]] = {}
        for part in parts:
            first, last, _ = part.indices(version.size)
            out = np.empty(max(last - first, 0), np.uint8)
            found.append(out)
            for block in self.fetcher.blocks(source, version, first, last):
                low, high = max(block.low, first), min(block.high, last)
                place = out[low - first : high - first]
                if not self.folder.read(block.name, low - block.low, place, check=not sound):
                    missing.setdefault(block, []).append((low, place))
        for fetch in self.fetcher.bring(source, version, sorted(missing, key=lambda b: b.low)):
            data = fetch.part.result()
            for block in fetch.blocks:
                for low, place in missing.get(block, ()):
                    place[:] = data.data[low - data.start : low - data.start + place.size]
        if not missing:
            self.fetcher.count_hit(sum(out.size for out in found))
        return found


_caches: WeakSet[BlockCache] = WeakSet()


def _after_fork() -> None:
    for cache in _caches:
        cache._fresh_process()


os.register_at_fork(after_in_child=_after_fork)


@lru_cache(maxsize=16)
def open_cache(path: str, max_bytes: int, block_bytes: int = BLOCK_BYTES) -> BlockCache:
    """Return the cache in the folder `path`, one object per process and settings."""
    return BlockCache(path, max_bytes, block_bytes)
