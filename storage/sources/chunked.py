"""Zarr 2 and 3 arrays and OME-Zarr 0.4 and 0.5 groups as sources, on file:// and s3://."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import store
from storage.errors import CorruptError, MissingError, SourceError
from storage.grid import ZYX, Box
from storage.growing import read_listing
from storage.sources.files import digest, slab_digests
from storage.sources.grey import check_band, check_dtype, check_shape
from storage.sources.resolution import Resolution, in_nm
from storage.sources.slabs import Slabs
from storage.volume import Array, open_foreign, read_metadata, read_region, write_unit

_CHUNKS_AT_ONCE = 2**15
"""zarr keeps a list of the chunks of a read; with tiny ones it is longer than the voxels."""

_BYTES_AT_ONCE = 32 * 2**20

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs")


@dataclass(frozen=True)
class ZarrSource:
    """The sections of a zarr array whose last axes are (z, y, x), or (y, x) for a single one."""

    group_uri: str
    path: str
    """Of the array below the group; empty if the URI is that of the array."""
    shape: ZYX
    resolution_nm: Resolution | None
    names: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Return what identifies the content: it enters the run's key."""
        return {
            "kind": "zarr",
            "shape": list(self.shape),
            "dtype": "uint8",
            "sections": self._fingerprints(range(self.shape[0])),
        }

    def fingerprint(self, z: int) -> str:
        """Return a digest of the metadata and of the objects that hold section `z`.

        Of the objects, their names, sizes and tags (ETags in S3, times of change on disk). Objects
        of more than one section (chunks several sections deep) give those sections one digest.
        """
        return self._fingerprints(range(z, z + 1))[0]

    def read_rows(self, z: int, y0: int, y1: int) -> NDArray[np.uint8]:
        """Return rows [y0, y1) of section `z`; absent chunks read as the array's fill value.

        Raises
        ------
        SourceError
            If a chunk of these rows is damaged; others may be whole.
        UnavailableError
            If the store does not answer.
        """
        check_band(self.shape, z, y0, y1, self._array_uri)
        try:
            return self._slabs.read_rows(z, y0, y1)
        except CorruptError as error:
            raise SourceError(f"section {z}: {error}; it will be treated as missing") from error

    @property
    def _array_uri(self) -> str:
        return store.join(self.group_uri, self.path) if self.path else self.group_uri

    @cached_property
    def _array(self) -> Array:
        return open_foreign(self.group_uri, self.path)

    @cached_property
    def _slabs(self) -> Slabs:
        array = self._array

        tall, wide = array.chunks[-2:]
        across = -(-self.shape[2] // wide)

        def read(box: Box) -> NDArray[np.uint8]:
            voxels = np.empty(box.shape, np.uint8)
            y0, y1 = box.start[1], box.stop[1]
            chunk_rows = _BYTES_AT_ONCE // (box.shape[0] * tall * box.shape[2])
            step = max(min(chunk_rows, _CHUNKS_AT_ONCE // across), 1) * tall
            for y in range(y0 - y0 % tall, y1, step):
                part = (box.slices[0], slice(max(y, y0), min(y + step, y1)), box.slices[2])
                # Of the leading axes, which have length 1, and of z if there is none, all.
                region = (*(slice(None),) * array.ndim, *part)[-array.ndim :]
                rows = voxels[:, part[1].start - y0 : part[1].stop - y0]
                rows[:] = read_region(array, region).reshape(rows.shape)
            return voxels

        return Slabs(self.shape, array.chunks[-3] if array.ndim > 2 else 1, read)

    def _fingerprints(self, sections: range) -> list[str]:
        metadata = []
        for uri in dict.fromkeys((self.group_uri, self._array_uri)):
            for name in _METADATA:
                try:
                    metadata.append(_without_extent(store.read_bytes(store.join(uri, name))))
                except MissingError:
                    continue
        array = self._array
        depth = write_unit(array)[-3] if array.ndim > 2 else 1

        def slab(key: str) -> int | None:
            if key.rpartition("/")[2] in _METADATA:
                return None
            place = re.findall(r"[0-9]+", key)[-array.ndim :]
            if len(place) < array.ndim:
                return None
            return int(place[-3]) if array.ndim > 2 else 0

        folder = self._folder(sections[0] // depth) if len(sections) == 1 else ""
        digests = slab_digests(self._array_uri, slab, below=folder)
        return [digest(metadata, digests.get(z // depth, "")) for z in sections]

    def _folder(self, slab: int) -> str:
        """Return the folder that holds the objects of a slab and no others; empty if none does."""
        array = self._array
        key = array.metadata.encode_chunk_key((*(0,) * (array.ndim - 3), slab, 0, 0))
        is_nested = array.ndim > 2 and key.count("/") >= array.ndim - 1
        return key.rsplit("/", 2)[0] if is_nested else ""

    def __getstate__(self) -> dict[str, Any]:
        """Travel without open arrays and cached voxels."""
        left_behind = ("_array", "_slabs")
        return {k: v for k, v in self.__dict__.items() if k not in left_behind}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the fields of a frozen instance."""
        self.__dict__.update(state)


def _without_extent(metadata: bytes) -> bytes:
    """Return the metadata of a node without how many sections there are.

    A volume that grew at its end has the same voxels in the sections that it had before.
    """
    try:
        document = json.loads(metadata)
    except (ValueError, RecursionError):
        return metadata
    if isinstance(document, dict) and isinstance(document.get("shape"), list):
        document["shape"] = document["shape"][-2:]
    return json.dumps(document, sort_keys=True).encode()


def open_zarr(uri: str) -> ZarrSource:
    """Find the sections of a zarr array or of the finest level of an OME-Zarr group.

    Raises
    ------
    SourceError
        If there is neither, the axes are not (z, y, x) after axes of length 1, or the voxels are
        not uint8.
    """
    path, resolution_nm, axes = "", None, None
    try:
        attributes = _group_attributes(uri)
        if attributes is not None:
            path, resolution_nm, axes = _finest_level(uri, attributes)
        array = open_foreign(uri, path)
    except MissingError as error:
        raise SourceError(f"{uri}: {error}; expected a zarr array or an OME-Zarr group") from error
    except CorruptError as error:
        raise SourceError(f"{uri} is a zarr volume that cannot be used: {error}") from error
    check_dtype(array.dtype, f"{uri} {path}".strip())
    _check_axes(uri, array, axes)
    shape = (1, *array.shape) if array.ndim == 2 else array.shape[-3:]
    check_shape(shape, uri)
    return ZarrSource(uri, path, shape, resolution_nm, _names(uri, shape[0]))


def _names(uri: str, sections: int) -> tuple[str, ...]:
    """Return the names that a volume states for its sections, or numbers."""
    try:
        listing = read_listing(uri)
    except CorruptError:  # another program's file of this name is no reason to refuse the voxels
        listing = None
    if listing is not None and len(listing.names) >= sections:
        return listing.names[:sections]
    name = uri.rpartition("/")[2]
    return tuple(f"{name}[{z}]" for z in range(sections))


def has_zarr(uri: str) -> bool:
    """Return whether there is a zarr array or group at `uri`."""
    return any(store.exists(store.join(uri, name)) for name in ("zarr.json", ".zarray", ".zgroup"))


def _group_attributes(uri: str) -> dict[str, Any] | None:
    """Return the attributes of a group, None if there is an array."""
    document = read_metadata(uri, "zarr.json")
    if document is not None:
        node = _mapping(document, f"{uri}/zarr.json")
        if node.get("node_type") == "array":
            return None
        return _mapping(node.get("attributes") or {}, f"{uri}/zarr.json, its attributes")
    if store.exists(store.join(uri, ".zarray")):
        return None
    attributes = read_metadata(uri, ".zattrs")
    if attributes is not None:
        return _mapping(attributes, f"{uri}/.zattrs")
    if store.exists(store.join(uri, ".zgroup")):
        return {}
    raise MissingError("there is no zarr.json, .zarray or .zgroup")


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CorruptError(f"{what}: expected a mapping, got {type(value).__name__}")
    return value


def _finest_level(uri: str, attributes: dict[str, Any]) -> tuple[str, Resolution | None, list[str]]:
    """Return path, voxel size and axes of level 0 of an OME-Zarr group."""
    ome = _mapping(attributes.get("ome", attributes), f"{uri}, its OME-Zarr metadata")
    multiscales = ome.get("multiscales")
    if not multiscales:
        members = ", ".join([n for n in store.list_names(uri) if not n.startswith(".")][:8])
        raise SourceError(
            f"{uri} is a zarr group without OME-Zarr metadata; give the URI of the array itself. "
            f"Below it: {members or 'nothing'}"
        )
    try:
        image = multiscales[0]
        dataset = image["datasets"][0]
        axes = [a if isinstance(a, str) else a["name"] for a in image["axes"]]
        units = [None if isinstance(a, str) else a.get("unit") for a in image["axes"]]
        scale = [1.0] * len(axes)
        for holder in (dataset, image):
            for transform in holder.get("coordinateTransformations", ()):
                if transform["type"] == "scale":
                    scale = [s * float(t) for s, t in zip(scale, transform["scale"], strict=True)]
        path = str(dataset["path"]).strip("/")
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise SourceError(
            f"{uri} has OME-Zarr metadata that cannot be understood "
            f"({type(error).__name__}: {error}); expected version 0.4 or 0.5"
        ) from error
    sizes, unit_of = dict(zip(axes, scale, strict=True)), dict(zip(axes, units, strict=True))
    return path, in_nm([sizes.get(a) for a in "zyx"], [unit_of.get(a) for a in "zyx"]), axes


def _check_axes(uri: str, array: Array, axes: list[str] | None) -> None:
    """Refuse arrays whose axes are not (z, y, x) or (y, x), after axes of length 1."""
    named = axes or getattr(array.metadata, "dimension_names", None)
    spatial = [str(a).lower() for a in named or () if str(a).lower() in ("z", "y", "x")]
    if spatial and spatial != ["z", "y", "x"][-len(spatial) :]:
        raise SourceError(
            f"{uri} has the axes {list(named or ())}; expected z, y, x in this order. Transpose it"
        )
    if array.ndim < 2 or any(n != 1 for n in array.shape[:-3]):
        raise SourceError(
            f"{uri} has the shape {array.shape}; expected (z, y, x), with nothing before it but "
            "axes of length 1. Save one channel and one time point as its own array"
        )
    if 0 in array.shape:
        raise SourceError(f"{uri} is empty: its shape is {array.shape}")
