"""Create and open the zarr arrays of a run, and open those of others.

Inner chunks are ``bytes, zstd (level 1, checksum), crc32c`` and a shard's index carries a crc32c.
EM noise compresses by a few per cent at any level, so level 1 it is. Black chunks are written like
all others.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import zarr
from numpy.typing import DTypeLike
from zarr.codecs import Crc32cCodec, ShardingCodec, ZstdCodec
from zarr.storage import MemoryStore, StorePath

from storage import store
from storage.checked import CheckedStore
from storage.errors import (
    ChunkGridError,
    ConflictError,
    CorruptError,
    MissingError,
    StorageError,
)
from storage.grid import cut_grid
from storage.shards import ShardLayout

Array = zarr.Array[Any]

_CONFIG: Any = {"write_empty_chunks": True, "read_missing_chunks": False}


def create_array(
    run_uri: str,
    path: str,
    *,
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    shard: tuple[int, ...] | None = None,
    dtype: DTypeLike,
    fill_value: float,
    dimension_names: tuple[str, ...],
    attributes: dict[str, Any] | None = None,
) -> Array:
    """Create an array, or open the one that was created before with the same arguments.

    Parameters
    ----------
    shape : tuple of int
    chunk : tuple of int
        What is read singly. Cut to the array where the array is smaller.
    shard : tuple of int, optional
        What is written at once, one object; a multiple of `chunk` in each axis. Cut to the
        smallest multiple of the chunk that covers the array. Without it each chunk is an object,
        and so it is where a shard would hold a single chunk.
    fill_value : float
        Read outside the array by `read`: 0 in images, NaN in float arrays.
    dimension_names : tuple of str
        One name per axis.

    Raises
    ------
    ChunkGridError
        If the axes do not agree in number, or a shard is not a whole number of chunks.
    ConflictError
        If there is another array of this name.
    """
    uri = store.join(run_uri, path)
    try:
        chunk, shard = cut_grid(shape, chunk, shard)
    except ChunkGridError as error:
        raise ChunkGridError(f"{uri}: {error}") from None
    draft = zarr.create_array(
        MemoryStore(),
        shape=shape,
        chunks=chunk,
        shards=shard,
        dtype=np.dtype(dtype),
        fill_value=fill_value,
        compressors=[ZstdCodec(level=1, checksum=True), Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "/"},
        dimension_names=dimension_names,
        attributes=attributes or {},
    )
    document = json.loads(json.dumps(draft.metadata.to_dict()))
    try:
        store.create_json(store.join(uri, "zarr.json"), document)
    except ConflictError:
        found = store.read_json(store.join(uri, "zarr.json"))
        differing = sorted(
            f"{k}: {found.get(k)} there, {document.get(k)} wanted"
            for k in {*found, *document}
            if found.get(k) != document.get(k)
        )
        if differing:
            raise ConflictError(
                f"{uri} exists as another array ({'; '.join(differing)}). A run's arrays are "
                "never changed: another configuration is another run"
            ) from None
    return _assembled(uri, document)


def open_array(run_uri: str, path: str) -> Array:
    """Open an array of a run, for reading and for writing units that are not there yet.

    Raises
    ------
    MissingError
        If there is no array of this name.
    CorruptError
        If its metadata cannot be understood.
    """
    uri = store.join(run_uri, path)
    try:
        document = store.read_json(store.join(uri, "zarr.json"))
    except MissingError:
        raise MissingError(
            f"{run_uri} has no array {path!r}: {uri}/zarr.json does not exist. The stage that "
            "writes it has not run"
        ) from None
    if not isinstance(document, dict) or document.get("node_type") != "array":
        raise MissingError(f"{uri} is a zarr group or something else, not an array")
    return _assembled(uri, document)


def open_foreign(uri: str, path: str = "") -> Array:
    """Open an array, zarr 2 or 3, that another program wrote, for reading only.

    Its absent chunks read as the fill value, as zarr's specification says.

    Raises
    ------
    MissingError
        If there is no array.
    CorruptError
        If its metadata or codecs cannot be understood.
    """
    target = store.join(uri, path) if path else store.normalise_uri(uri)
    try:
        return zarr.open_array(store.zarr_store(target, read_only=True, sparse=True), mode="r")
    except StorageError:
        raise
    except FileNotFoundError:
        raise MissingError(f"{target} is not a zarr array") from None
    except Exception as error:
        raise CorruptError(f"{target} cannot be opened as a zarr array: {error}") from error


def write_unit(array: Array) -> tuple[int, ...]:
    """Return the shape of one object of the array: its shard, or its chunk if it has none."""
    return tuple(array.shards or array.chunks)


def for_writing(array: Array) -> Array:
    """Return the same array, which finds no chunk, so that nothing old is merged into a write.

    Raises
    ------
    StorageError
        If the array was opened for reading only, or not by this module.
    """
    checked = array.store
    if not isinstance(checked, CheckedStore) or checked.read_only:
        raise StorageError(f"{checked} is open for reading only; use open_array for a run's arrays")
    return _bound(array.metadata, checked.for_writing())


def _assembled(uri: str, document: dict[str, Any]) -> Array:
    """Return the array whose zarr.json holds `document`."""
    try:
        plain = _bound(document, CheckedStore(uri, read_only=False))
        codec = getattr(plain.metadata, "codecs", (None,))[0]
        if isinstance(codec, ShardingCodec) and codec.index_location == "end":
            layout = ShardLayout(plain.shape, write_unit(plain), plain.chunks)
            return _bound(plain.metadata, CheckedStore(uri, read_only=False, layout=layout))
        return plain
    except StorageError:
        raise
    except Exception as error:
        raise CorruptError(f"{uri}/zarr.json does not describe an array: {error}") from error


def _bound(metadata: Any, checked: CheckedStore) -> Array:
    return zarr.Array(zarr.AsyncArray(metadata, StorePath(checked), config=_CONFIG))
