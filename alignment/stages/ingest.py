"""Stage "ingest": the source, section by section, as a sharded OME-Zarr pyramid.

A unit needs memory for one row of shards, whatever the section's size (`alignment.stages.levels`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError
from alignment.runs import Run, load
from alignment.stages.levels import write_section
from alignment.stages.units import Phase, Record, Section
from storage.errors import SourceError
from storage.journal import is_mending
from storage.sections import Source, open_source
from storage.store import join, read_json
from storage.volume import create_image, open_array

PATH = "sections"

LOST_ROWS = 512
"""Where a band of rows cannot be read, it is read again by this many, and those that still cannot
are lost."""


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
    units = [Section(z) for z in range(run.shape[0])]
    parameters = ("section_yx", "section_mips")
    yield Phase("sections", units, ingest_section, reads_source, parameters, local=True)


def reads_source(unit: Section, *, run_uri: str) -> list[str]:
    """Return what identifies the section, and how it is cut into chunks and shards."""
    layout = load(run_uri).config.volume
    cut = f"chunks of {layout.section_chunk_px} in shards of {layout.section_shard_px}"
    return [_fingerprints(run_uri)[unit.z], cut]


def ingest_section(unit: Section, *, run_uri: str) -> Record:
    """Write one section at every level; rows that cannot be read become no data, with the reason.

    Raises
    ------
    DataError
        If the source, or this section of it, is not what it was when the run was made.
    """
    run = load(run_uri)
    source = _source(run_uri)
    if source.shape != run.shape:
        raise DataError(
            f"{run.source_uri} has the shape {source.shape}; it had {run.shape} when the run was "
            "made. Start a new run for the changed source"
        )
    # A fingerprint may change where the voxels did not, as when a file is copied.
    if not is_mending() and source.fingerprint(unit.z) != _fingerprints(run_uri)[unit.z]:
        raise DataError(
            f"section {unit.z} ({run.section_names[unit.z]}) of {run.source_uri} was changed since "
            "the run was made. Start a new run: sections that did not change are taken over"
        )
    section = _Bridged(source, unit.z)
    arrays = [open_array(run_uri, f"{PATH}/{mip}") for mip in range(run.section_mips)]
    digests, written = write_section(arrays, unit.z, section.read_rows)
    return {
        "z": unit.z,
        "unreadable": section.reason,
        "unreadable_rows": section.lost,
        "sha256": digests,
        "bytes_read": run.shape[1] * run.shape[2],
        "bytes_written": written,
    }


class _Bridged:
    """One section of a source, with no data where it cannot be read: that never stops a volume."""

    def __init__(self, source: Source, z: int) -> None:
        self._source, self._z = source, z
        self.reason: str | None = None
        """Why the first rows that are lost cannot be read."""
        self.lost: list[list[int]] = []
        """[y0, y1) of the rows that are lost, in order."""
        self._error = ""

    def read_rows(self, y0: int, y1: int) -> NDArray[np.uint8]:
        """Return rows, 0 where they cannot be read."""
        try:
            return self._source.read_rows(self._z, y0, y1)
        except SourceError as error:
            if y1 - y0 <= LOST_ROWS:
                self._note(y0, y1, str(error))
                return np.zeros((y1 - y0, self._source.shape[2]), np.uint8)
        parts = [self.read_rows(y, min(y + LOST_ROWS, y1)) for y in range(y0, y1, LOST_ROWS)]
        return np.concatenate(parts)

    def _note(self, y0: int, y1: int, error: str) -> None:
        if self.lost and self.lost[-1][1] == y0:
            self.lost[-1][1] = y1
        else:
            self.lost.append([y0, y1])
        self._error = self._error or error
        n = sum(b - a for a, b in self.lost)
        ny = self._source.shape[1]
        self.reason = self._error if n == ny else f"{n} of {ny} rows: {self._error}"


@lru_cache(maxsize=2)
def _fingerprints(run_uri: str) -> list[str]:
    """Return what identified each section when the run was made."""
    sections: list[str] = read_json(join(run_uri, "run.json"))["source"]["sections"]
    return sections


@lru_cache(maxsize=2)
def _source(run_uri: str) -> Source:
    """Return the source as a run found it: opened anew for each run, since it may have grown."""
    return open_source(load(run_uri).source_uri)
