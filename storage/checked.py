"""The zarr store of a run: nothing outside its folder, nothing twice, nothing missing.

What a plain zarr store does silently is an error here:

- a key that leaves the array's folder (``..``, absolute, a symbolic link) is refused;
- an object is created once; the same bytes again are a success, other bytes a `ConflictError`;
- an absent chunk or shard is a `MissingError`, never the fill value;
- an absent inner chunk of a shard that exists is a `MissingError` too. zarr fills it whatever its
  settings are, so the shard's index is looked at as it passes; that costs no request.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from zarr.abc.buffer import Buffer
from zarr.abc.store import ByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import BufferPrototype
from zarr.storage import LocalStore, ObjectStore

from storage import s3
from storage import store as objects
from storage.errors import MissingError, StorageError, UriError
from storage.shards import ShardLayout
from storage.uri import check_key, join, local_path, normalise_uri

METADATA = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
"""Objects that zarr looks for without knowing whether they exist."""


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
        Of the array whose root the folder is; without it, shards are not looked into.
    """

    supports_writes = True
    supports_deletes = False
    supports_listing = True
    supports_consolidated_metadata = False

    def __init__(
        self,
        uri: str,
        *,
        read_only: bool,
        sparse: bool = False,
        blind: bool = False,
        layout: ShardLayout | None = None,
    ) -> None:
        super().__init__(read_only=read_only)
        self.uri = normalise_uri(uri)
        self.sparse = sparse
        self.blind = blind
        self.layout = layout
        root = local_path(self.uri)
        self._root: Path | None = root.resolve() if root is not None else None
        self._reader: Store | None = None
        self._prefix = ""

    def with_layout(self, layout: ShardLayout | None) -> CheckedStore:
        """Return the same store, which also looks into shards."""
        return _rebuild(self.uri, self.read_only, self.sparse, self.blind, layout)

    def for_writing(self) -> CheckedStore:
        """Return the same store, which finds no chunk."""
        return _rebuild(self.uri, self.read_only, self.sparse, True, self.layout)

    def with_read_only(self, read_only: bool = False) -> CheckedStore:
        """Return the same store with another permission."""
        return _rebuild(self.uri, read_only, self.sparse, self.blind, self.layout)

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
        return _rebuild, (self.uri, self.read_only, self.sparse, self.blind, self.layout)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the bytes of an object; None only for metadata, or if the store is sparse."""
        self._check(key)
        is_metadata = key.rpartition("/")[2] in METADATA
        if self.blind and not is_metadata:
            return None
        buffer = await self._fetch(key, prototype, byte_range)
        if buffer is None:
            if self.sparse or is_metadata:
                return None
            raise MissingError(
                f"{join(self.uri, key)} does not exist: the chunk or shard was never written, or "
                "was deleted. It is not read as zeros"
            )
        if self.layout is not None and key.startswith("c/"):
            self._check_shard(key, buffer, byte_range, self.layout)
        return buffer

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return the bytes of several requests, in their order."""
        return list(await asyncio.gather(*(self.get(k, prototype, r) for k, r in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Return whether an object exists."""
        self._check(key)
        return await asyncio.to_thread(objects.exists, join(self.uri, key))

    async def set(self, key: str, value: Buffer) -> None:
        """Create an object once."""
        self._check(key)
        self._check_writable()
        data = memoryview(np.ascontiguousarray(value.as_numpy_array())).cast("B")
        await asyncio.to_thread(objects.create_bytes, join(self.uri, key), data)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Create an object once: writing is never anything else here."""
        await self.set(key, value)

    async def delete(self, key: str) -> None:
        """Refuse."""
        raise StorageError(f"{self.uri}/{key}: objects of a run are never deleted by zarr")

    async def list(self) -> AsyncIterator[str]:
        """Yield every key."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield every key that lies in the folder `prefix`."""
        async for name in self.list_dir(prefix):
            key = f"{prefix.rstrip('/')}/{name}" if prefix else name
            if await self.exists(key):
                yield key
            else:
                async for below in self.list_prefix(key):
                    yield below

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below `prefix`."""
        prefix = prefix.rstrip("/")
        folder = join(self.uri, self._check(prefix)) if prefix else self.uri
        for name in await asyncio.to_thread(objects.list_names, folder):
            yield name

    def _check(self, key: str) -> str:
        check_key(key)
        if self._root is not None:
            path = self._root / key
            # The folder itself may be reached through links; what lies in it may not leave it.
            if os.path.realpath(path) != str(path):
                raise UriError(
                    f"{self.uri}/{key} is reached through a symbolic link, which may lead "
                    "anywhere; put the data itself there"
                )
        return key

    async def _fetch(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None
    ) -> Buffer | None:
        with objects.errors_named(f"{self.uri}/{key}", "read"):
            if self._reader is None:
                if self._root is not None:
                    self._reader = LocalStore(self._root, read_only=True)
                else:
                    client, prefix = s3.client(self.uri)
                    self._prefix = f"{prefix}/" if prefix else ""
                    self._reader = ObjectStore(client, read_only=True)
            try:
                return await self._reader.get(self._prefix + key, prototype, byte_range)
            except FileNotFoundError:  # the folder itself
                return None

    def _check_shard(
        self, key: str, buffer: Buffer, byte_range: ByteRequest | None, layout: ShardLayout
    ) -> None:
        size = layout.index_bytes
        if isinstance(byte_range, SuffixByteRequest) and byte_range.suffix == size:
            index = buffer
        elif byte_range is None:
            index = buffer[-size:]
        else:
            return
        if len(index) != size:
            return  # truncated: decoding it fails
        position = tuple(int(part) for part in key.split("/")[1:])
        absent = layout.absent(index.to_bytes(), position)
        if absent:
            raise MissingError(
                f"{self.uri}/{key}: {len(absent)} of the shard's chunks were never written, the "
                f"first at {absent[0]} of the chunk grid. They are not read as zeros; write the "
                "shard whole"
            )


def _rebuild(
    uri: str, read_only: bool, sparse: bool, blind: bool, layout: ShardLayout | None
) -> CheckedStore:
    return CheckedStore(uri, read_only=read_only, sparse=sparse, blind=blind, layout=layout)
