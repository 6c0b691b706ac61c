"""Stage "ingest": the source, section by section, as a sharded OME-Zarr pyramid."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from alignment.pyramid import downsample
from alignment.runs import Run, load
from alignment.stages.units import Phase, Record, Section
from storage.errors import SourceError
from storage.grid import Box, tile
from storage.sections import Source, open_source
from storage.store import join
from storage.volume import Array, create_image, open_array, write, write_unit

PATH = "sections"


def phases(run: Run) -> Iterator[Phase]:
    """Yield one phase: every section is read once and written at all levels."""
    layout = run.config.volume
    create_image(
        join(run.uri, PATH),
        shape=run.shape,
        chunk=(1, layout.section_chunk_px, layout.section_chunk_px),
        shard=(1, layout.section_shard_px, layout.section_shard_px),
        resolution_nm=run.resolution_nm,
        mips=run.section_mips,
        name="sections",
    )
    yield Phase("sections", [Section(z) for z in range(run.shape[0])], ingest_section)


def ingest_section(unit: Section, *, run_uri: str) -> Record:
    """Write one section at every level; an unreadable one becomes no data, with its reason."""
    run = load(run_uri)
    unreadable = None
    try:
        image = _source(run.source_uri).read_section(unit.z)
    except SourceError as error:
        # A bad section never stops a volume: it is bridged later, and the report says why.
        image, unreadable = np.zeros(run.shape[1:], np.uint8), str(error)
    arrays = [open_array(run_uri, f"{PATH}/{mip}") for mip in range(run.section_mips)]
    digests, written = write_levels(arrays, unit.z, image)
    return {
        "z": unit.z,
        "unreadable": unreadable,
        "sha256": digests,
        "bytes_read": int(image.nbytes),
        "bytes_written": written,
    }


def write_levels(
    arrays: list[Array], z: int, image: NDArray[np.uint8]
) -> tuple[list[list[str]], int]:
    """Write section z, (y, x), into every level of a pyramid; return digests and bytes."""
    level, digests, written = image[np.newaxis], [], 0
    for mip, array in enumerate(arrays):
        if mip:
            level = downsample(_even(level))
        digests.append(_write_section(array, z, level, mip))
        written += int(level.nbytes)
    return digests, written


def _write_section(array: Array, z: int, image: NDArray[np.uint8], mip: int) -> list[str]:
    digests = []
    for part in tile(image.shape, (1, *write_unit(array)[1:]), mip=mip):
        (_, y0, x0), (_, y1, x1) = part.start, part.stop
        digests.append(write(array, Box((z, y0, x0), (z + 1, y1, x1), mip), image[part.slices]))
    return digests


@lru_cache(maxsize=2)
def _source(uri: str) -> Source:
    return open_source(uri)


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    _, ny, nx = image.shape
    return np.pad(image, ((0, 0), (0, ny % 2), (0, nx % 2)))
