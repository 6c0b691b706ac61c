"""Create and open the zarr arrays of a run, and open those of others.

Inner chunks are ``bytes, zstd (level 1, checksum), crc32c`` and a shard's index carries a crc32c.
EM noise compresses by a few per cent at any level, so level 1 it is. Black chunks are written like
all others.
"""

from __future__ import annotations

import json
from copy import copy
from typing import Any

import numpy as np
import zarr
from numpy.typing import DTypeLike
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore, StorePath

from storage import store
from storage.checked import CheckedStore
from storage.codecs import bounded, bounded_v2
from storage.commit.tails import PlacedTails
from storage.commit.trust import Trust
from storage.errors import (
    ChunkGridError,
    ConflictError,
    CorruptError,
    MissingError,
    StorageError,
)
from storage.grid import cut_grid
from storage.limits import ArrayLimits, check_array, inflated_bytes
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
    return _assembled(f"{uri}/zarr.json", document, CheckedStore(uri))


def open_array(run_uri: str, path: str, *, held: Trust | None = None) -> Array:
    """Open an array of a run, for reading and for writing units that are not there yet.

    Parameters
    ----------
    held : Trust, optional
        What the run's seals state: then the metadata and each object that is read must be theirs.

    Raises
    ------
    MissingError
        If there is no array of this name.
    CorruptError
        If its metadata cannot be understood, or are not what the run was sealed with.
    """
    uri = store.join(run_uri, path)
    document = read_metadata(uri, "zarr.json")
    if held is not None and document is not None:
        document = json.loads(held.read_document(f"{path}/zarr.json"))
    if document is None:
        raise MissingError(
            f"{run_uri} has no array {path!r}: {uri}/zarr.json does not exist. The stage that "
            "writes it has not run"
        )
    if not isinstance(document, dict) or document.get("node_type") != "array":
        raise MissingError(f"{uri} is a zarr group or something else, not an array")
    tails = None if held is None else held.tails_of(path)
    return _assembled(f"{uri}/zarr.json", document, CheckedStore(uri), tails=tails)


def open_growing(uri: str, path: str, sections: int) -> Array:
    """Open an array of sections (z first) to write any of `sections`, those beyond its end too.

    What is written replaces what was there, object by object; the array's own shape stays.

    Raises
    ------
    MissingError
        If there is no array.
    CorruptError
        If its metadata cannot be understood.
    """
    target = store.join(uri, path)
    document = read_metadata(target, "zarr.json")
    if not isinstance(document, dict) or document.get("node_type") != "array":
        raise MissingError(f"{target} is not a zarr 3 array")
    check_array(document, f"{target}/zarr.json")
    longer = {**document, "shape": [max(sections, document["shape"][0]), *document["shape"][1:]]}
    return _assembled(f"{target}/zarr.json", longer, CheckedStore(target, writes="any"))


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
    for name in ("zarr.json", ".zarray"):
        document = read_metadata(target, name)
        if document is not None:
            where = f"{target}/{name}"
            checked = CheckedStore(target, read_only=True, sparse=True)
            return _assembled(where, document, checked, config={})
    raise MissingError(f"{target} is not a zarr array")


def read_metadata(uri: str, name: str) -> Any:
    """Return a metadata document of a zarr node that another program wrote; None if it is absent.

    Parameters
    ----------
    name : str
        One of `storage.checked.METADATA`.

    Raises
    ------
    LimitError
        If it is too large.
    CorruptError
        If it is not JSON.
    """
    checked = CheckedStore(uri, read_only=True, sparse=True)

    def read() -> tuple[bytes, None]:
        found = sync(checked.get(name, default_buffer_prototype()))
        return (b"null" if found is None else found.to_bytes()), None

    return store.parsed(f"{uri}/{name}", read)[0]


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
    return _bound(array.metadata, checked.for_writing(), _CONFIG)


def _assembled(
    where: str,
    document: Any,
    checked: CheckedStore,
    config: dict[str, bool] = _CONFIG,
    *,
    tails: PlacedTails | None = None,
) -> Array:
    """Return the array that a zarr.json or .zarray describes, within the limits."""
    sizes = check_array(document, where)
    try:
        metadata = _bounded(zarr.AsyncArray(document, StorePath(checked)).metadata, sizes)
        plain = zarr.Array(zarr.AsyncArray(metadata, StorePath(checked)))
        codec = getattr(metadata, "codecs", (None,))[0]
        indexed = (
            isinstance(codec, ShardingCodec)
            and codec.index_location == "end"
            and [type(c) for c in codec.index_codecs] == [BytesCodec, Crc32cCodec]
        )
        chain = getattr(codec if indexed else metadata, "codecs", (None,))
        sound = type(chain[-1]) is Crc32cCodec
        unit, itemsize = write_unit(plain), plain.dtype.itemsize
        layout = ShardLayout(plain.shape, unit, plain.chunks, itemsize, indexed, sound, tails)
        return _bound(metadata, checked.with_layout(layout), config)
    except StorageError:
        raise
    except Exception as error:
        raise CorruptError(f"{where} does not describe an array: {error}") from error


def _bounded(metadata: Any, sizes: ArrayLimits) -> Any:
    """Return the same metadata, whose codecs decode no more than a chunk can hold."""
    limited = copy(metadata)
    if metadata.zarr_format == 3:
        codecs = tuple(bounded(codec) for codec in metadata.codecs)
        object.__setattr__(limited, "codecs", codecs)
        return limited
    most = inflated_bytes(sizes.chunk)
    compressor = metadata.compressor
    filters = metadata.filters
    if compressor is not None:
        object.__setattr__(limited, "compressor", bounded_v2(compressor, most))
    if filters is not None:
        object.__setattr__(limited, "filters", tuple(bounded_v2(f, most) for f in filters))
    return limited


def _bound(metadata: Any, checked: CheckedStore, config: Any) -> Array:
    return zarr.Array(zarr.AsyncArray(metadata, StorePath(checked), config=config))
