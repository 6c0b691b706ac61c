"""Folders of TIFF and PNG files, one file per section, in natural order of their names."""

from __future__ import annotations

import re
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from storage.errors import SourceError
from storage.grid import ZYX
from storage.sources.grey import check_dtype, padded, to_grey
from storage.sources.tiff import Resolution, count_pages, file_identity, read_page, section_pages

SUFFIXES = (".tif", ".tiff", ".png")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class FolderSource:
    """The image files of a folder; each is read when its section is."""

    folder: Path
    shape: ZYX
    resolution_nm: Resolution | None
    names: tuple[str, ...]
    files: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Return what identifies the content, cheap to compute: it enters the run's key."""
        return {
            "kind": "folder of images",
            "shape": list(self.shape),
            "dtype": "uint8",
            "sections": [file_identity(self.folder / name) for name in self.files],
        }

    def read_section(self, z: int) -> NDArray[np.uint8]:
        """Return section `z`, uint8 (ny, nx), 0 where its file is smaller than the largest.

        Raises
        ------
        SourceError
            If this file cannot be read; others may.
        """
        nz, ny, nx = self.shape
        if not 0 <= z < nz:
            raise SourceError(f"{self.folder} has the sections 0 to {nz - 1}; got {z}")
        path = self.folder / self.files[z]
        what = f"section {z}, file {path}"
        if path.suffix.lower() == ".png":
            return padded(_read_png(path, what), ny, nx, what)
        _tiff_size(path)
        return padded(read_page(path, 0, what), ny, nx, what)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key by which section 10 follows section 9.

    >>> sorted(["z10.png", "z9.png", "a.png"], key=natural_key)
    ['a.png', 'z9.png', 'z10.png']
    """
    parts = re.split(r"([0-9]+)", name)
    key = [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts]
    return [*key, (2, 0, name)]  # "z01" and "z1" must not depend on the folder's order


def open_folder(folder: Path) -> FolderSource:
    """Find the sections of a folder; files that are not images are passed over.

    The shape is that of the largest section. A file that cannot be read stays in the stack as a
    section that cannot be read, so that the ones after it keep their z.

    Raises
    ------
    SourceError
        If there is no image, two files have the same name but for the suffix, or no file can be
        used.
    """
    names = sorted((p.name for p in folder.iterdir() if p.is_file()), key=natural_key)
    files = [n for n in names if n.lower().endswith(SUFFIXES) and not n.startswith(".")]
    if not files:
        found = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "") if names else "no files"
        raise SourceError(
            f"{folder} holds no sections: expected files ending in {', '.join(SUFFIXES)}, or a "
            f"zarr volume; found {found}"
        )
    stems = [Path(name).stem for name in files]
    stem, count = Counter(stems).most_common(1)[0]
    if count > 1:
        raise SourceError(
            f"{folder} has {count} files for section {stem!r} "
            f"({', '.join(n for n in files if Path(n).stem == stem)}); keep one of them"
        )
    sizes, faults = [], []
    for name in files:
        try:
            sizes.append(_size(folder / name))
        except SourceError as error:
            faults.append(error)
    if not sizes:
        raise SourceError(f"none of the {len(files)} images can be used; the first: {faults[0]}")
    shape = (len(files), max(y for y, _ in sizes), max(x for _, x in sizes))
    return FolderSource(folder, shape, None, tuple(stems), tuple(files))


def _size(path: Path) -> tuple[int, int]:
    """Return (ny, nx) of an image of 8 bit from its header."""
    return _png_size(path) if path.suffix.lower() == ".png" else _tiff_size(path)


def _tiff_size(path: Path) -> tuple[int, int]:
    try:
        n_pages = count_pages(path)
        with tifffile.TiffFile(path) as tif:
            page: Any = tif.pages[0]
            n_sections = len(section_pages(tif)) if n_pages > 1 else 1
            dtype, size = page.dtype, (page.imagelength, page.imagewidth)
    except SourceError:
        raise
    except Exception as error:  # a damaged file raises whatever its parser does
        raise SourceError(f"{path} cannot be read as TIFF: {error}") from error
    if n_sections > 1:
        raise SourceError(
            f"{path} holds {n_sections} pages; expected one section per file. Give the file itself "
            "as the source, or split it"
        )
    check_dtype(dtype, str(path))
    return size


def _png_size(path: Path) -> tuple[int, int]:
    try:
        with path.open("rb") as file:
            head = file.read(26)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if len(head) < 26 or head[:8] != _PNG_SIGNATURE or head[12:16] != b"IHDR":
        raise SourceError(f"{path} is not a PNG file: it begins with {head[:8]!r}")
    width, height, bits = struct.unpack(">IIB", head[16:25])
    check_dtype(np.uint16 if bits > 8 else np.uint8, str(path))
    return height, width


def _read_png(path: Path, what: str) -> NDArray[np.uint8]:
    _png_size(path)
    try:
        image = imagecodecs.png_decode(path.read_bytes())
    except (OSError, imagecodecs.PngError) as error:
        raise SourceError(
            f"{what} cannot be decoded ({error}); it will be treated as missing"
        ) from error
    return to_grey(np.asarray(image), what)
