"""Multi-page TIFF files: ImageJ stacks, OME-TIFF and plain pages, one page per section."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from storage.errors import SourceError
from storage.grid import ZYX
from storage.sources.grey import check_dtype, padded, to_grey

Resolution = tuple[float, float, float]

_NM = {
    "nm": 1.0, "nanometer": 1.0, "nanometre": 1.0, "nanometers": 1.0,
    "um": 1e3, "µm": 1e3, "μm": 1e3, "\\u00b5m": 1e3, "micron": 1e3, "microns": 1e3,
    "micrometer": 1e3, "mm": 1e6, "cm": 1e7,
}  # fmt: skip
"""Nanometres of the units that ImageJ and OME write."""


@dataclass(frozen=True)
class TiffStack:
    """The sections of one TIFF file; pages are read one at a time."""

    path: Path
    shape: ZYX
    resolution_nm: Resolution | None
    names: tuple[str, ...]
    pages: tuple[int, ...] | None
    """Index of each section's page; None for an ImageJ file of one page followed by raw planes."""
    raw_offset: int = 0
    """Where the raw planes begin."""

    def describe(self) -> dict[str, Any]:
        """Return what identifies the content, cheap to compute: it enters the run's key."""
        return {
            "kind": "tiff stack",
            "shape": list(self.shape),
            "dtype": "uint8",
            "file": file_identity(self.path),
        }

    def read_section(self, z: int) -> NDArray[np.uint8]:
        """Return section `z`, uint8 (ny, nx), 0 where its page is smaller than the largest.

        Raises
        ------
        SourceError
            If this page cannot be read; others may.
        """
        nz, ny, nx = self.shape
        if not 0 <= z < nz:
            raise SourceError(f"{self.path} has the sections 0 to {nz - 1}; got {z}")
        what = f"section {z} of {self.path}"
        if self.pages is None:
            return self._read_raw(z, what)
        return padded(read_page(self.path, self.pages[z], what), ny, nx, what)

    def _read_raw(self, z: int, what: str) -> NDArray[np.uint8]:
        _, ny, nx = self.shape
        try:
            with self.path.open("rb") as file:
                file.seek(self.raw_offset + z * ny * nx)
                data = file.read(ny * nx)
        except OSError as error:
            raise SourceError(f"{what} cannot be read: {error}") from error
        if len(data) < ny * nx:
            raise SourceError(f"{what} lies beyond the end of the file, which is truncated")
        return np.frombuffer(data, np.uint8).reshape(ny, nx)


def open_tiff(path: Path) -> TiffStack:
    """Find the sections of a TIFF file.

    Raises
    ------
    SourceError
        If it is no TIFF, is truncated, has several channels or time points, or no page of 8 bit.
    """
    try:
        n_pages = count_pages(path)
        with tifffile.TiffFile(path) as tif:
            named = tif.is_imagej or tif.is_ome
            series = tif.series[0] if named else None
            resolution = _imagej_resolution(tif) if tif.is_imagej else _ome_resolution(tif)
            if series is not None:
                n = _section_count(path, series.axes, series.shape)
                if tif.is_imagej and n > n_pages:
                    return _raw_stack(path, tif, n, resolution)
                pages = tuple(range(n))
            else:
                pages = section_pages(tif)
            if len(pages) > n_pages:
                raise SourceError(
                    f"{path} says that it has {len(pages)} sections, but holds {n_pages} pages; "
                    "it is incomplete, or spread over several files: give a folder of single "
                    "sections instead"
                )
            first_fault: SourceError | None = None
            sizes = []
            for index in pages:
                page: Any = tif.pages[index].keyframe  # of a series, only its first page is full
                try:
                    check_dtype(page.dtype, f"page {index} of {path}")
                    sizes.append((page.imagelength, page.imagewidth))
                except SourceError as error:
                    first_fault = first_fault or error
    except SourceError:
        raise
    except Exception as error:  # a damaged file raises whatever its parser does
        raise SourceError(
            f"{path} cannot be read as TIFF ({type(error).__name__}: {error}); expected a "
            "multi-page TIFF file, a folder of TIFF or PNG files, or a zarr volume"
        ) from error
    if not sizes:
        raise first_fault or SourceError(f"{path} has no pages")
    shape = (len(pages), max(y for y, _ in sizes), max(x for _, x in sizes))
    names = tuple(f"{path.stem}[{i}]" for i in range(len(pages)))
    return TiffStack(path, shape, resolution, names, pages)


