"""One camera tile from its file, TIFF or PNG, on file:// or s3://: small enough to read whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from storage.errors import SourceError
from storage.sources.files import damage_named, open_file
from storage.sources.png import PNG_MAGIC, read_header, read_whole
from storage.sources.tiffpage import PageLayout, page_layout, read_page_rows

MAX_TILE_PX = 2**28
"""Of one tile; a camera of 16,384 x 16,384 px."""


def count_pages(uri: str) -> int:
    """Return the number of images in a TIFF file."""
    with damage_named(uri, ""), open_file(uri) as file, tifffile.TiffFile(file) as tif:
        return len(tif.pages)


def image_size(uri: str, what: str) -> tuple[int, int]:
    """Return (ny, nx) of an image of 8 bit, from its header."""
    with damage_named(what, ""), open_file(uri) as file:
        if _is_png(file):
            header = read_header(file, what)
            return header.ny, header.nx
        with _page(file, 0, what) as layout:
            return layout.ny, layout.nx


def read_image(uri: str, page: int, what: str) -> NDArray[np.uint8]:
    """Return an image, uint8 (y, x).

    Parameters
    ----------
    page : int
        Of a TIFF file with several.

    Raises
    ------
    SourceError
        If it cannot be read, is larger than `MAX_TILE_PX`, or not an 8-bit image.
    UnavailableError
        If the disk or the server does not answer.
    """
    with damage_named(what, ""), open_file(uri) as file:
        if _is_png(file):
            header = read_header(file, what)
            _check_size(header.ny, header.nx, what)
            return read_whole(file, what)
        with _page(file, page, what) as layout:
            _check_size(layout.ny, layout.nx, what)
            return read_page_rows(file, layout, 0, layout.ny, what)


def _is_png(file: BinaryIO) -> bool:
    head = file.read(len(PNG_MAGIC))
    file.seek(0)
    return head == PNG_MAGIC


@contextmanager
def _page(file: BinaryIO, index: int, what: str) -> Iterator[PageLayout]:
    with tifffile.TiffFile(file) as tif:
        if index >= len(tif.pages):
            raise SourceError(f"{what}: page {index} does not exist, the file has {len(tif.pages)}")
        page: Any = tif.pages[index]
        yield page_layout(page, what)


def _check_size(ny: int, nx: int, what: str) -> None:
    if ny * nx > MAX_TILE_PX:
        raise SourceError(f"{what} is {ny} x {nx} px, more than {MAX_TILE_PX}; cut it into tiles")
