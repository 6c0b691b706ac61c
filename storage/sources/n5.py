"""N5 datasets as sources, on file:// and s3://.

N5 counts its axes from the fastest: a dataset's (x, y, z) are reversed here, at the edge.
Specification: https://github.com/saalfeldlab/n5
"""

from __future__ import annotations

import bz2
import lzma
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from storage import store
from storage.errors import MissingError, SourceError
from storage.grid import ZYX, Box
from storage.limits import MAX_CHUNK_BYTES, check_metadata_size
from storage.sources.files import damage_named, digest, inflate, slab_digests
from storage.sources.grey import check_band, check_dtype, check_shape
from storage.sources.resolution import Resolution, in_nm
from storage.sources.slabs import Slabs, read_blocks

ATTRIBUTES = "attributes.json"

_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "raw": lambda data, n: data,
    "gzip": inflate,
    "bzip2": lambda data, n: inflate(data, n, bz2.BZ2Decompressor()),
    "xz": lambda data, n: inflate(data, n, lzma.LZMADecompressor()),
    "zstd": lambda data, n: bytes(imagecodecs.zstd_decode(data, out=n)),
    "blosc": lambda data, n: bytes(imagecodecs.blosc_decode(data, out=n)),
}
"""Called with the bytes and the size that they have when they are decoded."""


