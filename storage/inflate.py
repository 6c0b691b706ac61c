"""Decompression that knows how much may come out, and takes no more memory than that.

A frame of 65 kB can inflate to gigabytes, whatever its header says. The size of a chunk is known
from its array's metadata, so every codec that can enlarge is wrapped: it decodes into a buffer of
that size, of which the system provides only the pages that are written to, and what does not fit
is a `LimitError`. That costs nothing measurable beside the decompression. `storage.codecs` puts
this into zarr's arrays.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from storage.errors import CorruptError, LimitError

_STEP = 2**20
"""What is inflated at a time by the codecs of Python's library."""

_LZMA_MEMORY = 100 * 2**20
"""What decoding an .xz may take; its strongest preset needs 65 MiB."""


def inflate(
    codec: str, data: Any, limit: int, decode: Callable[[Any], Any]
) -> NDArray[np.uint8] | Any:
    """Decompress `data`, or raise as soon as it gives more than `limit` bytes.

    Parameters
    ----------
    codec : str
        One of `limits.COMPRESSORS`.
    data : contiguous buffer
    limit : int
        Bytes that may come out.
    decode : callable
        The codec's own; used where its header alone decides how much comes out.

    Raises
    ------
    LimitError
        If more comes out.
    CorruptError
        If `data` cannot be decompressed, or is truncated.
    """
    view = memoryview(data).cast("B")
    if codec == "blosc":
        _check_blosc(view, limit)
        return decode(data)
    if codec == "lz4":
        _check_claim("lz4", int.from_bytes(view[:4], "little"), limit)
        return decode(data)
    if codec == "zstd":
        return _zstd(view, limit)
    out = np.empty(limit, np.uint8)
    filled = 0
    try:
        for piece in _STREAMS[codec](view):
            if filled + len(piece) > limit:
                raise _too_much(codec, limit)
            out[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise CorruptError(f"{codec} cannot decompress a chunk: {error}") from None
    return out[:filled]


def _zstd(view: memoryview, limit: int) -> NDArray[np.uint8]:
    # All frames, and those that do not state their size, into one buffer: nothing is believed.
    try:
        found = imagecodecs.zstd_decode(view, out=np.empty(limit, np.uint8))  # type: ignore[arg-type]
    except imagecodecs.ZstdError as error:
        if "too small" in str(error):
            raise _too_much("zstd", limit) from None
        raise CorruptError(f"zstd cannot decompress a chunk: {error}") from None
    return np.asarray(found)


def _check_blosc(view: memoryview, limit: int) -> None:
    """Check the header of blosc 1: c-blosc allocates what it says, and may read past the end."""
    if len(view) < 16:
        raise CorruptError(f"blosc: a chunk has {len(view)} bytes, its header alone has 16")
    size, block, stored = (int.from_bytes(view[i : i + 4], "little") for i in (4, 8, 12))
    _check_claim("blosc", size, limit)
    if stored != len(view) or block > max(size, 16):
        raise CorruptError(
            f"blosc: the header states {stored} bytes in blocks of {block}, there are {len(view)}; "
            "the chunk is truncated or damaged"
        )


def _check_claim(codec: str, claimed: int, limit: int) -> None:
    if claimed > limit:
        raise _too_much(codec, limit)


def _too_much(codec: str, limit: int) -> LimitError:
    return LimitError(
        f"{codec}: a chunk inflates to more than {limit} bytes, which is more than the array's "
        "metadata allow for. It is damaged, or made to fill the memory"
    )


def _zlib_pieces(view: memoryview, window: int) -> Iterator[bytes]:
    stream = zlib.decompressobj(window)
    at = 0
    while at < len(view):
        fed: bytes | memoryview = view[at : at + _STEP]
        at += len(fed)
        while fed and not stream.eof:
            yield stream.decompress(fed, _STEP)
            fed = stream.unconsumed_tail
        if stream.eof and window <= 15:
            return
        if stream.eof:
            # A gzip file may have several members, and zeros at its end.
            rest = stream.unused_data
            at -= len(rest.lstrip(b"\0"))
            if at < len(view) and rest.strip(b"\0"):
                stream = zlib.decompressobj(window)
    if not stream.eof:
        yield stream.flush(_STEP)
        if not stream.eof:
            raise EOFError("it ends too early")


def _stream_pieces(view: memoryview, make: Callable[[], Any]) -> Iterator[bytes]:
    """Yield what the decompressors of bz2 and lzma give, stream after stream."""
    rest: bytes | memoryview = view
    while rest:
        stream = make()
        piece = stream.decompress(rest, _STEP)
        yield piece
        while not stream.eof:
            if stream.needs_input:
                raise EOFError("it ends too early")
            yield stream.decompress(b"", _STEP)
        rest = stream.unused_data


_STREAMS: dict[str, Callable[[memoryview], Iterator[bytes]]] = {
    "zlib": lambda view: _zlib_pieces(view, 15),
    "gzip": lambda view: _zlib_pieces(view, 31),
    "bz2": lambda view: _stream_pieces(view, bz2.BZ2Decompressor),
    "lzma": lambda view: _stream_pieces(view, lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)),
}
