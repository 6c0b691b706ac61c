"""One page of a TIFF file: where its strips or tiles lie, and bands of its rows.

Only what a band touches is read and decoded. Uncompressed pages whose pixels lie in one piece are
read row by row, however few and large their strips are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import tifffile
from blake3 import blake3
from numpy.typing import NDArray

from storage.errors import SourceError
from storage.sources.files import read_at
from storage.sources.grey import check_dtype, check_shape, to_grey

MAX_PIECE_BYTES = 256 * 2**20
"""Of a strip or tile, decoded: what a program must hold at once to read any of its rows."""

_STEP_BYTES = 16 * 2**20


@dataclass(frozen=True)
class PageLayout:
    """Size, place and encoding of a page of 8 bit."""

    ny: int
    nx: int
    samples: int
    raw_offset: int | None
    """Where the pixels begin if they lie in one piece, row after row; then there are no pieces."""
    is_planar: bool
    """Each channel has its own strips or tiles."""
    piece: tuple[int, int]
    """Height and width of a strip or tile."""
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    decode: Callable[..., Any]
    options: dict[str, Any]
    """Of `decode`: the tables that JPEG pieces share."""
    palette: NDArray[np.uint8] | None
    white_is_zero: bool
    encoding: tuple[Any, ...]
    """Everything but places that decides what the stored bytes mean."""

    @property
    def grid(self) -> tuple[int, int]:
        """How many pieces there are down and across."""
        return -(-self.ny // self.piece[0]), -(-self.nx // self.piece[1])

    def plane(self, z: int) -> PageLayout:
        """Return the layout of raw plane `z` behind this page: ImageJ's way above 4 GB."""
        start = (self.raw_offset or 0) + z * self.ny * self.nx
        return replace(self, raw_offset=start)


def page_layout(page: Any, what: str) -> PageLayout:
    """Return the layout of a page while its file is open.

    Parameters
    ----------
    page : tifffile.TiffPage

    Raises
    ------
    SourceError
        If it is not 8 bit, has a depth, or is stored in pieces too large to be read by bands.
    """
    check_dtype(page.dtype, what)
    planes, depth, ny, nx, contiguous = page.shaped
    if depth != 1:
        raise SourceError(f"{what} is a volume of depth {depth}; expected one section per page")
    check_shape((1, ny, nx), what)
    is_raw = page.is_contiguous and page.fillorder == 1 and page.predictor == 1 and planes == 1
    piece = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, nx)
    piece = (min(piece[0], ny), piece[1])
    if not is_raw and piece[0] * piece[1] * contiguous > MAX_PIECE_BYTES:
        raise SourceError(
            f"{what} is stored in strips or tiles of {piece[0]} x {piece[1]} px; more than "
            f"{MAX_PIECE_BYTES >> 20} MiB cannot be decoded in bands. Save it uncompressed, in "
            "tiles, or in strips of fewer rows (for example tiffcp -r 64)"
        )
    options: dict[str, Any] = {}
    if page.compression in (6, 7, 34892, 33007):  # the kinds of JPEG
        options = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
    palette = None
    if page.colormap is not None:
        palette = np.moveaxis(page.colormap >> 8, 0, -1).astype(np.uint8)
    encoding = (
        *(ny, nx, planes, contiguous, piece, is_raw, page.photometric, page.compression),
        *(page.predictor, page.fillorder, page.jpegtables),
        None if palette is None else palette.tobytes(),
    )
    return PageLayout(
        ny,
        nx,
        planes * contiguous,
        page.dataoffsets[0] if is_raw else None,
        planes > 1,
        piece,
        np.array(page.dataoffsets, np.int64),
        np.array(page.databytecounts, np.int64),
        page.decode,
        options,
        palette,
        page.photometric == tifffile.PHOTOMETRIC.MINISWHITE,
        encoding,
    )


def read_page_rows(
    file: BinaryIO, layout: PageLayout, y0: int, y1: int, what: str
) -> NDArray[np.uint8]:
    """Return rows [y0, y1) of a page, uint8 (y1 - y0, nx); 0 where a sparse file has no piece.

    Raises
    ------
    SourceError
        If the file ends before; decoders raise what they do.
    """
    rows = np.empty((y1 - y0, layout.nx), np.uint8)
    if layout.raw_offset is not None:
        _read_raw(file, layout, y0, rows, what)
        return rows
    tall, wide = layout.piece
    for row in range(y0 // tall, -(-y1 // tall)):
        top = row * tall
        a, b = max(y0, top), min(y1, top + tall)
        for column in range(layout.grid[1]):
            left, right = column * wide, min((column + 1) * wide, layout.nx)
            grey = _decoded(file, layout, row, column, what)
            part = rows[a - y0 : b - y0, left:right]
            part[:] = 0 if grey is None else grey[a - top : b - top, : right - left]
    return rows


def content_digest(file: BinaryIO, layout: PageLayout) -> str:
    """Return a digest of what is stored of a page; bytes that are gone count as absent."""
    hasher = blake3(repr(layout.encoding).encode())
    if layout.raw_offset is not None:
        places = [(layout.raw_offset, layout.ny * layout.nx * layout.samples)]
    else:
        places = list(zip(layout.offsets.tolist(), layout.counts.tolist(), strict=True))
    for offset, count in places:
        hasher.update(count.to_bytes(8, "little"))
        file.seek(offset)
        for done in range(0, count, _STEP_BYTES):
            hasher.update(file.read(min(_STEP_BYTES, count - done)))
    return hasher.hexdigest(16)


def _read_raw(
    file: BinaryIO, layout: PageLayout, y0: int, rows: NDArray[np.uint8], what: str
) -> None:
    row_bytes = layout.nx * layout.samples
    step = max(_STEP_BYTES // row_bytes, 1)
    for y in range(0, len(rows), step):
        n = min(step, len(rows) - y)
        data = read_at(file, (layout.raw_offset or 0) + (y0 + y) * row_bytes, n * row_bytes, what)
        image = np.frombuffer(data, np.uint8).reshape(n, layout.nx, layout.samples)
        rows[y : y + n] = _grey(layout, image, what)


def _decoded(
    file: BinaryIO, layout: PageLayout, row: int, column: int, what: str
) -> NDArray[np.uint8] | None:
    """Return one strip or tile, (y, x), or None where the file leaves it out."""
    down, across = layout.grid
    channels = []
    for channel in range(layout.samples if layout.is_planar else 1):
        index = (channel * down + row) * across + column
        offset, count = int(layout.offsets[index]), int(layout.counts[index])
        if offset == 0 or count == 0:
            return None
        data = read_at(file, offset, count, what)
        # (depth, y, x, channels)
        channels.append(layout.decode(data, index, **layout.options)[0][0])
    return _grey(layout, np.concatenate(channels, -1), what)


def _grey(layout: PageLayout, image: NDArray[Any], what: str) -> NDArray[np.uint8]:
    if layout.palette is not None and image.dtype == np.uint8:
        image = layout.palette[image[..., 0]]
    return to_grey(image, what, white_is_zero=layout.white_is_zero)