@dataclass(frozen=True)
class N5Source:
    """The sections of an N5 dataset of three axes, the slowest of which is z."""

    uri: str
    shape: ZYX
    resolution_nm: Resolution | None
    names: tuple[str, ...]
    block: ZYX
    compression: str
    extra_axes: int
    """Axes of length 1 behind z."""

    def describe(self) -> dict[str, Any]:
        """Return what identifies the content: it enters the run's key."""
        return {
            "kind": "n5",
            "shape": list(self.shape),
            "dtype": "uint8",
            "sections": list(self._fingerprints),
        }

    def fingerprint(self, z: int) -> str:
        """Return a digest of the attributes and of the blocks' names, sizes and tags.

        The sections of a block have one digest.
        """
        return self._fingerprints[z]

    def read_rows(self, z: int, y0: int, y1: int) -> NDArray[np.uint8]:
        """Return rows [y0, y1) of section `z`; absent blocks are no data.

        Raises
        ------
        SourceError
            If a block of these rows is damaged; others may be whole.
        UnavailableError
            If the store does not answer.
        """
        check_band(self.shape, z, y0, y1, self.uri)
        return self._slabs.read_rows(z, y0, y1)

    @cached_property
    def _slabs(self) -> Slabs:
        return Slabs(self.shape, self.block[0], lambda box: self._read(box))

    def _read(self, box: Box) -> NDArray[np.uint8]:
        return read_blocks(box, self.block, self._load)

    def _load(self, index: ZYX) -> NDArray[np.uint8] | None:
        key = "/".join(map(str, (*reversed(index), *(0,) * self.extra_axes)))
        uri = store.join(self.uri, key)
        try:
            data = store.read_bytes(uri)
        except MissingError:
            return None
        with damage_named(uri):
            return decode_block(data, self.block, self.compression, uri)

    @cached_property
    def _fingerprints(self) -> tuple[str, ...]:
        def slab(key: str) -> int | None:
            return int(key.split("/")[2]) if re.fullmatch(r"\d+(/\d+){2,}", key) else None

        attributes = store.read_bytes(store.join(self.uri, ATTRIBUTES))
        digests = slab_digests(self.uri, slab)
        depth = self.block[0]
        return tuple(digest(attributes, digests.get(z // depth, "")) for z in range(self.shape[0]))

    def __getstate__(self) -> dict[str, Any]:
        """Travel without cached voxels and what can be computed again."""
        left_behind = ("_slabs", "_fingerprints")
        return {k: v for k, v in self.__dict__.items() if k not in left_behind}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the fields of a frozen instance."""
        self.__dict__.update(state)


def has_n5(uri: str) -> bool:
    """Return whether there is an N5 dataset, or a group with one called ``s0``, at `uri`."""
    places = (ATTRIBUTES, f"s0/{ATTRIBUTES}")
    return any(store.exists(store.join(uri, place)) for place in places)


def open_n5(uri: str) -> N5Source:
    """Find the sections of an N5 dataset, or of the level ``s0`` of a multi-scale group.

    Raises
    ------
    SourceError
        If there is no dataset, it is not (x, y, z) of uint8, or compressed in an unknown way.
    """
    group = _attributes(uri)
    attributes, dataset = group, uri
    if "dimensions" not in group:
        dataset = store.join(uri, "s0")
        attributes = _attributes(dataset)
    if "dimensions" not in attributes:
        members = [n for n in store.list_names(uri) if n != ATTRIBUTES][:8]
        raise SourceError(
            f"{uri} is an N5 group without a level s0; give the URI of the dataset itself. Below "
            f"it: {', '.join(members) or 'nothing'}"
        )
    try:
        size = [int(n) for n in attributes["dimensions"]]
        block = [int(n) for n in attributes["blockSize"]]
        check_dtype(_dtype(attributes["dataType"]), dataset)
        stated = attributes.get("compression", attributes.get("compressionType", "raw"))
        compression = str(stated["type"] if isinstance(stated, dict) else stated)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(
            f"{dataset} has N5 attributes that cannot be understood: {error}"
        ) from error
    if len(size) < 3 or len(size) != len(block) or any(n != 1 for n in size[3:]):
        raise SourceError(
            f"{dataset} has the dimensions {size} and blocks {block}; expected (x, y, z), with "
            "nothing after it but axes of length 1"
        )
    if compression not in _DECODERS or not 0 < prod(block) <= MAX_CHUNK_BYTES:
        raise SourceError(
            f"{dataset} has blocks of {block} compressed by {compression!r}; expected one of "
            f"{', '.join(_DECODERS)}, and at most {MAX_CHUNK_BYTES >> 20} MiB a block"
        )
    shape: ZYX = tuple(reversed(size[:3]))
    check_shape(shape, dataset)
    name = uri.rpartition("/")[2]
    return N5Source(
        dataset,
        shape,
        _resolution(attributes) or _resolution(group),
        tuple(f"{name}[{z}]" for z in range(shape[0])),
        tuple(reversed(block[:3])),
        compression,
        len(size) - 3,
    )


def decode_block(data: bytes, block: ZYX, compression: str, what: str) -> NDArray[np.uint8]:
    """Return a block, (z, y, x); it is smaller than `block` at the volume's edge.

    Raises
    ------
    SourceError
        If its header does not fit or it has too few voxels; decoders raise what they do.
    """
    mode, axes = struct.unpack_from(">HH", data)
    size = struct.unpack_from(f">{axes}I", data, 4)
    shape = tuple(reversed(size[:3]))
    start = 4 + 4 * axes + (4 if mode == 1 else 0)
    if mode > 1 or len(shape) < 3 or any(n > b for n, b in zip(shape, block, strict=True)):
        raise SourceError(f"{what} is no block of {block}: mode {mode}, size {size}")
    voxels = _DECODERS[compression](data[start:], prod(shape))
    if len(voxels) < prod(shape):
        raise SourceError(f"{what} is truncated: {len(voxels)} of {prod(shape)} voxels")
    return np.frombuffer(voxels, np.uint8, prod(shape)).reshape(shape)


def _attributes(uri: str) -> dict[str, Any]:
    place = store.join(uri, ATTRIBUTES)
    try:
        check_metadata_size(store.size(place), place)
        found = store.read_json(place)
    except MissingError:
        return {}
    return found if isinstance(found, dict) else {}


def _dtype(name: str) -> np.dtype[Any] | None:
    try:
        return np.dtype(name)
    except TypeError:
        return None


def _resolution(attributes: dict[str, Any]) -> Resolution | None:
    """Return the voxel size as N5 Viewer, or as Janelia's COSEM, writes it."""
    viewer = attributes.get("pixelResolution")
    if isinstance(viewer, dict):
        sizes, units = viewer.get("dimensions"), [viewer.get("unit")] * 3
    else:
        sizes, units = attributes.get("resolution"), attributes.get("units", ["nm"] * 3)
    transform = attributes.get("transform")
    try:
        if isinstance(transform, dict):
            steps = dict(zip(transform["axes"], transform["scale"], strict=True))
            names = dict(zip(transform["axes"], transform["units"], strict=True))
            return in_nm([steps[a] for a in "zyx"], [names[a] for a in "zyx"])
        return in_nm(sizes[2::-1], units[2::-1]) if sizes else None
    except (KeyError, TypeError, ValueError):
        return None
