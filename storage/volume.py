"""Voxels in and out of the arrays of a run, with every check there is.

Objects are written whole, once, and with checksums. An array's *write unit* is what one object
holds: a shard, or a chunk where there are none. A flipped bit is a `CorruptError`. Black is
written like anything else, so that "absent" never means "black": it is a `MissingError`.

`storage.arrays` creates and opens; its functions are offered here too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.errors import ChunkNotFoundError

from storage import store
from storage.arrays import (
    Array,
    create_array,
    for_writing,
    open_array,
    open_foreign,
    read_metadata,
    write_unit,
)
from storage.errors import (
    ChunkGridError,
    CorruptError,
    MismatchError,
    MissingError,
    StorageError,
)
from storage.grid import ZYX, Box, Region, region_box, show_region, torn_axes
from storage.limits import check_region
from storage.ome import AXES, group_document, level_shape, ome_attributes

__all__ = [
    "Array",
    "create_array",
    "create_image",
    "open_array",
    "open_foreign",
    "read",
    "read_metadata",
    "read_region",
    "write",
    "write_region",
    "write_unit",
]


def create_image(
    uri: str,
    *,
    shape: ZYX,
    chunk: ZYX,
    shard: ZYX | None,
    resolution_nm: tuple[float, float, float],
    mips: int,
    name: str,
    halved: int = 0,
) -> list[Array]:
    """Create an OME-Zarr 0.5 pyramid of uint8 images; each level halves y and x, not z.

    Parameters
    ----------
    uri : str
        Of the group; its arrays are called ``0`` to ``mips - 1``.
    shape, chunk, shard : tuple of int
        (z, y, x) of mip 0; the coarser levels use the same chunks and shards, cut to their size.
    resolution_nm : tuple of float
        Voxel size of mip 0, (z, y, x).
    mips : int
        Number of levels, at least 1.
    halved : int
        Levels after mip 0 whose shards are halved in y and x with the image: one of their shards
        shows the tissue of one shard of mip 0. Those of the others have the size of `shard`.

    Returns
    -------
    list of Array
        Finest first.

    Raises
    ------
    ChunkGridError
        If there is no level, or as `create_array` does.
    ConflictError
        If there is another image of this name.
    """
    if mips < 1:
        raise ChunkGridError(f"{uri}: an image needs 1 level or more, got mips={mips}")
    arrays = [
        create_array(
            uri,
            str(mip),
            shape=level_shape(shape, mip),
            chunk=chunk,
            shard=_halved(shard, mip) if shard and mip <= halved else shard,
            dtype=np.uint8,
            fill_value=0,
            dimension_names=AXES,
        )
        for mip in range(mips)
    ]
    attributes = ome_attributes(name=name, resolution_nm=resolution_nm, mips=mips)
    store.create_json(store.join(uri, "zarr.json"), group_document(attributes))
    return arrays


def _halved(shard: ZYX, mip: int) -> ZYX:
    return shard[0], shard[1] >> mip, shard[2] >> mip


def read(array: Array, box: Box) -> NDArray[Any]:
    """Read a box of a (z, y, x) array; what lies outside the array is the fill value.

    Raises
    ------
    MissingError
        If a chunk inside the array was not written.
    CorruptError
        If a checksum does not hold or a chunk cannot be decoded; names the array and the box.
    """
    if array.ndim != 3:
        raise MismatchError(
            f"{array.store}: a Box is (z, y, x), the array has {array.ndim} axes; use read_region"
        )
    inside = box.clip(array.shape)
    if inside == box:
        return read_region(array, box.slices)
    padded = np.full(box.shape, array.fill_value, dtype=array.dtype)
    if 0 not in inside.shape:
        place = tuple(
            slice(a - b, c - b)
            for a, b, c in zip(inside.start, box.start, inside.stop, strict=True)
        )
        padded[place] = read_region(array, inside.slices)
    return padded


def read_region(array: Array, region: Region) -> NDArray[Any]:
    """Read a region (one slice per axis, inside the array) of an array of any number of axes.

    Raises
    ------
    MismatchError
        If the region leaves the array or has a step.
    LimitError
        If it touches more chunks than `storage.limits` allows.
    MissingError
        If a chunk was not written.
    CorruptError
        If a checksum does not hold or a chunk cannot be decoded.
    """
    with _naming(array.store):
        start, stop = region_box(array.shape, region)
    check_region(start, stop, array.chunks, f"{array.store}, region {show_region(start, stop)}")
    try:
        data = array[region]
    except MemoryError:
        raise
    except Exception as error:
        raise _read_error(array, start, stop, error) from error
    return np.asarray(data)


def write(array: Array, box: Box, data: NDArray[Any]) -> str:
    """Write a box of whole shards of a (z, y, x) array; see `write_region`."""
    if array.ndim != 3:
        raise MismatchError(
            f"{array.store}: a Box is (z, y, x), the array has {array.ndim} axes; use write_region"
        )
    return write_region(array, box.slices, data)


def write_region(array: Array, region: Region, data: NDArray[Any]) -> str:
    """Write whole units of an array, each object once, and return the digest of the voxels.

    Writing the same data again is a success and changes nothing.

    Parameters
    ----------
    region : tuple of slice
        Starts on the grid of `write_unit`, and ends on it or at the array's edge.
    data : ndarray
        Of the region's shape and the array's dtype.

    Returns
    -------
    digest : str
        sha256 (hex) of `data` in C order.

    Raises
    ------
    ChunkGridError
        If the region covers part of a unit: another writer could hold the rest.
    MismatchError
        If `data` has another shape or dtype, or the region leaves the array.
    ConflictError
        If a unit was written before with other voxels.
    """
    with _naming(array.store):
        start, stop = region_box(array.shape, region)
    unit = write_unit(array)
    torn = torn_axes(start, stop, unit, array.shape)
    if torn:
        raise ChunkGridError(
            f"{array.store}: the region {show_region(start, stop)} is not a whole number of units "
            f"{unit} along axis {', '.join(map(str, torn))} of {array.shape}; write whole shards "
            "(tile the array by write_unit(array))"
        )
    extent = tuple(b - a for a, b in zip(start, stop, strict=True))
    if data.shape != extent or data.dtype != array.dtype:
        raise MismatchError(
            f"{array.store}: the region {show_region(start, stop)} takes {array.dtype} {extent}, "
            f"got {data.dtype} {data.shape}"
        )
    data = np.ascontiguousarray(data)
    for_writing(array)[region] = data
    return hashlib.sha256(data).hexdigest()


def _read_error(
    array: Array, start: tuple[int, ...], stop: tuple[int, ...], error: Exception
) -> StorageError:
    """Return the error of storage that lies behind what zarr raised."""
    inner: BaseException = error
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    place = f"{array.store}, region {show_region(start, stop)}"
    if isinstance(inner, StorageError):
        return type(inner)(f"{place}: {inner}")
    if isinstance(inner, ChunkNotFoundError):
        return MissingError(f"{place}: chunks were never written or were deleted")
    return CorruptError(
        f"{place}: a chunk is damaged ({type(inner).__name__}: {inner}). Restore the object, or "
        "delete it and its record below commits/ and resume the run"
    )


@contextmanager
def _naming(what: object) -> Iterator[None]:
    """Put the array's name before the messages of voxel arithmetic, which knows no names."""
    try:
        yield
    except (ChunkGridError, MismatchError) as error:
        raise type(error)(f"{what}: {error}") from None
