"""Multi-page TIFF files: ImageJ stacks, OME-TIFF and plain pages, one page per section."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from storage.errors import SourceError
from storage.grid import ZYX
from storage.sources.files import FileIdentity, damage_named, digest, identity, open_file
from storage.sources.grey import check_band, check_dtype, check_shape, place_rows
from storage.sources.resolution import Resolution, tiff_resolution
from storage.sources.tiffpage import PageLayout, content_digest, page_layout, read_page_rows

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

DIGESTED_BYTES = 2**30
"""Stacks up to this size are told apart by what is in them, which takes a second."""


@dataclass(frozen=True)
class TiffStack:
    """The sections of one TIFF file; each is read by bands of rows."""

    uri: str
    shape: ZYX
    resolution_nm: Resolution | None
    names: tuple[str, ...]
    directories: tuple[int, ...]
    """Where the directory of each section's page lies."""
    is_raw_stack: bool = False
    """An ImageJ file of one page, whose pixels the planes of all sections follow."""

    def describe(self) -> dict[str, Any]:
        """Return what identifies the content: it enters the run's key."""
        return {
            "kind": "tiff stack",
            "shape": list(self.shape),
            "dtype": "uint8",
            "sections": [self.fingerprint(z) for z in range(self.shape[0])],
        }

    def fingerprint(self, z: int) -> str:
        """Return what identifies the content of section `z`.

        In files of up to `DIGESTED_BYTES`, a digest of the section's stored bytes and of what they
        mean: appending a section to the stack, or writing it anew, changes no other's. In larger
        ones, name, size and time of change of the file and the section's place in it: any change
        of the file is a change of all its sections. A folder of single sections has no such limit.
        """
        found = identity(self.uri)
        if found.bytes > DIGESTED_BYTES:
            return digest(found.fingerprint, z)
        try:
            with damage_named("page"), open_file(self.uri) as file:
                return content_digest(file, self._layout(file, z, found, "page"))
        except SourceError as error:  # it has no content, and says so the same way each time
            return digest("unreadable", str(error))

    def read_rows(self, z: int, y0: int, y1: int) -> NDArray[np.uint8]:
        """Return rows [y0, y1) of section `z`, 0 where its page is smaller than the largest.

        Raises
        ------
        SourceError
            If these rows cannot be read; others may.
        """
        check_band(self.shape, z, y0, y1, self.uri)
        what = f"section {z} of {self.uri}"
        with damage_named(what), open_file(self.uri) as file:
            layout = self._layout(file, z, identity(self.uri), what)
            return page_band(file, layout, self.shape, y0, y1, what)

    def _layout(self, file: BinaryIO, z: int, found: FileIdentity, what: str) -> PageLayout:
        if self.is_raw_stack:
            return read_layout(file, self.uri, found, self.directories[0], what).plane(z)
        return read_layout(file, self.uri, found, self.directories[z], what)


def open_tiff(uri: str) -> TiffStack:
    """Find the sections of a TIFF file.

    Raises
    ------
    SourceError
        If it is no TIFF, is truncated, has several channels or time points, or no page of 8 bit.
    """
    with damage_named(uri, "expected a TIFF file"), open_file(uri) as file:
        directories = find_directories(file, uri)
        with parsed(file) as tif:
            series = tif.series[0] if tif.is_imagej or tif.is_ome else None
            resolution = tiff_resolution(tif)
            if series is not None:
                n = _section_count(uri, series.axes, series.shape)
                if tif.is_imagej and n > len(directories):
                    return _raw_stack(uri, tif, n, directories, resolution)
                if n > len(directories):
                    raise SourceError(
                        f"{uri} says that it has {n} sections, but holds {len(directories)} pages; "
                        "it is incomplete, or spread over several files: give a folder of single "
                        "sections instead"
                    )
                # Of a series, only the first page is full.
                pages = {index: tif.pages[index].keyframe for index in range(n)}
            else:
                pages = {i: page for i, page in enumerate(tif.pages) if not page.is_reduced}
            sizes, faults = [], []
            for index, page in pages.items():
                try:
                    layout = page_layout(page, f"page {index} of {uri}")
                    sizes.append((layout.ny, layout.nx))
                except SourceError as error:
                    faults.append(error)
    if not sizes:
        raise faults[0] if faults else SourceError(f"{uri} has no pages")
    shape = (len(pages), max(y for y, _ in sizes), max(x for _, x in sizes))
    chosen = tuple(directories[index] for index in pages)
    return TiffStack(uri, shape, resolution, _names(uri, len(pages)), chosen)


