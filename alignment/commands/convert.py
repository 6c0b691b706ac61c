"""Write unaligned sections as an OME-Zarr 0.5 volume."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from alignment.config import VolumeConfig
from alignment.runs import DEFAULT_RESOLUTION_NM, pyramid_levels
from alignment.stages.levels import Rows, write_section
from storage.grid import ZYX
from storage.sections import open_source
from storage.store import normalise_uri
from storage.volume import create_image, open_array

Tell = Callable[[int, int], None]
"""Called with the sections done and in total."""


def convert(
    source: str,
    target: str,
    *,
    resolution_nm: tuple[float, float, float] | None = None,
    tell: Tell | None = None,
) -> None:
    """Copy `source` into a sharded OME-Zarr 0.5 volume at `target`, section by section.

    Raises
    ------
    SourceError
        If the source, or one of its sections, cannot be read.
    ConflictError
        If `target` holds a volume of another shape.
    """
    opened = open_source(source)
    resolution = resolution_nm or opened.resolution_nm or DEFAULT_RESOLUTION_NM
    sections = (partial(opened.read_rows, z) for z in range(opened.shape[0]))
    write_volume(target, opened.shape, resolution, sections, tell)


def write_volume(
    target: str,
    shape: ZYX,
    resolution_nm: tuple[float, float, float],
    sections: Iterable[Rows],
    tell: Tell | None,
) -> None:
    """Write sections, given by bands of rows, at every level of a pyramid at `target`."""
    layout = VolumeConfig()
    uri = normalise_uri(target)
    mips = pyramid_levels(shape)
    create_image(
        uri,
        shape=shape,
        chunk=(1, layout.section_chunk_px, layout.section_chunk_px),
        shard=(1, layout.section_shard_px, layout.section_shard_px),
        resolution_nm=resolution_nm,
        mips=mips,
        name=uri.rsplit("/", 1)[-1],
    )
    arrays = [open_array(uri, str(mip)) for mip in range(mips)]
    for z, rows in enumerate(sections):
        write_section(arrays, z, rows)
        if tell:
            tell(z + 1, shape[0])


def as_rows(image: NDArray[np.uint8]) -> Rows:
    """Return the bands of an image (y, x) that is in memory."""
    return lambda y0, y1: image[y0:y1]
