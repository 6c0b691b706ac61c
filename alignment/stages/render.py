"""Stage "render": the source resampled once, straight into the aligned volume."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from alignment.render import source_bounds, warp
from alignment.runs import Run, load, pyramid_levels
from alignment.stages import inputs
from alignment.stages.slabreads import relaxed
from alignment.stages.units import Phase, Record, Ref
from storage.grid import Box, tile
from storage.store import join
from storage.volume import create_image, open_array, read, write

PATH = "aligned"


def phases(run: Run) -> Iterator[Phase]:
    """Yield one phase over the shards of the aligned volume."""
    layout = run.config.volume
    shape = (run.shape[0], *inputs.coarse(run.uri).canvas)
    levels = create_image(
        join(run.uri, PATH),
        shape=shape,
        chunk=layout.aligned_chunk,
        shard=layout.aligned_shard,
        resolution_nm=run.resolution_nm,
        mips=pyramid_levels(shape),
        name="aligned",
    )
    units = list(tile(shape, levels[0].shards or levels[0].chunks, mip=0))
    yield Phase("shards", units, render_shard, reads_sections, ("render", "relax"))


def reads_sections(box: Box, *, run_uri: str) -> list[Ref | str]:
    """Return the sections that a shard shows, with the fields and places that move them."""
    run = load(run_uri)
    shown = {shown_section(run, z) for z in range(box.start[0], box.stop[0])}
    sources = sorted(z for z in shown if z is not None)
    fields = [relaxed(run, z) for z in sources]
    sections = [inputs.ingested(z) for z in sources]
    return [*sections, *fields, inputs.PLACED, inputs.missing_fact(run_uri)]


def render_shard(box: Box, *, run_uri: str) -> Record:
    """Write one shard of the aligned volume."""
    run = load(run_uri)
    block = np.zeros(box.shape, np.uint8)
    read_bytes = 0
    for k, z in enumerate(range(box.start[0], box.stop[0])):
        source_z = shown_section(run, z)
        if source_z is not None:
            block[k], used = _render(run, z, source_z, box)
            read_bytes += used
    digest = write(open_array(run_uri, f"{PATH}/0"), box, block)
    return {"sha256": digest, "bytes_read": read_bytes, "bytes_written": int(block.nbytes)}


def shown_section(run: Run, z: int) -> int | None:
    """Return the section drawn at z: its own, for a missing one the nearest, or none."""
    gone = inputs.missing(run.uri)
    if z not in gone:
        return z
    if run.config.render.bridge_missing == "blank":
        return None
    return min(inputs.present(run), key=lambda other: (abs(other - z), other))


def _render(run: Run, z: int, source_z: int, box: Box) -> tuple[NDArray[np.uint8], int]:
    _, y0, x0 = box.start
    _, ny, nx = box.shape
    matrix = inputs.coarse(run.uri).matrices[source_z]
    field = inputs.read_row(open_array(run.uri, "fields"), source_z)
    spacing = run.config.relax.node_spacing_px
    bounds = source_bounds(matrix, field, spacing, (y0, x0), (ny, nx))
    sections = open_array(run.uri, "sections/0")
    needed = Box((source_z, bounds[0], bounds[1]), (source_z + 1, bounds[2], bounds[3]), 0)
    inside = needed.clip(sections.shape)
    if 0 in inside.shape:
        return np.zeros((ny, nx), np.uint8), 0
    source = read(sections, inside)[0]
    origin = (inside.start[1], inside.start[2])
    drawn = warp(
        source,
        origin,
        matrix,
        field,
        spacing,
        (y0, x0),
        (ny, nx),
        run.config.render.interpolation,
    )
    return drawn, int(source.nbytes)
