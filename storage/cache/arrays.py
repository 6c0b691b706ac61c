"""Arrays that read through the cache: the same checks, the same voxels, fewer requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import StorePath

from storage import journal
from storage.cache.blocks import BlockCache
from storage.cache.entry import Bytes
from storage.cache.origin import Origin, origin, server
from storage.checked import METADATA, CheckedStore
from storage.errors import CorruptError, StorageError, UnavailableError
from storage.shards import ShardLayout
from storage.spans import span
from storage.uri import check_key

logger = logging.getLogger(__name__)

FOREIGN_MAX_AGE_S = 60.0
"""How long the version of an object that others may overwrite is believed."""


class CachedStore(CheckedStore):
    """A checked store, read-only, whose chunks come from the cache where it has them.

    Metadata is always asked for anew: it is small, and the first to be wrong.

    Parameters
    ----------
    cache : BlockCache
    max_age_s : float or None
        How long an object's version is believed; None for objects that are written only once.
    """

    def __init__(
        self,
        uri: str,
        *,
        cache: BlockCache,
        max_age_s: float | None,
        sparse: bool = False,
        layout: ShardLayout | None = None,
    ) -> None:
        super().__init__(uri, read_only=True, sparse=sparse, layout=layout)
        self.cache = cache
        self.max_age_s = max_age_s
        self._server = server(self.uri)
        self._sound: set[str] = set()

    def with_layout(self, layout: ShardLayout | None) -> CachedStore:
        """Return the same store, which also looks into shards."""
        return _rebuild(self.uri, self.cache, self.max_age_s, self.sparse, layout)

    def with_read_only(self, read_only: bool = False) -> CheckedStore:
        """Return the same store; it cannot be made writable."""
        if not read_only:
            raise StorageError(f"{self.uri} was opened through a cache, for reading only")
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as URI and rules; the cache is the one of the machine where it arrives."""
        return _rebuild, (self.uri, self.cache, self.max_age_s, self.sparse, self.layout)

    def origin(self, key: str) -> Origin:
        """Return the object of a key, as the cache knows it."""
        return origin(self._prefix + key, self._server)

    def doubting(self) -> CachedStore:
        """Return the same store, which fetches each object anew the first time it reads it."""
        return _Doubting(
            self.uri,
            cache=self.cache,
            max_age_s=self.max_age_s,
            sparse=self.sparse,
            layout=self.layout,
        )

    async def get_ranges(
        self, key: str, byte_ranges: Sequence[ByteRequest | None], **options: Any
    ) -> AsyncIterator[Sequence[tuple[int, Buffer | None]]]:
        """Yield the parts of a shard, all at once; gaps between them are not read."""
        check_key(key)
        spans = [self._slice(key, byte_range) for byte_range in byte_ranges]
        found = await self._in_thread(key, spans)
        if found is None:
            raise UnavailableError(
                f"{self._prefix}{key} is missing now, although its index was read a moment ago"
            )
        journal.note_read(self._prefix + key)
        make = options["prototype"].buffer.from_bytes
        yield [(place, make(data.data)) for place, data in enumerate(found)]

    async def _fetch(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None
    ) -> Buffer | None:
        if key.rpartition("/")[2] in METADATA:
            return await super()._fetch(key, prototype, byte_range)
        found = await self._in_thread(key, [self._slice(key, byte_range)])
        return None if found is None else prototype.buffer.from_bytes(found[0].data)

    def _slice(self, key: str, byte_range: ByteRequest | None) -> slice:
        return span(
            byte_range, self._most if byte_range is None else self._part, self._prefix + key
        )

    async def _in_thread(self, key: str, spans: list[slice]) -> list[Bytes] | None:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(_readers(), self._get, key, spans)
        except FileNotFoundError:
            return None

    def _get(self, key: str, spans: list[slice]) -> list[Bytes]:
        if key not in self._sound:
            self._check(key)
            self._sound.add(key)
        return self.cache.get_parts(
            self.origin(key),
            spans,
            max_age_s=self.max_age_s,
            limit=self._most,
            # What decoding would find is not looked for twice; `CachedArray` then reads anew.
            sound=self.layout is not None and self.layout.sound,
        )


class _Doubting(CachedStore):
    """What reads again after a chunk could not be decoded: the fault may lie in what was kept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._renewed: set[str] = set()

    def _get(self, key: str, spans: list[slice]) -> list[Bytes]:
        if key not in self._renewed:
            self._renewed.add(key)
            self.cache.forget(self.origin(key))
        return super()._get(key, spans)


class CachedArray(zarr.Array[Any]):
    """An array that reads through the cache, and once around it what cannot be decoded.

    The chunk may have been damaged where it came from when it was fetched, and mended since; then
    what the cache kept must not outlive the repair.
    """

    def __getitem__(self, selection: Any) -> Any:
        """Return the voxels of a selection."""
        try:
            return super().__getitem__(selection)
        except MemoryError:
            raise
        except Exception as error:
            if isinstance(error, StorageError) and not isinstance(error, CorruptError):
                raise
            logger.warning("%s: reading anew what the cache kept: %s", self.store, error)
            return _bound(self, self._cached_store.doubting())[selection]

    @property
    def _cached_store(self) -> CachedStore:
        store = self.store
        if not isinstance(store, CachedStore):
            raise TypeError(f"{store} is no CachedStore; make cached arrays by cached()")
        return store


def cached(
    array: zarr.Array[Any], cache: BlockCache, *, max_age_s: float | None = None
) -> CachedArray:
    """Return an array opened by `storage.arrays`, for reading through a cache.

    Parameters
    ----------
    max_age_s : float or None
        None for arrays of a run, whose objects are written once; `FOREIGN_MAX_AGE_S`, or as long
        as you believe that nobody overwrites a chunk, for others.
    """
    checked = array.store
    if not isinstance(checked, CheckedStore):
        raise StorageError(f"{checked} was not opened by storage.arrays; use open_array for it")
    store = CachedStore(
        checked.uri,
        cache=cache,
        max_age_s=max_age_s,
        sparse=checked.sparse,
        layout=checked.layout,
    )
    return CachedArray(_bound(array, store).async_array)


def _bound(array: zarr.Array[Any], store: CachedStore) -> zarr.Array[Any]:
    """Return the same array in another store."""
    inner = array.async_array
    return zarr.Array(zarr.AsyncArray(inner.metadata, StorePath(store, array.path), inner.config))


def _rebuild(
    uri: str,
    cache: BlockCache,
    max_age_s: float | None,
    sparse: bool,
    layout: ShardLayout | None,
) -> CachedStore:
    return CachedStore(uri, cache=cache, max_age_s=max_age_s, sparse=sparse, layout=layout)


@lru_cache(maxsize=1)
def _readers() -> ThreadPoolExecutor:
    """Threads that wait for disk and network while zarr's event loop goes on."""
    return ThreadPoolExecutor(32, thread_name_prefix="cache-read")
