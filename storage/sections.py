"""Find and read source sections, of every kind that a microscope's software leaves behind.

A source gives bands of rows of one section at a time, so that neither a stack nor a section ever
has to fit into memory, as uint8 with 0 for "no data". Sections may differ in size: the source is
as large as its largest section, and the others are padded at the bottom and at the right. A section
that cannot be read raises when it is read, and only then: the rest of the stack is aligned without
it.

Sources can be sent to other processes; they hold no open files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from storage import store
from storage.errors import SourceError
from storage.grid import ZYX
from storage.sources.files import IMAGE_SUFFIXES, first_bytes, is_file

KINDS = (
    "a multi-page TIFF file, a folder of TIFF or PNG files, or a zarr, OME-Zarr, N5 or "
    "Neuroglancer precomputed volume"
)


class Source(Protocol):
    """A stack of sections as it comes from the microscope."""

    @property
    def shape(self) -> ZYX:
        """Sections, and height and width of the largest one, (nz, ny, nx)."""

    @property
    def resolution_nm(self) -> tuple[float, float, float] | None:
        """Voxel size (z, y, x) if the source states all of it, else None."""

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each section, for reports."""

    def describe(self) -> dict[str, Any]:
        """Return what identifies the content, as JSON values; the same from every host.

        It enters the run's key: a source that was changed gives another run. It does not hold the
        source's place, so a copy with its times kept is the same source. ``sections`` lists the
        fingerprint of each section.
        """

    def fingerprint(self, z: int) -> str:
        """Return what identifies the content of section `z`.

        Sections whose fingerprints are the same in two versions of a source have the same voxels;
        those that differ may have changed.
        """

    def read_rows(self, z: int, y0: int, y1: int) -> NDArray[np.uint8]:
        """Return rows [y0, y1) of section `z`, uint8 (y1 - y0, nx).

        Needs memory for the rows and for a few of the pieces (strips, tiles, chunks) in which the
        source is stored, whatever the size of the section.

        Raises
        ------
        SourceError
            If these rows cannot be read, now or ever: a piece of them is damaged or gone. Other
            rows, and other sections, may be whole.
        UnavailableError
            If the disk or the server does not answer: the same call may work later.
        """


def read_section(source: Source, z: int) -> NDArray[np.uint8]:
    """Return the whole section `z`, uint8 (ny, nx); for sections that fit into memory.

    Raises
    ------
    SourceError, UnavailableError
        As `Source.read_rows`.
    """
    return source.read_rows(z, 0, source.shape[1])


def open_source(uri: str | Path) -> Source:
    """Open a stack of sections on file:// or s3://; what it is shows in its content.

    Parameters
    ----------
    uri : str or Path
        - a multi-page TIFF file: plain pages, an ImageJ stack, or OME-TIFF;
        - a folder with one TIFF or PNG file per section, in natural order of the names;
        - a zarr 2 or 3 array (z, y, x), or an OME-Zarr 0.4 or 0.5 group, whose finest level is
          taken;
        - an N5 dataset, or an N5 group with a finest level ``s0``;
        - a Neuroglancer precomputed volume, whose finest scale is taken.

    Raises
    ------
    SourceError
        If there is nothing, or nothing of these kinds, or no section is an 8-bit image.
    """
    place = store.normalise_uri(uri)
    if is_file(place):
        return _open_file(place)
    return _open_folder(place)


def _open_file(uri: str) -> Source:
    from storage.sources.tiff import TIFF_MAGIC, open_tiff

    head = first_bytes(uri, 4)
    if head in TIFF_MAGIC or uri.lower().endswith((".tif", ".tiff")):
        return open_tiff(uri)
    found = "a single PNG image; give its folder" if head == b"\x89PNG" else "of an unknown kind"
    raise SourceError(f"{uri} is a file {found}. Expected {KINDS}")


def _open_folder(uri: str) -> Source:
    """Ask each kind in turn whether this is its; image files, which take a listing, come last."""
    from storage.sources.chunked import has_zarr, open_zarr
    from storage.sources.n5 import has_n5, open_n5
    from storage.sources.precomputed import has_precomputed, open_precomputed

    if has_zarr(uri):
        return open_zarr(uri)
    if has_precomputed(uri):
        return open_precomputed(uri)
    if has_n5(uri):
        return open_n5(uri)
    names = store.list_names(uri)
    if not names:
        raise SourceError(f"{uri} does not exist or is empty; expected {KINDS}")
    from storage.sources.montage import has_montage, not_stitched

    if has_montage(names):
        raise SourceError(not_stitched(uri))
    if any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
        from storage.sources.folder import open_folder

        return open_folder(uri)
    found = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
    raise SourceError(f"{uri} holds no sections; found {found}. Expected {KINDS}")
