"""Neuroglancer precomputed volumes as sources, sharded or not, on file:// and s3://.

Axes are (x, y, z) there and reversed here, at the edge. What wrote the chunks may have compressed
them once more, with the suffix that CloudVolume gives such files on disk or without; that shows in
the chunk. Specification: https://github.com/google/neuroglancer, src/datasource/precomputed
"""

from __future__ import annotations

import re
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
from storage.sources.grey import check_band, check_dtype, check_shape, to_grey
from storage.sources.precomputed_shards import Sharding, morton_code, parse_sharding, read_sharded
from storage.sources.resolution import Resolution, in_nm
from storage.sources.slabs import Slabs, read_blocks

INFO = "info"

_MAGIC = {"jpeg": b"\xff\xd8", "png": b"\x89PNG"}
_SUFFIXES = ("", ".gz", ".br", ".zstd")


@dataclass(frozen=True)
class PrecomputedSource:
    """The sections of the finest scale of a precomputed image."""

    uri: str
    key: str
    """Of the scale, below the volume."""
    shape: ZYX
    resolution_nm: Resolution | None
    names: tuple[str, ...]
    offset: ZYX
    """Of the volume's first voxel, which the chunks' names count from."""
    chunk: ZYX
    encoding: str
    sharding: Sharding | None

    def describe(self) -> dict[str, Any]:
        """Return what identifies the content: it enters the run's key."""
        return {
            "kind": "precomputed",
            "shape": list(self.shape),
            "dtype": "uint8",
            "sections": list(self._fingerprints),
        }

    def fingerprint(self, z: int) -> str:
        """Return a digest of ``info`` and of the chunks' names, sizes and tags.

        The sections of a chunk have one digest. All sections of a sharded volume have one: its
        shards hold voxels from anywhere.
        """
        return self._fingerprints[z]

    def read_rows(self, z: int, y0: int, y1: int) -> NDArray[np.uint8]:
        """Return rows [y0, y1) of section `z`; absent chunks are no data.

        Raises
        ------
        SourceError
            If a chunk of these rows is damaged; others may be whole.
        UnavailableError
            If the store does not answer.
        """
        check_band(self.shape, z, y0, y1, self.uri)
        return self._slabs.read_rows(z, y0, y1)

    @property
    def _scale_uri(self) -> str:
        return store.join(self.uri, self.key)

    @cached_property
    def _slabs(self) -> Slabs:
        def read(box: Box) -> NDArray[np.uint8]:
            return read_blocks(box, self.chunk, self._load)

        return Slabs(self.shape, self.chunk[0], read)

    def _load(self, index: ZYX) -> NDArray[np.uint8] | None:
        start = tuple(i * c for i, c in zip(index, self.chunk, strict=True))
        stop = tuple(min(a + c, n) for a, c, n in zip(start, self.chunk, self.shape, strict=True))
        shape = tuple(b - a for a, b in zip(start, stop, strict=True))
        if self.sharding is None:
            what = store.join(self._scale_uri, self._name(start, stop))
            data = _read_plain(what)
        else:
            grid = tuple(-(-n // c) for n, c in zip(self.shape, self.chunk, strict=True))
            what = f"chunk {index} (z, y, x) of {self._scale_uri}"
            with damage_named(what):
                code = morton_code(index[::-1], grid[::-1])
                data = read_sharded(self._scale_uri, self.sharding, code)
        if data is None:
            return None
        with damage_named(what):
            return decode_chunk(data, shape, self.encoding, what)

    def _name(self, start: ZYX, stop: ZYX) -> str:
        spans = zip(start, stop, self.offset, strict=True)
        return "_".join(reversed([f"{a + o}-{b + o}" for a, b, o in spans]))

    @cached_property
    def _fingerprints(self) -> tuple[str, ...]:
        info = store.read_bytes(store.join(self.uri, INFO))

        def slab(key: str) -> int | None:
            if self.sharding is not None:
                return 0 if key.endswith(".shard") else None
            found = re.fullmatch(r"-?\d+--?\d+_-?\d+--?\d+_(-?\d+)--?\d+(\.\w+)?", key)
            return (int(found[1]) - self.offset[0]) // self.chunk[0] if found else None

        digests = slab_digests(self._scale_uri, slab)
        depth = self.chunk[0] if self.sharding is None else self.shape[0]
        return tuple(digest(info, digests.get(z // depth, "")) for z in range(self.shape[0]))

    def __getstate__(self) -> dict[str, Any]:
        """Travel without cached voxels and what can be computed again."""
        left_behind = ("_slabs", "_fingerprints")
        return {k: v for k, v in self.__dict__.items() if k not in left_behind}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the fields of a frozen instance."""
        self.__dict__.update(state)


def has_precomputed(uri: str) -> bool:
    """Return whether there is a precomputed volume at `uri`."""
    return store.exists(store.join(uri, INFO))


def open_precomputed(uri: str) -> PrecomputedSource:
    """Find the sections of the finest scale of a precomputed volume.

    Raises
    ------
    SourceError
        If ``info`` cannot be understood, or it is no image of one channel of uint8 in an encoding
        that is read here.
    """
    document = store.join(uri, INFO)
    check_metadata_size(store.size(document), document)
    info = store.read_json(document)
    try:
        scale = info["scales"][0]
        check_dtype(_dtype(info["data_type"]), uri)
        channels, encoding = int(info["num_channels"]), str(scale["encoding"])
        size, chunk = _zyx(scale["size"]), _zyx(scale["chunk_sizes"][0])
        offset = _zyx(scale.get("voxel_offset", (0, 0, 0)))
        resolution = in_nm(scale["resolution"][::-1], ("nm",) * 3)
        key, sharding = str(scale["key"]), parse_sharding(scale.get("sharding"))
        place = store.join(uri, key)
    except SourceError:
        raise
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SourceError(
            f"{uri}/{INFO} does not describe a precomputed volume ({type(error).__name__}: {error})"
        ) from error
    if channels != 1 or encoding not in ("raw", *_MAGIC):
        raise SourceError(
            f"{place} has {channels} channels encoded as {encoding!r}; expected one channel, raw, "
            "jpeg or png. Save it so with CloudVolume or igneous"
        )
    check_shape(size, place)
    if not 0 < prod(chunk) <= MAX_CHUNK_BYTES or min(chunk) < 1:
        raise SourceError(
            f"{place} has chunks of {chunk} (z, y, x); expected at most {MAX_CHUNK_BYTES >> 20} "
            "MiB a chunk"
        )
    name = uri.rpartition("/")[2]
    names = tuple(f"{name}[{z + offset[0]}]" for z in range(size[0]))
    return PrecomputedSource(uri, key, size, resolution, names, offset, chunk, encoding, sharding)


def decode_chunk(data: bytes, shape: ZYX, encoding: str, what: str) -> NDArray[np.uint8]:
    """Return a chunk, (z, y, x).

    Raises
    ------
    SourceError
        If it has another number of voxels; decoders raise what they do.
    """
    n = prod(shape)
    plain = len(data) == n if encoding == "raw" else data.startswith(_MAGIC[encoding])
    if not plain:
        # Twice the voxels: a JPEG of noise may be larger than they are.
        data = _unwrapped(data, n if encoding == "raw" else 2 * n + 65536)
    if encoding == "raw":
        voxels = np.frombuffer(data, np.uint8)
    else:
        decode = imagecodecs.jpeg8_decode if encoding == "jpeg" else imagecodecs.png_decode
        voxels = to_grey(np.asarray(decode(data)), what).ravel()
    if voxels.size != n:
        raise SourceError(f"{what} has {voxels.size} voxels; expected {n} for {shape} (z, y, x)")
    return voxels.reshape(shape)


def _unwrapped(data: bytes, n_bytes: int) -> bytes:
    """Return what gzip, zstd or brotli was put around, at most `n_bytes` of it."""
    if data[:2] == b"\x1f\x8b":
        return inflate(data, n_bytes)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return bytes(imagecodecs.zstd_decode(data, out=n_bytes))
    return bytes(imagecodecs.brotli_decode(data, out=n_bytes))


def _read_plain(uri: str) -> bytes | None:
    """Return a chunk's object, whatever suffix its compression gave it; None if there is none."""
    for suffix in _SUFFIXES if uri.startswith("file:") else _SUFFIXES[:1]:
        try:
            return store.read_bytes(uri + suffix)
        except MissingError:
            continue
    return None


def _zyx(numbers_xyz: Any) -> ZYX:
    x, y, z = (int(n) for n in numbers_xyz)
    return z, y, x


def _dtype(name: str) -> np.dtype[Any] | None:
    try:
        return np.dtype(name)
    except TypeError:
        return None
