"""What input may be: every limit, with the check that refuses what exceeds it.

A volume that another program wrote is read before anything of it is believed. Its metadata is
checked here, as plain JSON values, before zarr sees it and before anything is allocated; so a
shape of 10**20 voxels, an object dtype or an unknown codec costs one small read. What a chunk
inflates to is bounded where it is decoded (`storage.inflate`), the size of an object where it is
fetched (`storage.checked`).

The limits are far above what microscopes write, and constants: whoever has a larger volume raises
them here.
"""

from __future__ import annotations

import re
from math import prod
from typing import Any, NamedTuple

from storage.errors import LimitError

MAX_METADATA_BYTES = 4 * 2**20
"""One zarr.json, .zarray, .zgroup, .zattrs or .zmetadata; parsed it takes some 25 times as much."""

MAX_NESTING = 32
"""Lists and objects inside each other in metadata."""

MAX_AXES = 8
MAX_AXIS = 2**40
"""Length of one axis, px."""

MAX_CODECS = 8
"""Codecs of one chunk; of them one may be sharding, and inside it none."""

MAX_CHUNK_BYTES = 128 * 2**20
"""One decoded chunk, the least that can be read. Dask's automatic chunks have this size."""

MAX_CHUNKS_PER_SHARD = 2**18
"""An index of 4 MiB."""

MAX_SHARD_BYTES = 16 * 2**30
"""One decoded shard; it is read in parts unless all of it is asked for."""

MAX_OBJECTS = 2**40
"""Chunks or shards of an array: its shape against its chunks."""

MAX_CHUNKS_PER_READ = 2**18
"""Chunks that one region may touch; zarr keeps about 1 kB for each while it reads."""

MAX_IMAGE_AXIS = 2**20
MAX_IMAGE_PX = 2**36
"""One section that is decoded in tiles or strips; the largest of a mouse brain has 2**34."""

MAX_IMAGE_BYTES = 4 * 2**30
"""One section that its format can only decode whole."""

MAX_IMAGE_RATIO = 4096
"""Decoded to stored bytes; LZW and deflate, the best of TIFF and PNG, end at 2,700 and 1,032."""

DTYPES_V3 = frozenset(
    ["bool", *(f"{k}int{b}" for k in ("", "u") for b in (8, 16, 32, 64)), "float16", "float32",
     "float64"]
)  # fmt: skip
DTYPES_V2 = re.compile(r"\|[biu]1|[<>](?:[iu][248]|f[248])")
"""Numbers only: no objects, strings, dates or records."""

COMPRESSORS = frozenset({"zstd", "gzip", "zlib", "blosc", "lz4", "bz2", "lzma"})
CHECKSUMS = frozenset({"crc32", "crc32c", "adler32", "fletcher32"})
FILTERS = COMPRESSORS | CHECKSUMS | {"shuffle"}
"""Codecs of zarr 2, by their ids in numcodecs. No pickle, JSON, msgpack or variable length."""

CODECS = frozenset({"bytes", "transpose", "zstd", "gzip", "blosc", "crc32c"}) | {
    f"numcodecs.{name}" for name in FILTERS
}
"""Codecs of zarr 3 besides sharding_indexed."""


class ArrayLimits(NamedTuple):
    """The sizes that an array's metadata implies, decoded, in bytes."""

    chunk: int
    object: int
    """What one object holds: a shard, or a chunk where there are none."""


def inflated_bytes(chunk_bytes: int) -> int:
    """Return how much any step of decoding a chunk may give: it, and a codec's own overhead."""
    return chunk_bytes + chunk_bytes // 8 + 65536


def check_metadata_size(size: int, where: str) -> None:
    """Refuse a metadata object that is too large to be parsed."""
    if size > MAX_METADATA_BYTES:
        raise LimitError(
            f"{where} has {size} bytes of metadata or more; the limit is {MAX_METADATA_BYTES} "
            "(limits.MAX_METADATA_BYTES)"
        )


def check_array(document: Any, where: str) -> ArrayLimits:
    """Check the metadata of an array, zarr 2 or 3, and return the sizes that it implies.

    Parameters
    ----------
    document : JSON value
        A parsed zarr.json or .zarray.
    where : str
        Names the document in errors.

    Raises
    ------
    LimitError
        If the document is not an array's, or goes beyond one of the limits; names the limit.
    """
    _check_nesting(document, where)
    if not isinstance(document, dict):
        raise LimitError(f"{where} does not describe an array: it is not a JSON object")
    if document.get("zarr_format") == 3 and document.get("node_type") == "array":
        return _check_v3(document, where)
    if document.get("zarr_format") == 2:
        return _check_v2(document, where)
    raise LimitError(f"{where} does not describe an array of zarr 2 or 3")


