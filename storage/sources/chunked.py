"""Zarr 2 and 3 arrays and OME-Zarr 0.4 and 0.5 groups as sources, on file:// and s3://."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import store
from storage.errors import CorruptError, MissingError, SourceError
from storage.grid import ZYX
from storage.sources.grey import check_dtype
from storage.sources.tiff import Resolution
from storage.volume import Array, open_foreign, read_region, write_unit

MAX_LISTED = 100_000
"""Objects of a source that are looked at for its description; 100 requests to S3."""

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs")

_NM = {
    "angstrom": 0.1, "nanometer": 1.0, "micrometer": 1e3, "millimeter": 1e6, "centimeter": 1e7,
    "meter": 1e9,
}  # fmt: skip
"""Nanometres of the units of length that NGFF lists and that occur in microscopy."""

_SLAB_BYTES = 256 * 2**20


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
        """Return what identifies the content: it enters the run's key.

        The metadata's digest, and for each section a digest of the names, sizes and tags of the
        objects that hold it. Objects of more than one section (chunks several sections deep) give
        those sections one digest. Volumes of more than `MAX_LISTED` objects are identified by
        their metadata alone: change their name when you change their content.
        """
        digest = hashlib.sha256()
        for uri in dict.fromkeys((self.group_uri, self._array_uri)):
            for name in _METADATA:
                try:
                    digest.update(store.read_bytes(store.join(uri, name)))
                except MissingError:
                    continue
        return {
            "kind": "zarr",
            "shape": list(self.shape),
            "dtype": "uint8",
            "metadata_sha256": digest.hexdigest(),
            "sections": self._section_digests(),
        }

    def read_section(self, z: int) -> NDArray[np.uint8]:
        """Return section `z`, uint8 (ny, nx); absent chunks read as the array's fill value.

        Raises
        ------
        SourceError
            If a chunk of this section is damaged; other sections may be whole.
        UnavailableError
            If the store does not answer.
        """
        nz = self.shape[0]
        if not 0 <= z < nz:
            raise SourceError(f"{self._array_uri} has the sections 0 to {nz - 1}; got {z}")
        try:
            return self._slabs.read(z)
        except CorruptError as error:
            raise SourceError(f"section {z}: {error}; it will be treated as missing") from error

    @property
    def _array_uri(self) -> str:
        return store.join(self.group_uri, self.path) if self.path else self.group_uri

    @cached_property
    def _slabs(self) -> _Slabs:
        return _Slabs(open_foreign(self.group_uri, self.path))

    def __getstate__(self) -> dict[str, Any]:
        """Travel without open arrays and cached voxels."""
        return {k: v for k, v in self.__dict__.items() if k != "_slabs"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the fields of a frozen instance."""
        self.__dict__.update(state)

    def _section_digests(self) -> list[str] | None:
        nz = self.shape[0]
        array = self._slabs.array
        depth = write_unit(array)[-3] if array.ndim > 2 else 1
        slabs: dict[int, list[str]] = defaultdict(list)
        for count, (key, size, tag) in enumerate(store.walk(self._array_uri)):
            if count >= MAX_LISTED:
                return None
            if key.rpartition("/")[2] in _METADATA:
                continue
            place = re.findall(r"[0-9]+", key)[-array.ndim :]
            slab = int(place[-3]) if len(place) == array.ndim > 2 else 0
            slabs[slab].append(f"{key} {size} {tag}")
        digests = {
            slab: hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
            for slab, lines in slabs.items()
        }
        return [digests.get(z // depth, "") for z in range(nz)]


class _Slabs:
    """Reads sections; keeps the last slab, so that chunks of many sections are decoded once."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self._kept: tuple[int, NDArray[Any]] | None = None

    def read(self, z: int) -> NDArray[np.uint8]:
        leading = (slice(0, 1),) * (self.array.ndim - 3)
        plane = (slice(None), slice(None))
        if self.array.ndim == 2:
            return np.asarray(read_region(self.array, plane), dtype=np.uint8)
        depth = self.array.chunks[-3]
        ny, nx = self.array.shape[-2:]
        if depth == 1 or depth * ny * nx > _SLAB_BYTES:
            voxels = read_region(self.array, (*leading, slice(z, z + 1), *plane))
            return np.asarray(voxels.reshape(ny, nx), dtype=np.uint8)
        first = z - z % depth
        kept = self._kept  # one read: another thread may replace it
        if kept is None or kept[0] != first:
            stop = min(first + depth, self.array.shape[-3])
            voxels = read_region(self.array, (*leading, slice(first, stop), *plane))
            kept = (first, voxels.reshape(-1, ny, nx))
            self._kept = kept
        return np.array(kept[1][z - first], dtype=np.uint8)


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
    name = uri.rpartition("/")[2]
    names = tuple(f"{name}[{z}]" for z in range(shape[0]))
    return ZarrSource(uri, path, shape, resolution_nm, names)


def has_zarr(uri: str) -> bool:
    """Return whether there is a zarr array or group at `uri`."""
    return any(store.exists(store.join(uri, name)) for name in ("zarr.json", ".zarray", ".zgroup"))


def _group_attributes(uri: str) -> dict[str, Any] | None:
    """Return the attributes of a group, None if there is an array."""
    try:
        document = store.read_json(store.join(uri, "zarr.json"))
        if document.get("node_type") == "array":
            return None
        return dict(document.get("attributes") or {})
    except MissingError:
        if store.exists(store.join(uri, ".zarray")):
            return None
    except AttributeError:
        raise CorruptError(f"{uri}/zarr.json is not the metadata of a zarr node") from None
    try:
        return dict(store.read_json(store.join(uri, ".zattrs")))
    except MissingError:
        if store.exists(store.join(uri, ".zgroup")):
            return {}
        raise MissingError("there is no zarr.json, .zarray or .zgroup") from None


def _finest_level(uri: str, attributes: dict[str, Any]) -> tuple[str, Resolution | None, list[str]]:
    """Return path, voxel size and axes of level 0 of an OME-Zarr group."""
    multiscales = attributes.get("ome", attributes).get("multiscales")
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
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SourceError(
            f"{uri} has OME-Zarr metadata that cannot be understood "
            f"({type(error).__name__}: {error}); expected version 0.4 or 0.5"
        ) from error
    steps = dict(zip(axes, zip(scale, units, strict=True), strict=True))
    sizes = [
        steps[a][0] * _NM[str(steps[a][1])] if a in steps and steps[a][1] in _NM else None
        for a in "zyx"
    ]
    if any(size is None or size <= 0 for size in sizes):
        return path, None, axes
    z_nm, y_nm, x_nm = (float(size or 0) for size in sizes)
    return path, (z_nm, y_nm, x_nm), axes


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
