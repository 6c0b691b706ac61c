"""The zarr store of a run: nothing outside its folder, nothing twice, nothing missing.

What a plain zarr store does silently is an error here:

- a key that leaves the array's folder (``..``, absolute, a symbolic link) is refused;
- an object is created once; the same bytes again are a success, other bytes a `ConflictError`;
- an absent chunk or shard is a `MissingError`, never the fill value;
- an absent inner chunk of a shard that exists is a `MissingError` too. zarr fills it whatever its
  settings are, so the shard's index is looked at as it passes; that costs no request;
- an object that the run's records place elsewhere is a `CorruptError`, where they are at hand;
- an object that is larger than the array's metadata allow for is not read into memory.

Reads and writes are coroutines only. zarr would run a store's synchronous methods in threads of its
own, in which no journal is open (`storage.journal`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from zarr.abc.buffer import Buffer
from zarr.abc.store import ByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import BufferPrototype

from storage import journal, s3
from storage import store as objects
from storage.errors import (
    ConflictError,
    CorruptError,
    MissingError,
    StorageError,
    UnavailableError,
)
from storage.limits import MAX_METADATA_BYTES, MAX_SHARD_BYTES
from storage.localfile import LocalFolder
from storage.shards import ShardLayout
from storage.spans import span
from storage.uri import check_key, local_path, normalise_uri

if TYPE_CHECKING:
    from obstore.store import S3Store

    from storage.commit.tails import PlacedTails

METADATA = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
"""Objects that zarr looks for without knowing whether they exist."""

Writes = Literal["once", "any"]


class CheckedStore(Store):
    """A zarr store below one folder on file:// or s3://; see the module for what it checks.

    Parameters
    ----------
    uri : str
        The folder.
    read_only : bool
        Refuse every write.
    sparse : bool
        Let absent chunks be absent, as in volumes that other programs wrote.
    blind : bool
        For writing: find no chunk. zarr would fetch a shard that reaches over the array's edge to
        merge the new data into it; a write here is whole and owes nothing to what is there.
    layout : ShardLayout, optional
        Of the array whose root the folder is; without it, objects are not looked into, and may have
        any size up to `limits.MAX_SHARD_BYTES`.
    writes : {"once", "any"}
        "once" for what a run produces: objects are created, never replaced or deleted. "any" for
        scratch: a write replaces what is there, atomically, and objects can be deleted.
    """

    supports_writes = True
    supports_listing = True
    supports_consolidated_metadata = False

    def __init__(
        self,
        uri: str,
        *,
        read_only: bool = False,
        sparse: bool = False,
        blind: bool = False,
        layout: ShardLayout | None = None,
        writes: Writes = "once",
    ) -> None:
        super().__init__(read_only=read_only)
        self.uri = normalise_uri(uri)
        self.sparse = sparse
        self.blind = blind
        self.layout = layout
        self.writes = writes
        root = local_path(self.uri)
        self._folder = LocalFolder(root) if root is not None else None
        self._most = layout.max_object_bytes if layout is not None else MAX_SHARD_BYTES
        self._part = layout.max_part_bytes if layout is not None else MAX_SHARD_BYTES
        self._reached: tuple[S3Store, str] | None = None
        # Checked once; keys only have to be sound by themselves.
        self._prefix = f"{self.uri.rstrip('/')}/"

    @property
    def supports_deletes(self) -> bool:
        """Whether the policy lets objects be deleted."""
        return self.writes == "any"

    def with_layout(self, layout: ShardLayout | None) -> CheckedStore:
        """Return the same store, which also looks into shards."""
        return _rebuild(self.uri, self.read_only, self.sparse, self.blind, layout, self.writes)

    def for_writing(self) -> CheckedStore:
        """Return the same store, which finds no chunk."""
        return _rebuild(self.uri, self.read_only, self.sparse, True, self.layout, self.writes)

    def with_read_only(self, read_only: bool = False) -> CheckedStore:
        """Return the same store with another permission."""
        return _rebuild(self.uri, read_only, self.sparse, self.blind, self.layout, self.writes)

    def __eq__(self, other: object) -> bool:
        """Two stores are equal if they have the same folder and rules."""
        return isinstance(other, CheckedStore) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        """Agree with ``==``."""
        return hash(self.uri)

    def __str__(self) -> str:
        """Return the folder's URI."""
        return self.uri

    def __repr__(self) -> str:
        """Name class and folder."""
        return f"CheckedStore({self.uri!r}, read_only={self.read_only})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as URI and rules: credentials come from the environment where it arrives."""
        rules = (self.uri, self.read_only, self.sparse, self.blind, self.layout, self.writes)
        return _rebuild, rules

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the bytes of an object; None only for metadata, or if the store is sparse."""
        check_key(key)
        is_metadata = key.rpartition("/")[2] in METADATA
        if self.blind and not is_metadata:
            return None
        buffer = await self._fetch(key, prototype, byte_range)
        if buffer is None:
            if self.sparse or is_metadata:
                return None
            raise MissingError(
                f"{self._prefix}{key} does not exist: the chunk or shard was never written, or "
                "was deleted. It is not read as zeros"
            )
        journal.note_read(self._prefix + key)
        if self.layout is not None and not self.sparse and not is_metadata:
            if self.layout.indexed:
                self._check_shard(key, buffer, byte_range, self.layout)
            if self.layout.tails is not None:
                self._check_tail(key, buffer, byte_range, self.layout.tails)
        return buffer

    async def get_ranges(
        self, key: str, byte_ranges: Sequence[ByteRequest | None], **options: Any
    ) -> AsyncIterator[Sequence[tuple[int, Buffer | None]]]:
        """Yield the parts of a shard whose index was read; if it is gone now, that is an error.

        zarr would read its chunks as the fill value.
        """
        try:
            async for group in super().get_ranges(key, byte_ranges, **options):
                yield group
        except BaseExceptionGroup as errors:
            gone, _ = errors.split(FileNotFoundError)
            if gone is None:
                raise
            raise UnavailableError(
                f"{self._prefix}{key} is missing now, although its index was read a moment ago"
            ) from gone

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return the bytes of several requests, in their order."""
        return list(await asyncio.gather(*(self.get(k, prototype, r) for k, r in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Return whether an object exists."""
        self._check(key)
        return await asyncio.to_thread(objects.exists, self._prefix + key)

    async def getsize(self, key: str) -> int:
        """Return the size of an object, bytes."""
        self._check(key)
        return await asyncio.to_thread(objects.size, self._prefix + key)

    async def set(self, key: str, value: Buffer) -> None:
        """Create an object once, or replace it if the policy says so."""
        write = objects.replace_bytes if self.writes == "any" else objects.create_bytes
        await asyncio.to_thread(write, *self._write(key, value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Create an object once; under the policy "any", one that exists stays as it is."""
        try:
            await asyncio.to_thread(objects.create_bytes, *self._write(key, value))
        except ConflictError:
            if self.writes != "any":
                raise

    async def delete(self, key: str) -> None:
        """Delete an object if it exists and the policy lets it."""
        self._check_writable()
        if not self.supports_deletes:
            raise StorageError(f"{self._prefix}{key}: objects of a run are never deleted by zarr")
        self._check(key)
        await asyncio.to_thread(objects.delete, self._prefix + key)
        if self._folder is not None:
            await asyncio.to_thread(self._folder.prune, key)

    async def list(self) -> AsyncIterator[str]:
        """Yield every key."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield every key that lies in the folder `prefix`."""
        folder = self._below(prefix)
        keys = await asyncio.to_thread(lambda: [key for key, _, _ in objects.walk(folder)])
        start = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
        for key in keys:
            yield start + key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below `prefix`."""
        folder = self._below(prefix)
        for name in await asyncio.to_thread(objects.list_names, folder):
            yield name

    def _below(self, prefix: str) -> str:
        prefix = prefix.rstrip("/")
        if not prefix:
            return self.uri
        self._check(prefix)
        return self._prefix + prefix

    def _check(self, key: str) -> None:
        check_key(key)
        if self._folder is not None:
            self._folder.check(key)

    def _write(self, key: str, value: Buffer) -> tuple[str, bytes | memoryview]:
        """Return where and what to write."""
        self._check_writable()
        self._check(key)
        if not isinstance(value, Buffer):
            raise TypeError(f"{self._prefix}{key}: expected a Buffer of zarr, got {type(value)}")
        data = memoryview(np.ascontiguousarray(value.as_numpy_array())).cast("B")
        if self.layout is not None and self.layout.indexed and key.startswith("c/"):
            return self._prefix + key, self.layout.arranged(data)
        return self._prefix + key, data

    async def _fetch(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None
    ) -> Buffer | None:
        """Return the bytes of an object, None if it does not exist."""
        most = self._part if byte_range is not None else self._most
        if key.rpartition("/")[2] in METADATA:
            most = MAX_METADATA_BYTES
        part = span(byte_range, most, self._prefix + key)
        data: Any
        with objects.errors_named(self._prefix + key, "read"):
            try:
                if self._folder is not None:
                    data = await asyncio.to_thread(self._folder.read, key, part, most)
                else:
                    client, root = self._client()
                    data = await s3.read_part(client, root + key, part, most)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None
            except s3.S3Error as error:
                if self.layout is not None or not s3.is_past_end(error):
                    raise
                data = b""  # as a file would give; with a layout it is a truncated shard
        return prototype.buffer.from_bytes(data)

    def _client(self) -> tuple[S3Store, str]:
        """Return the client of the bucket, and what stands before the keys of this folder."""
        if self._reached is None:
            client, root = s3.client(self.uri)
            self._reached = client, f"{root}/" if root else ""
        s3.check_not_forked(self.uri)
        return self._reached

    def _check_shard(
        self, key: str, buffer: Buffer, byte_range: ByteRequest | None, layout: ShardLayout
    ) -> None:
        size = layout.index_bytes
        if byte_range is not None and byte_range != SuffixByteRequest(size):
            return
        index = buffer[-size:]
        if len(index) != size or not key.startswith("c/"):
            return  # truncated: decoding it fails
        position = tuple(int(part) for part in key.split("/")[1:])
        absent = layout.absent(index.to_bytes(), position)
        if absent:
            raise MissingError(
                f"{self._prefix}{key}: {len(absent)} of the shard's chunks were never written, the "
                f"first at {absent[0]} of the chunk grid. They are not read as zeros; write the "
                "shard whole"
            )

    def _check_tail(
        self, key: str, buffer: Buffer, byte_range: ByteRequest | None, tails: PlacedTails
    ) -> None:
        """Refuse an object that is sound by itself and belongs elsewhere."""
        sees_the_end = byte_range is None or isinstance(byte_range, SuffixByteRequest)
        if not sees_the_end or len(buffer) < 4 or not key.startswith("c/"):
            return
        expected = tails.at(tuple(int(part) for part in key.split("/")[1:]))
        if buffer[-4:].to_bytes() != expected:
            raise CorruptError(
                f"{self._prefix}{key} is not the object that the run recorded at this place: it "
                "was swapped with another, or is of another copy of the run. Mend it with "
                "`petalign repair`"
            )


def _rebuild(
    uri: str,
    read_only: bool,
    sparse: bool,
    blind: bool,
    layout: ShardLayout | None,
    writes: Writes,
) -> CheckedStore:
    return CheckedStore(
        uri, read_only=read_only, sparse=sparse, blind=blind, layout=layout, writes=writes
    )
