"""PNG files: small ones are decoded whole, large ones as a stream of bands.

A PNG is one deflate stream whose rows lean on the row above, so they come in order only. A large
file is inflated step by step, and each band of filtered rows is handed to libpng as a small PNG of
its own, whose first row is the last row of the band before. Specification:
https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from storage.errors import SourceError
from storage.limits import check_image_size
from storage.sources.files import read_at
from storage.sources.grey import check_dtype, to_grey

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

WHOLE_BYTES = 64 * 2**20
"""Images up to this size, decoded, are decoded whole: any kind of PNG, and half as fast again."""

_STEP_BYTES = 2**20
_BAND_BYTES = 16 * 2**20
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_SAMPLES = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}
_TYPE_OF_BYTES = {1: _GREY, 2: _GREY_ALPHA, 3: _RGB, 4: _RGB_ALPHA}
"""Filters know a pixel's bytes, not what they mean."""


@dataclass(frozen=True)
class PngHeader:
    """What the first chunk says."""

    ny: int
    nx: int
    bits: int
    colour: int
    is_interlaced: bool

    @property
    def row_bytes(self) -> int:
        """Size of a row without its filter's byte."""
        return -(-self.nx * _SAMPLES[self.colour] * self.bits // 8)

    @property
    def is_small(self) -> bool:
        """Whether the image is decoded whole."""
        return self.ny * self.row_bytes <= WHOLE_BYTES


def read_header(file: BinaryIO, what: str) -> PngHeader:
    """Return the header of a PNG file.

    Raises
    ------
    SourceError
        If it is no PNG, not 8 bit, or a large one whose rows do not come in order.
    LimitError
        If its size is absurd.
    """
    file.seek(0)
    head = file.read(33)
    if len(head) < 33 or head[:8] != PNG_MAGIC or head[12:16] != b"IHDR":
        raise SourceError(f"{what} is not a PNG file: it begins with {head[:8]!r}")
    nx, ny, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", head[16:29])
    check_dtype(np.uint16 if bits > 8 else np.uint8, what)
    if colour not in _SAMPLES:
        raise SourceError(f"{what} is a damaged PNG: its colour type is {colour}")
    check_image_size(ny, nx, where=what, stored_bytes=file.seek(0, 2), streamed=True)
    header = PngHeader(ny, nx, bits, colour, interlace != 0)
    if header.is_interlaced and not header.is_small:
        raise SourceError(
            f"{what} is an interlaced PNG of {ny} x {nx} px: every row is spread over the file. "
            "Save it without interlacing, or as a tiled TIFF"
        )
    return header


def read_whole(file: BinaryIO, what: str) -> NDArray[np.uint8]:
    """Return the image, uint8 (y, x)."""
    file.seek(0)
    return to_grey(np.asarray(imagecodecs.png_decode(file.read())), what)


class PngStream:
    """The rows of a large PNG file, in order; holds no open file.

    The checksums of all chunks are verified before the first row is given, so that a damaged file
    gives no row at all rather than wrong ones.
    """

    def __init__(self, file: BinaryIO, what: str) -> None:
        self.header = read_header(file, what)
        self.y = 0
        """The next row."""
        self._data, self._palette, self._transparent = _verified_chunks(file, what)
        self._inflate = zlib.decompressobj()
        self._above = b""

    def read(self, file: BinaryIO, y0: int, y1: int, what: str) -> NDArray[np.uint8]:
        """Return rows [y0, y1), uint8 (y1 - y0, x); y0 lies at or behind the last row given."""
        step = max(_BAND_BYTES // self.header.row_bytes, 1)
        while self.y < y0:
            self._raw_rows(file, min(step, y0 - self.y), what)
        rows = np.empty((y1 - y0, self.header.nx), np.uint8)
        while self.y < y1:
            y = self.y - y0
            raw = self._raw_rows(file, min(step, y1 - self.y), what)
            rows[y : y + len(raw)] = to_grey(self._pixels(raw), what)
        return rows

    def _raw_rows(self, file: BinaryIO, n: int, what: str) -> NDArray[np.uint8]:
        """Return the next `n` rows as they were before filtering, (n, bytes of a row)."""
        header = self.header
        filtered = self._inflated(file, n * (header.row_bytes + 1), what)
        lead = b"\0" + self._above if self._above else b""
        pixel_bytes = max(_SAMPLES[header.colour] * header.bits // 8, 1)
        height = n + bool(lead)
        image = imagecodecs.png_decode(
            b"".join(
                (
                    PNG_MAGIC,
                    _chunk(
                        b"IHDR",
                        struct.pack(
                            *(">IIBBBBB", header.row_bytes // pixel_bytes, height, 8),
                            *(_TYPE_OF_BYTES[pixel_bytes], 0, 0, 0),
                        ),
                    ),
                    _chunk(b"IDAT", zlib.compress(lead + filtered, 0)),
                    _chunk(b"IEND", b""),
                )
            )
        )
        raw = np.asarray(image, np.uint8).reshape(height, header.row_bytes)[height - n :]
        self._above = raw[-1].tobytes()
        self.y += n
        return raw

    def _inflated(self, file: BinaryIO, n_bytes: int, what: str) -> bytes:
        """Return the next `n_bytes` of the deflate stream."""
        parts, missing = [], n_bytes
        while missing:
            compressed = self._inflate.unconsumed_tail
            if not compressed and self._data:
                offset, size = self._data.pop()
                step = min(size, _STEP_BYTES)
                compressed = read_at(file, offset, step, what)
                if size > step:
                    self._data.append((offset + step, size - step))
            part = self._inflate.decompress(compressed, missing)
            if not (part or compressed or self._data):
                raise SourceError(f"{what} is damaged: its image data ends too early")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _pixels(self, raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return raw rows as (y, x, channels)."""
        header, n = self.header, len(raw)
        if header.bits < 8:
            bits = np.unpackbits(raw, axis=1).reshape(n, -1, header.bits)
            weights = 1 << np.arange(header.bits)[::-1]
            raw = (bits @ weights).astype(np.uint8)[:, : header.nx]
        if header.colour == _PALETTE:
            return np.asarray(self._palette[raw])
        if self._transparent and header.colour in (_GREY, _RGB):
            # One colour stands for "no data", stated as 16-bit samples.
            samples = _SAMPLES[header.colour]
            colour = np.frombuffer(self._transparent, ">u2", samples)
            pixels = raw.reshape(n, header.nx, samples)
            alpha = (pixels != colour).any(-1, keepdims=True) * np.uint8(255)
            return np.concatenate([_stretched(pixels, header.bits), alpha], -1)
        return _stretched(raw, header.bits).reshape(n, header.nx, _SAMPLES[header.colour])


def _stretched(pixels: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return samples of 1, 2 or 4 bits on the scale of 0 to 255."""
    return pixels if bits == 8 else pixels * np.uint8(255 // (2**bits - 1))


def _verified_chunks(
    file: BinaryIO, what: str
) -> tuple[list[tuple[int, int]], NDArray[np.uint8], bytes]:
    """Return places of the image data (last first), the palette as (256, 4), and tRNS.

    Raises
    ------
    SourceError
        If a chunk's checksum does not hold, or the file ends before its last chunk.
    """
    data: list[tuple[int, int]] = []
    small: dict[bytes, bytes] = {}
    offset, kind = len(PNG_MAGIC), b""
    while kind != b"IEND":
        size, kind = struct.unpack(">I4s", read_at(file, offset, 8, what))
        kept, crc = bytearray(), zlib.crc32(kind)
        for done in range(0, size, _STEP_BYTES):
            part = read_at(file, offset + 8 + done, min(_STEP_BYTES, size - done), what)
            crc = zlib.crc32(part, crc)
            if kind in (b"PLTE", b"tRNS") and size <= 1024:
                kept += part
        if struct.unpack(">I", read_at(file, offset + 8 + size, 4, what))[0] != crc:
            raise SourceError(
                f"{what} is damaged: the checksum of its chunk at byte {offset} does not hold; it "
                "will be treated as missing"
            )
        if kind == b"IDAT":
            data.append((offset + 8, size))
        elif kept:
            small[kind] = bytes(kept)
        offset += size + 12
    palette = np.full((256, 4), 255, np.uint8)
    palette[:, :3] = 0
    colours = np.frombuffer(small.get(b"PLTE", b""), np.uint8).reshape(-1, 3)
    palette[: len(colours), :3] = colours
    transparent = small.get(b"tRNS", b"")
    alpha = np.frombuffer(transparent, np.uint8)[:256]
    palette[: len(alpha), 3] = alpha
    return data[::-1], palette, transparent


def _chunk(kind: bytes, content: Any) -> bytes:
    crc = zlib.crc32(content, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(content)), kind, content, struct.pack(">I", crc)))
