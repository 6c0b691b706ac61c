"""Folders of TIFF and PNG files, one file per section, in natural order of their names."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from storage import store
from storage.errors import MissingError, SourceError
from storage.grid import ZYX
from storage.sources.files import (
    IMAGE_SUFFIXES,
    FileIdentity,
    damage_named,
    digest,
    identity,
    list_files,
    open_file,
)
from storage.sources.grey import check_band, place_rows
from storage.sources.png import PNG_MAGIC, PngStream, read_header, read_whole
from storage.sources.resolution import Resolution
from storage.sources.tiff import TIFF_MAGIC, find_directories, page_band, parsed, read_layout
from storage.sources.tiffpage import page_layout

_HEADERS_AT_ONCE = 16
"""Files whose headers are read at the same time: in S3, and on network disks, each is a wait."""


@dataclass(frozen=True)
class FolderSource:
    """The image files of a folder; each is read when its section is."""

    uri: str
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
            "sections": self._fingerprints(),
        }

    def fingerprint(self, z: int) -> str:
        """Return a digest of name, size and time of change (in S3: ETag) of a section's file."""
        try:
            return identity(store.join(self.uri, self.files[z])).fingerprint
        except MissingError:
            return digest("gone", self.files[z])

    def read_rows(self, z: int, y0: int, y1: int) -> NDArray[np.uint8]:
        """Return rows [y0, y1) of section `z`, 0 where its file is smaller than the largest.

        Raises
        ------
        SourceError
            If these rows cannot be read; others may.
        """
        check_band(self.shape, z, y0, y1, self.uri)
        uri = store.join(self.uri, self.files[z])
        what = f"section {z}, file {uri}"
        with damage_named(what), open_file(uri) as file:
            found = identity(uri)
            if _is_png(file, uri):
                return self._png_rows(file, z, found, y0, y1, what)
            directory = _only_page(file, what)
            layout = read_layout(file, uri, found, directory, what)
            return page_band(file, layout, self.shape, y0, y1, what)

    def _png_rows(
        self, file: BinaryIO, z: int, found: FileIdentity, y0: int, y1: int, what: str
    ) -> NDArray[np.uint8]:
        header = read_header(file, what)

        def read(a: int, b: int) -> NDArray[np.uint8]:
            if header.is_small:
                return read_whole(file, what)[a:b]
            key, stream = self._streams.pop("last", (None, None))
            if stream is None or key != (z, found) or stream.y > a:
                stream = PngStream(file, what)
            rows = stream.read(file, a, b, what)
            self._streams["last"] = ((z, found), stream)
            return rows

        return place_rows(self.shape, (header.ny, header.nx), y0, y1, read, what)

    def __getstate__(self) -> dict[str, Any]:
        """Travel without what belongs to this process."""
        return {k: v for k, v in self.__dict__.items() if k != "_streams"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the fields of a frozen instance."""
        self.__dict__.update(state)

    def _fingerprints(self) -> list[str]:
        """Return those of all sections, from one listing."""
        found = {file.name: file.fingerprint for file in list_files(self.uri)}
        return [found.get(name) or digest("gone", name) for name in self.files]

    @cached_property
    def _streams(self) -> dict[str, Any]:
        """The stream of the large PNG that was read last, where nobody is reading from it."""
        return {}


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key by which section 10 follows section 9.

    >>> sorted(["z10.png", "z9.png", "a.png"], key=natural_key)
    ['a.png', 'z9.png', 'z10.png']
    """
    parts = re.split(r"([0-9]+)", name)
    key = [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts]
    return [*key, (2, 0, name)]  # "z01" and "z1" must not depend on the folder's order


def open_folder(uri: str) -> FolderSource:
    """Find the sections of a folder; files that are not images are passed over.

    The shape is that of the largest section. A file that cannot be read stays in the stack as a
    section that cannot be read, so that the ones after it keep their z.

    Raises
    ------
    SourceError
        If there is no image, two files have the same name but for the suffix, or no file can be
        used.
    """
    names = sorted((found.name for found in list_files(uri)), key=natural_key)
    files = [n for n in names if n.lower().endswith(IMAGE_SUFFIXES) and not n.startswith(".")]
    if not files:
        raise SourceError(
            f"{uri} holds no sections: expected files ending in {', '.join(IMAGE_SUFFIXES)}"
        )
    stems = [PurePosixPath(name).stem for name in files]
    stem, count = Counter(stems).most_common(1)[0]
    if count > 1:
        same = ", ".join(n for n in files if PurePosixPath(n).stem == stem)
        raise SourceError(f"{uri} has {count} files for section {stem!r} ({same}); keep one")
    with ThreadPoolExecutor(_HEADERS_AT_ONCE) as threads:
        found = list(threads.map(image_size, [store.join(uri, name) for name in files]))
    sizes = [size for size in found if not isinstance(size, SourceError)]
    if not sizes:
        raise SourceError(f"none of the {len(files)} images can be used; the first: {found[0]}")
    shape = (len(files), max(y for y, _ in sizes), max(x for _, x in sizes))
    return FolderSource(uri, shape, None, tuple(stems), tuple(files))


def image_size(uri: str) -> tuple[int, int] | SourceError:
    """Return (ny, nx) of an image of 8 bit from its header, or what is wrong with it."""
    try:
        with damage_named(uri), open_file(uri) as file:
            if _is_png(file, uri):
                header = read_header(file, uri)
                return header.ny, header.nx
            directory = _only_page(file, uri)
            with parsed(file) as tif:
                tif.filehandle.seek(directory)
                layout = page_layout(tifffile.TiffPage(tif, 0), uri)
                return layout.ny, layout.nx
    except SourceError as error:
        return error


def _is_png(file: BinaryIO, uri: str) -> bool:
    """Go by the content; a file that is neither kind is judged by its name."""
    file.seek(0)
    head = file.read(len(PNG_MAGIC))
    return head == PNG_MAGIC or (uri.lower().endswith(".png") and head[:4] not in TIFF_MAGIC)


def _only_page(file: BinaryIO, what: str) -> int:
    """Return where the directory of the file's only section lies."""
    directories = find_directories(file, what)
    if len(directories) > 1:
        with parsed(file) as tif:
            n_sections = sum(not page.is_reduced for page in tif.pages)
        if n_sections > 1:
            raise SourceError(
                f"{what} holds {n_sections} pages; expected one section per file. Give the file "
                "itself as the source, or split it"
            )
    return directories[0]
