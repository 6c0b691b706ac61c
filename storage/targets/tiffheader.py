"""The beginning of a tiled, uncompressed TIFF file: all of it is known before the first pixel.

Tiles have one size, so their places follow from their number: they can be written in any order, to
many files at once. Specification: TIFF 6.0 (Adobe, 1992), sections 2, 8 and 15; BigTIFF as in
libtiff.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_SHORT, _LONG, _RATIONAL, _LONG8, _ASCII = 3, 4, 5, 16, 2
_SIZE = {_ASCII: 1, _SHORT: 2, _LONG: 4, _RATIONAL: 8, _LONG8: 8}
_CODE = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}

_CLASSIC_BYTES = 2**32 - 2**16
_ALIGNMENT = 4096
_PX_PER_CM = 1e7  # over nm


@dataclass(frozen=True)
class TiffLayout:
    """Where the tiles of an 8-bit image lie in its file."""

    header: bytes
    """Everything before the first tile."""
    shape: tuple[int, int]
    tile: int
    """Side of the tiles, px; a multiple of 16."""

    @property
    def across(self) -> int:
        """How many tiles a row of them has."""
        return -(-self.shape[1] // self.tile)

    @property
    def file_bytes(self) -> int:
        """Size of the whole file."""
        down = -(-self.shape[0] // self.tile)
        return len(self.header) + down * self.across * self.tile**2

    def offset(self, row: int, column: int) -> int:
        """Return where a tile begins."""
        return len(self.header) + (row * self.across + column) * self.tile**2


def tiff_layout(
    shape: tuple[int, int], tile: int, resolution_nm: tuple[float, float], description: str
) -> TiffLayout:
    """Lay out a grey image of 8 bit; as BigTIFF only where 4 GiB do not hold it.

    Parameters
    ----------
    shape : (y, x)
    resolution_nm : (y, x)
        Size of a pixel; stored as pixels per centimetre.
    description : str
        Tag ImageDescription, ASCII.
    """
    n = -(-shape[0] // tile) * -(-shape[1] // tile)
    is_big = n * (tile**2 + 12) + len(description) + 2 * _ALIGNMENT > _CLASSIC_BYTES
    first = _ALIGNMENT
    while True:  # the header's length does not depend on what it says, only on how much
        header = _header(shape, tile, resolution_nm, description, n, first, is_big=is_big)
        if len(header) <= first:
            return TiffLayout(header.ljust(first, b"\0"), shape, tile)
        first = -(-len(header) // _ALIGNMENT) * _ALIGNMENT


def _header(
    shape: tuple[int, int],
    tile: int,
    resolution_nm: tuple[float, float],
    description: str,
    n: int,
    first: int,
    *,
    is_big: bool,
) -> bytes:
    pointer = _LONG8 if is_big else _LONG
    offsets = [first + k * tile**2 for k in range(n)]
    y_nm, x_nm = resolution_nm
    entries: list[tuple[int, int, list[int] | bytes]] = [
        (256, _LONG, [shape[1]]),  # ImageWidth
        (257, _LONG, [shape[0]]),  # ImageLength
        (258, _SHORT, [8]),  # BitsPerSample
        (259, _SHORT, [1]),  # Compression: none
        (262, _SHORT, [1]),  # PhotometricInterpretation: black is zero
        (270, _ASCII, description.encode("ascii") + b"\0"),  # ImageDescription
        (277, _SHORT, [1]),  # SamplesPerPixel
        (282, _RATIONAL, _ratio(_PX_PER_CM / x_nm)),  # XResolution
        (283, _RATIONAL, _ratio(_PX_PER_CM / y_nm)),  # YResolution
        (296, _SHORT, [3]),  # ResolutionUnit: centimetre
        (305, _ASCII, b"petalign\0"),  # Software
        (322, _LONG, [tile]),  # TileWidth
        (323, _LONG, [tile]),  # TileLength
        (324, pointer, offsets),  # TileOffsets
        (325, _LONG, [tile**2] * n),  # TileByteCounts
        (339, _SHORT, [1]),  # SampleFormat: unsigned
    ]
    start = b"II" + (struct.pack("<HHHQ", 43, 8, 0, 16) if is_big else struct.pack("<HI", 42, 8))
    count_code, inline = ("Q", 8) if is_big else ("H", 4)
    entry_bytes = 20 if is_big else 12
    behind = len(start) + struct.calcsize("<" + count_code) + len(entries) * entry_bytes + inline
    directory = struct.pack("<" + count_code, len(entries))
    values = b""
    for tag, kind, content in entries:
        data = content if isinstance(content, bytes) else _packed(kind, content)
        count = len(data) // _SIZE[kind]
        if len(data) <= inline:
            field = data.ljust(inline, b"\0")
        else:
            if (behind + len(values)) % 8:
                values += b"\0" * (8 - (behind + len(values)) % 8)
            field = struct.pack("<Q" if is_big else "<I", behind + len(values))
            values += data
        directory += struct.pack("<HHQ" if is_big else "<HHI", tag, kind, count) + field
    return start + directory + b"\0" * inline + values


def _packed(kind: int, values: list[int]) -> bytes:
    code = "I" if kind == _RATIONAL else _CODE[kind]
    return struct.pack(f"<{len(values)}{code}", *values)


def _ratio(value: float) -> list[int]:
    """Return numerator and denominator of 32 bit.

    >>> _ratio(2_500_000.0)
    [2500000000, 1000]
    """
    denominator = 1000 if value < 4e6 else 1
    return [min(round(value * denominator), 2**32 - 1), denominator]