def check_region(
    start: tuple[int, ...], stop: tuple[int, ...], chunk: tuple[int, ...], where: str
) -> None:
    """Refuse a region that touches too many chunks for one read."""
    touched = prod(max(-(-b // c) - a // c, 0) for a, b, c in zip(start, stop, chunk, strict=True))
    if touched > MAX_CHUNKS_PER_READ:
        raise LimitError(
            f"{where} touches {touched} chunks of {chunk}; the limit is {MAX_CHUNKS_PER_READ} "
            "(limits.MAX_CHUNKS_PER_READ). Read smaller regions, or rewrite the volume in larger "
            "chunks"
        )


def check_image_size(
    height: int,
    width: int,
    *,
    where: str,
    px_bytes: int = 1,
    stored_bytes: int | None = None,
    streamed: bool = False,
) -> None:
    """Refuse an image whose header states an absurd size, before memory is taken for it.

    Parameters
    ----------
    height, width : int
        As the header states them, px.
    px_bytes : int
        Bytes of a pixel, all its samples.
    stored_bytes : int, optional
        Of the compressed image, where known: it cannot inflate beyond all ratio.
    streamed : bool
        The image is decoded piece by piece, and never held whole.

    Raises
    ------
    LimitError
        Names the image and the limit.
    """
    size = f"{where} states a size of {height} x {width} px of {px_bytes} bytes"
    if not (0 < height <= MAX_IMAGE_AXIS and 0 < width <= MAX_IMAGE_AXIS and px_bytes > 0):
        raise LimitError(
            f"{size}; expected 1 to {MAX_IMAGE_AXIS} px on a side (limits.MAX_IMAGE_AXIS)"
        )
    if height * width > MAX_IMAGE_PX:
        raise LimitError(f"{size}; the limit is {MAX_IMAGE_PX} px (limits.MAX_IMAGE_PX)")
    decoded = height * width * px_bytes
    if not streamed and decoded > MAX_IMAGE_BYTES:
        raise LimitError(
            f"{size}, which can only be decoded whole; the limit is {MAX_IMAGE_BYTES} bytes "
            "(limits.MAX_IMAGE_BYTES). Save it as a tiled TIFF or as zarr"
        )
    if stored_bytes is not None and decoded > MAX_IMAGE_RATIO * max(stored_bytes, 1):
        raise LimitError(
            f"{size}, but holds {stored_bytes} bytes; the limit is a ratio of {MAX_IMAGE_RATIO} "
            "(limits.MAX_IMAGE_RATIO). The file is truncated, or made to fill the memory"
        )


def _check_v3(document: dict[str, Any], where: str) -> ArrayLimits:
    dtype = document.get("data_type")
    if not isinstance(dtype, str) or dtype not in DTYPES_V3:
        raise LimitError(f"{where} has the data type {_show(dtype)}; allowed are numbers only")
    shape = _sizes(document.get("shape"), 0, f"{where}: shape")
    grid = _named(document.get("chunk_grid"), f"{where}: chunk_grid")
    if grid[0] != "regular":
        raise LimitError(f"{where} has a chunk grid {_show(grid[0])}; allowed is 'regular'")
    outer = _sizes(grid[1].get("chunk_shape"), 1, f"{where}: chunk_shape", len(shape))
    codecs = _check_codecs(document.get("codecs"), CODECS | {"sharding_indexed"}, where)
    chunk = outer
    if "sharding_indexed" in [name for name, _ in codecs]:
        if len(codecs) > 1:
            raise LimitError(f"{where} has codecs around its shards; sharding must be the only one")
        settings = codecs[0][1]
        chunk = _sizes(settings.get("chunk_shape"), 1, f"{where}: inner chunk_shape", len(shape))
        _check_codecs(settings.get("codecs"), CODECS, f"{where}: inner codecs")
        if "index_codecs" in settings:
            _check_codecs(settings["index_codecs"], {"bytes", "crc32c"}, f"{where}: index_codecs")
    itemsize = int(re.sub(r"\D", "", dtype) or 8) // 8
    return _check_sizes(shape, outer, chunk, itemsize, where)


def _check_v2(document: dict[str, Any], where: str) -> ArrayLimits:
    dtype = document.get("dtype")
    if not isinstance(dtype, str) or not DTYPES_V2.fullmatch(dtype):
        raise LimitError(f"{where} has the dtype {_show(dtype)}; allowed are numbers only")
    shape = _sizes(document.get("shape"), 0, f"{where}: shape")
    chunks = _sizes(document.get("chunks"), 1, f"{where}: chunks", len(shape))
    filters = document.get("filters") or []
    compressor = document.get("compressor")
    if not isinstance(filters, list) or len(filters) >= MAX_CODECS:
        raise LimitError(f"{where}: filters must be a list of fewer than {MAX_CODECS}")
    for codec in [*filters, *([] if compressor is None else [compressor])]:
        if not isinstance(codec, dict):
            raise LimitError(f"{where} has the codec {_show(codec)}; expected an object")
        name = codec.get("id")
        if not isinstance(name, str) or name not in FILTERS:
            raise _codec_refused(name, FILTERS, where)
        _check_settings(name, codec, where)
    return _check_sizes(shape, chunks, chunks, int(dtype[2:]), where)


def _check_sizes(
    shape: tuple[int, ...],
    outer: tuple[int, ...],
    chunk: tuple[int, ...],
    itemsize: int,
    where: str,
) -> ArrayLimits:
    sizes = ArrayLimits(prod(chunk) * itemsize, prod(outer) * itemsize)
    per_shard = prod(-(-o // c) for o, c in zip(outer, chunk, strict=True))
    objects = prod(-(-n // o) for n, o in zip(shape, outer, strict=True))
    for found, limit, name, what in (
        (sizes.chunk, MAX_CHUNK_BYTES, "MAX_CHUNK_BYTES", "bytes in a chunk"),
        (sizes.object, MAX_SHARD_BYTES, "MAX_SHARD_BYTES", "bytes in a shard"),
        (per_shard, MAX_CHUNKS_PER_SHARD, "MAX_CHUNKS_PER_SHARD", "chunks in a shard"),
        (objects, MAX_OBJECTS, "MAX_OBJECTS", "chunks or shards"),
    ):
        if found > limit:
            raise LimitError(
                f"{where} describes {found} {what} (shape {shape}, chunks {chunk}); the limit is "
                f"{limit} (limits.{name}). Rewrite the volume in other chunks"
            )
    return sizes


def _check_codecs(
    value: Any, allowed: frozenset[str] | set[str], where: str
) -> list[tuple[str, dict[str, Any]]]:
    """Return name and settings of each codec of a list."""
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_CODECS:
        raise LimitError(
            f"{where} needs a list of 1 to {MAX_CODECS} codecs (limits.MAX_CODECS), got "
            f"{_show(value)}"
        )
    codecs = [_named(codec, f"{where}: codecs") for codec in value]
    for name, settings in codecs:
        if name not in allowed:
            raise _codec_refused(name, allowed, where)
        _check_settings(name.removeprefix("numcodecs."), settings, where)
    return codecs


def _check_settings(name: str, settings: dict[str, Any], where: str) -> None:
    """Refuse the two settings with which a codec of the list could still do harm."""
    if name == "lzma" and (settings.get("format", 1) not in (1, 2) or settings.get("filters")):
        raise LimitError(f"{where}: lzma is allowed as .xz or .lzma, without filters of its own")
    if name == "shuffle" and settings.get("elementsize", 4) not in (1, 2, 4, 8):
        raise LimitError(f"{where}: shuffle needs an elementsize of 1, 2, 4 or 8")


def _codec_refused(name: Any, allowed: frozenset[str] | set[str], where: str) -> LimitError:
    return LimitError(
        f"{where} needs the codec {_show(name)}; allowed are {', '.join(sorted(allowed))}. "
        "Rewrite the volume with one of these"
    )


def _named(value: Any, where: str) -> tuple[str, dict[str, Any]]:
    """Return name and configuration of one of zarr 3's extension points."""
    if isinstance(value, str):
        return value, {}
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        settings = value.get("configuration", {})
        if isinstance(settings, dict):
            return value["name"], settings
    raise LimitError(f"{where}: expected a name and a configuration, got {_show(value)}")


def _sizes(value: Any, least: int, where: str, axes: int | None = None) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_AXES:
        raise LimitError(
            f"{where} needs 1 to {MAX_AXES} axes (limits.MAX_AXES), got {_show(value)}"
        )
    if any(type(n) is not int or not least <= n <= MAX_AXIS for n in value):
        raise LimitError(
            f"{where} needs integers of {least} to {MAX_AXIS} (limits.MAX_AXIS), got {_show(value)}"
        )
    if axes is not None and len(value) != axes:
        raise LimitError(f"{where} has {len(value)} axes, the array's shape {axes}")
    return tuple(value)


def _check_nesting(document: Any, where: str) -> None:
    level = [document]
    for _ in range(MAX_NESTING):
        level = [
            below
            for value in level
            if isinstance(value, dict | list)
            for below in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise LimitError(f"{where} nests deeper than {MAX_NESTING} levels (limits.MAX_NESTING)")


def _show(value: Any) -> str:
    text = repr(value) if not isinstance(value, dict | list) or len(value) < 20 else "many values"
    return text if len(text) <= 80 else f"{text[:80]}..."
