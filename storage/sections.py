"""Find and read source sections: TIFF stacks, folders of TIFF and PNG, zarr and OME-Zarr.

A source gives one section at a time, so that a stack never has to fit into memory, as uint8 with 0
for "no data". Sections may differ in size: the source is as large as its largest section, and the
others are padded at the bottom and at the right. A section that cannot be read raises when it is
read, and only then: the rest of the stack is aligned without it.

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
from storage.uri import local_path


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
        """Return what identifies the content, as JSON values; cheap, the same from every host.

        It enters the run's key: a source that was changed gives another run. It does not hold the
        source's place, so a copy with its times kept is the same source.
        """

    def read_section(self, z: int) -> NDArray[np.uint8]:
        """Return section `z`, uint8 (ny, nx).

        Raises
        ------
        SourceError
            If this section cannot be read; others may.
        """


def open_source(uri: str | Path) -> Source:
    """Open a stack of sections.

    Parameters
    ----------
    uri : str or Path
        - a multi-page TIFF file: plain pages, an ImageJ stack, or OME-TIFF;
        - a folder with one TIFF or PNG file per section, in natural order of the names;
        - a zarr 2 or 3 array (z, y, x), or an OME-Zarr 0.4 or 0.5 group, whose finest level is
          taken; also on s3://.

    Raises
    ------
    SourceError
        If there is nothing, or nothing of these kinds, or no section is an 8-bit image.
    """
    place = store.normalise_uri(uri)
    path = local_path(place)
    if path is None:
        return _open_remote(place)
    if path.is_file():
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise SourceError(
                f"{path} is a file of an unknown kind; expected a multi-page TIFF (.tif, .tiff), "
                "a folder of TIFF or PNG files, or a zarr volume"
            )
        from storage.sources.tiff import open_tiff

        return open_tiff(path)
    if not path.is_dir():
        raise SourceError(
            f"{path} does not exist; expected a multi-page TIFF file, a folder of TIFF or PNG "
            "files, or a zarr volume"
        )
    from storage.sources.chunked import has_zarr, open_zarr

    if has_zarr(place):
        return open_zarr(place)
    from storage.sources.folder import open_folder

    return open_folder(path)


def _open_remote(uri: str) -> Source:
    from storage.sources.chunked import has_zarr, open_zarr

    if has_zarr(uri):
        return open_zarr(uri)
    names = store.list_names(uri)
    if uri.lower().endswith((".tif", ".tiff", ".png")) or any(
        n.lower().endswith((".tif", ".tiff", ".png")) for n in names
    ):
        raise SourceError(
            f"{uri} holds image files; in S3 only zarr volumes can be read piece by piece. Copy "
            "the files to a local disk and give that folder"
        )
    found = ", ".join(names[:5]) or "nothing"
    raise SourceError(f"{uri} is not a zarr array or an OME-Zarr group; found {found}")
