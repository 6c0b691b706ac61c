"""Large PNG files, as a stream: the same pixels as decoded whole, and no pixel of a damaged one."""

from __future__ import annotations

import struct
import zlib

import imagecodecs
import numpy as np
import pytest

from storage.errors import SourceError
from storage.sections import open_source, read_section
from storage.sources import png


def _chunk(kind: bytes, content: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + crc


def _write_png(path, rows, nx, colour, bits=8, *, extra=b"", pieces=1, interlace=0) -> None:
    """Write raw rows (ny, bytes) with a filter of each kind in turn, as the specification words it.

    All filters are computed here for themselves: libpng's encoder chooses only some.
    """
    ny, n = rows.shape
    step = max({0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * bits // 8, 1)
    filtered = bytearray()
    for y in range(ny):
        row = rows[y].astype(int)
        up = rows[y - 1].astype(int) if y else np.zeros(n, int)
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        corner = np.concatenate([np.zeros(step, int), up[:-step]])
        guess = left + up - corner
        near = np.argmin([abs(guess - left), abs(guess - up), abs(guess - corner)], axis=0)
        paeth = np.choose(near, [left, up, corner])
        kind = y % 5
        predicted = [np.zeros(n, int), left, up, (left + up) // 2, paeth][kind]
        filtered.append(kind)
        filtered += ((row - predicted) % 256).astype(np.uint8).tobytes()
    data = zlib.compress(bytes(filtered))
    size = -(-len(data) // pieces)
    header = struct.pack(">IIBBBBB", nx, ny, bits, colour, 0, 0, interlace)
    path.write_bytes(
        png.PNG_MAGIC
        + _chunk(b"IHDR", header)
        + extra
        + b"".join(_chunk(b"IDAT", data[i : i + size]) for i in range(0, len(data), size))
        + _chunk(b"IEND", b"")
    )


@pytest.fixture
def streamed(monkeypatch):
    """Treat every PNG as a large one, and read it in small steps."""
    monkeypatch.setattr(png, "WHOLE_BYTES", 0)
    monkeypatch.setattr(png, "_BAND_BYTES", 300)
    monkeypatch.setattr(png, "_STEP_BYTES", 50)


def _rows(ny: int, n: int):
    return np.random.default_rng(0).integers(0, 256, (ny, n)).astype(np.uint8)


PALETTE = _chunk(b"PLTE", _rows(1, 768).tobytes())


@pytest.mark.parametrize(
    ("colour", "bits", "extra"),
    [
        (0, 8, b""),
        (0, 1, b""),
        (0, 2, b""),
        (0, 4, b""),
        (0, 8, _chunk(b"tRNS", b"\0\7")),
        (2, 8, b""),
        (2, 8, _chunk(b"tRNS", bytes(6))),
        (3, 8, PALETTE),
        (3, 4, _chunk(b"PLTE", _rows(1, 48).tobytes())),
        (3, 8, PALETTE + _chunk(b"tRNS", bytes([0, 255] * 100))),
        (4, 8, b""),
        (6, 8, b""),
    ],
)
@pytest.mark.parametrize("pieces", [1, 7])
def test_a_stream_gives_the_pixels_of_the_whole(tmp_path, streamed, colour, bits, extra, pieces):
    ny, nx = 41, 33
    n = -(-nx * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * bits // 8)
    rows = _rows(ny, n)
    rows[10:20, n // 2 :] = 0
    path = tmp_path / "0.png"
    _write_png(path, rows, nx, colour, bits, extra=extra, pieces=pieces)
    with path.open("rb") as file:
        expected = png.read_whole(file, "x")
    assert expected.shape == (ny, nx)
    source = open_source(tmp_path)
    np.testing.assert_array_equal(read_section(source, 0), expected)
    for y0, y1 in ((0, 5), (5, 6), (20, 41), (3, 9), (40, 41)):  # forwards, and back again
        np.testing.assert_array_equal(source.read_rows(0, y0, y1), expected[y0:y1])


def test_what_libpng_writes(tmp_path, streamed):
    y, x = np.mgrid[:150, :90]
    image = (128 + 90 * np.sin(y / 11) * np.cos(x / 13)).astype(np.uint8)
    (tmp_path / "0.png").write_bytes(imagecodecs.png_encode(image, level=6))
    np.testing.assert_array_equal(read_section(open_source(tmp_path), 0), image)


@pytest.mark.parametrize("damage", ["flip", "cut", "too few rows"])
def test_a_damaged_stream_gives_no_row(tmp_path, streamed, damage):
    path = tmp_path / "0.png"
    rows = _rows(60, 40)
    _write_png(path, rows, 40, 0, pieces=5)
    source = open_source(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-400] ^= 4
    elif damage == "cut":
        del data[-200:]
    else:  # its checksums hold: only what is missing is missed
        _write_png(path, rows[:30], 40, 0)
        short = path.read_bytes()
        data = bytearray(png.PNG_MAGIC + _chunk(b"IHDR", bytes(data[16:29])) + short[33:])
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"section 0, file .*0\.png"):
        source.read_rows(0, 55, 60)
    if damage == "too few rows":
        np.testing.assert_array_equal(source.read_rows(0, 0, 30), rows[:30])
    else:
        with pytest.raises(SourceError, match=r"checksum|truncated"):
            source.read_rows(0, 0, 1)


def test_every_flipped_bit_is_noticed(tmp_path, streamed):
    path = tmp_path / "0.png"
    image = _rows(20, 30)
    _write_png(path, image, 30, 0)
    whole = path.read_bytes()
    source = open_source(tmp_path)
    rng = np.random.default_rng(1)
    for place in rng.integers(33, len(whole), 200):
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        with pytest.raises(SourceError):
            read_section(source, 0)


def test_a_large_interlaced_png_is_refused_with_a_way_out(tmp_path, streamed):
    _write_png(tmp_path / "0.png", _rows(8, 8), 8, 0, interlace=1)
    with pytest.raises(SourceError, match=r"interlaced PNG of 8 x 8 px.*without interlacing"):
        open_source(tmp_path)