def read_page(path: Path, index: int, what: str) -> NDArray[np.uint8]:
    """Return one page as uint8 (y, x).

    Raises
    ------
    SourceError
        If it is damaged, compressed in an unknown way, or not an 8-bit image.
    """
    try:
        with tifffile.TiffFile(path) as tif:
            page: Any = tif.pages[index]
            image = page.asarray()
            colormap, photometric, axes = page.colormap, page.photometric, page.axes
    except Exception as error:  # damaged data raises whatever the decoder of the day does
        raise SourceError(
            f"{what} cannot be decoded ({type(error).__name__}: {error}); it will be treated as "
            "missing"
        ) from error
    if colormap is not None and image.dtype == np.uint8:
        image = np.moveaxis(colormap >> 8, 0, -1).astype(np.uint8)[image]
    elif axes.startswith("S"):
        image = np.moveaxis(image, 0, -1)
    white_is_zero = photometric == tifffile.PHOTOMETRIC.MINISWHITE
    return to_grey(image, what, white_is_zero=white_is_zero)


def count_pages(path: Path) -> int:
    """Return the number of pages in the file's chain of directories.

    tifffile ends the chain at the first broken link with a log message; a stack whose copy was
    interrupted must not become a shorter stack.

    Raises
    ------
    SourceError
        If the file is no TIFF or the chain leaves the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 8:
            raise SourceError(f"{path} is not a TIFF file: it begins with {head[:4]!r}")
        is_big = struct.unpack(order + "H", head[2:4])[0] == 43
        count_format, link_format, entry = ("Q", "Q", 20) if is_big else ("H", "I", 12)
        count_bytes = struct.calcsize(count_format)
        link = struct.unpack_from(order + link_format, head, 8 if is_big else 4)[0]
        n, seen = 0, set()
        while link:
            if link + count_bytes > size or link in seen:
                raise SourceError(
                    f"{path} is truncated or damaged: the directory of page {n} should lie at byte "
                    f"{link} of {size}; copy the file again"
                )
            seen.add(link)
            file.seek(link)
            entries = struct.unpack(order + count_format, file.read(count_bytes))[0]
            file.seek(link + count_bytes + entries * entry)
            tail = file.read(struct.calcsize(link_format))
            if len(tail) < struct.calcsize(link_format):
                raise SourceError(f"{path} is truncated in the directory of page {n}")
            link = struct.unpack(order + link_format, tail)[0]
            n += 1
    return n


def section_pages(tif: Any) -> tuple[int, ...]:
    """Return the indices of the pages that are not previews or masks of others."""
    return tuple(i for i, page in enumerate(tif.pages) if not page.is_reduced)


def file_identity(path: Path) -> dict[str, Any]:
    """Return name, size and time of change of a file."""
    stat = path.stat()
    return {"name": path.name, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _section_count(path: Path, axes: str, shape: tuple[int, ...]) -> int:
    """Return the number of sections along z, or along time where a stack was saved as a movie."""
    long = {a: n for a, n in zip(axes, shape, strict=True) if n > 1 and a not in "YXS"}
    if len(long) > 1 or "C" in long:
        shown = ", ".join(f"{a} = {n}" for a, n in long.items())
        raise SourceError(
            f"{path} has the axes {axes} with {shown}; expected one stack of sections. Save one "
            "channel and one time point as its own file"
        )
    return next(iter(long.values()), 1)


def _raw_stack(path: Path, tif: Any, n: int, resolution: Resolution | None) -> TiffStack:
    """Return an ImageJ stack whose planes follow its only page, as ImageJ writes large ones."""
    page: Any = tif.pages[0]
    check_dtype(page.dtype, str(path))
    if not page.is_contiguous or page.samplesperpixel != 1:
        raise SourceError(f"{path} is an ImageJ stack with one compressed or colour page for all")
    shape = (n, page.imagelength, page.imagewidth)
    names = tuple(f"{path.stem}[{i}]" for i in range(n))
    return TiffStack(path, shape, resolution, names, None, page.dataoffsets[0])


def _imagej_resolution(tif: Any) -> Resolution | None:
    """Return the voxel size if ImageJ's own fields state all of it."""
    stated = tif.imagej_metadata or {}
    scale = _NM.get(str(stated.get("unit", "")).strip().lower())
    spacing = stated.get("spacing")
    tags = tif.pages[0].tags
    per_unit = []
    for tag in ("YResolution", "XResolution"):
        numerator, denominator = tags[tag].value if tag in tags else (0, 1)
        per_unit.append(numerator / denominator if denominator else 0.0)
    if scale is None or not spacing or not all(per_unit):
        return None
    return float(spacing) * scale, scale / per_unit[0], scale / per_unit[1]


def _ome_resolution(tif: Any) -> Resolution | None:
    """Return the voxel size if the file's OME-XML states all of it."""
    if not tif.is_ome:
        return None
    pixels = ET.fromstring(tif.ome_metadata).find(".//{*}Pixels")
    if pixels is None:
        return None
    sizes = []
    for axis in "ZYX":
        size = pixels.get(f"PhysicalSize{axis}")
        scale = _NM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").lower())
        if size is None or scale is None:
            return None
        sizes.append(float(size) * scale)
    return sizes[0], sizes[1], sizes[2]