def page_band(
    file: BinaryIO, layout: PageLayout, shape: ZYX, y0: int, y1: int, what: str
) -> NDArray[np.uint8]:
    """Return rows [y0, y1) of a page in a source of `shape`, padded at the bottom and right."""
    return place_rows(
        shape,
        (layout.ny, layout.nx),
        y0,
        y1,
        lambda a, b: read_page_rows(file, layout, a, b, what),
        what,
    )


def parsed(file: BinaryIO) -> Any:
    """Return tifffile's view of an open file."""
    file.seek(0)
    return tifffile.TiffFile(file)


def read_layout(
    file: BinaryIO, uri: str, found: FileIdentity, directory: int, what: str
) -> PageLayout:
    """Return the layout of the page whose directory lies at byte `directory`.

    The last ones are kept: a section is read in many bands, and a large one's lists are long.
    """
    kept = _kept_layouts(uri, found, directory)
    if not kept:
        with parsed(file) as tif:
            tif.filehandle.seek(directory)
            kept.append(page_layout(tifffile.TiffPage(tif, 0), what))
    return kept[0]


@lru_cache(maxsize=4)
def _kept_layouts(uri: str, found: FileIdentity, directory: int) -> list[PageLayout]:
    """Return a place for one layout, the same for the same version of a file."""
    return []


def find_directories(file: BinaryIO, what: str) -> tuple[int, ...]:
    """Return where the directories in the file's chain of pages lie.

    tifffile ends the chain at the first broken link with a log message; a stack whose copy was
    interrupted must not become a shorter stack.

    Raises
    ------
    SourceError
        If the file is no TIFF or the chain leaves the file.
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise SourceError(f"{what} is not a TIFF file: it begins with {head[:4]!r}")
    is_big = struct.unpack(order + "H", head[2:4])[0] == 43
    count_format, link_format, entry = ("Q", "Q", 20) if is_big else ("H", "I", 12)
    count_bytes = struct.calcsize(count_format)
    link = struct.unpack_from(order + link_format, head, 8 if is_big else 4)[0]
    found: dict[int, None] = {}
    while link:
        n = len(found)
        if link + count_bytes > size or link in found:
            raise SourceError(
                f"{what} is truncated or damaged: the directory of page {n} should lie at byte "
                f"{link} of {size}; copy the file again"
            )
        found[link] = None
        file.seek(link)
        entries = struct.unpack(order + count_format, file.read(count_bytes))[0]
        file.seek(link + count_bytes + entries * entry)
        tail = file.read(struct.calcsize(link_format))
        if len(tail) < struct.calcsize(link_format):
            raise SourceError(f"{what} is truncated in the directory of page {n}")
        link = struct.unpack(order + link_format, tail)[0]
    return tuple(found)


def _section_count(what: str, axes: str, shape: tuple[int, ...]) -> int:
    """Return the number of sections along z, or along time where a stack was saved as a movie."""
    long = {a: n for a, n in zip(axes, shape, strict=True) if n > 1 and a not in "YXS"}
    if len(long) > 1 or "C" in long:
        shown = ", ".join(f"{a} = {n}" for a, n in long.items())
        raise SourceError(
            f"{what} has the axes {axes} with {shown}; expected one stack of sections. Save one "
            "channel and one time point as its own file"
        )
    return next(iter(long.values()), 1)


def _raw_stack(
    uri: str, tif: Any, n: int, directories: tuple[int, ...], resolution: Resolution | None
) -> TiffStack:
    """Return an ImageJ stack whose planes follow its only page, as ImageJ writes large ones."""
    page: Any = tif.pages[0]
    check_dtype(page.dtype, uri)
    if not page.is_contiguous or page.samplesperpixel != 1:
        raise SourceError(f"{uri} is an ImageJ stack with one compressed or colour page for all")
    shape = (n, page.imagelength, page.imagewidth)
    check_shape(shape, uri)
    return TiffStack(uri, shape, resolution, _names(uri, n), directories[:1], is_raw_stack=True)


def _names(uri: str, n: int) -> tuple[str, ...]:
    stem = PurePosixPath(uri).stem
    return tuple(f"{stem}[{z}]" for z in range(n))
