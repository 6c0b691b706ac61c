"""Stage "render": the source resampled once, straight into the aligned volume.

A shard is drawn section by section. What it holds fills whole shards of the next levels too, of
half the side each (`pyramid.levels_of_shard`), which are written in the same pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from alignment.intensity import Grey, common_grey, measure_grey
from alignment.pyramid import halve, levels_of_shard
from alignment.runs import Run, load, pyramid_levels
from alignment.stages import inputs
from alignment.stages.drawn import COMMON_GREY, Drawing, grey_of, reads, shown_section, substitutes
from alignment.stages.units import Phase, Record, Ref, Section, Whole
from storage.commit import records
from storage.grid import ZYX, Box, tile
from storage.store import join
from storage.volume import create_image, open_array, write

PATH = "aligned"


def phases(run: Run) -> Iterator[Phase]:
    """Yield the sections' grey values, if they are wanted, then the shards of the volume."""
    if run.config.render.normalise != "none":
        sections = [Section(z) for z in inputs.present(run)]
        yield Phase("grey", sections, measure_section, reads_section, ("masks",), local=True)
        yield Phase("common", [Whole()], find_common, reads_grey)
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
        halved=own_levels(run, shape),
    )
    units = list(tile(shape, levels[0].shards or levels[0].chunks, mip=0))
    yield Phase("shards", units, render_shard, reads_sections, ("render", "relax"), local=True)


def own_levels(run: Run, shape: ZYX) -> int:
    """Return how many levels after mip 0 the shards of the aligned volume fill by themselves."""
    layout = run.config.volume
    return levels_of_shard(layout.aligned_shard, layout.aligned_chunk, pyramid_levels(shape))


def layout_fact(run: Run) -> str:
    """Return how the aligned volume is cut into objects, as an input."""
    layout = run.config.volume
    return f"chunks of {layout.aligned_chunk} in shards of {layout.aligned_shard}"


def reads_section(unit: Section, *, run_uri: str) -> list[Ref]:
    """Return the section and its valid part."""
    return [inputs.ingested(unit.z), inputs.masked(unit.z)]


def measure_section(unit: Section, *, run_uri: str) -> Record:
    """Measure brightness and contrast of a section's valid tissue."""
    run = load(run_uri)
    mip = run.config.masks.mip
    image = inputs.section(run, unit.z, mip)
    grey = measure_grey(image, inputs.valid(run, unit.z, mip))
    if grey is None:  # a present section without valid tissue: nothing is known, nothing changes
        return {"z": unit.z, "median": None, "spread": None}
    return {"z": unit.z, **grey._asdict()}


def reads_grey(_: Whole, *, run_uri: str) -> list[Ref | str]:
    """Return the grey of all sections."""
    return [*(grey_of(z) for z in inputs.present(load(run_uri))), inputs.missing_fact(run_uri)]


def find_common(_: Whole, *, run_uri: str) -> Record:
    """Find the grey that all sections shall have."""
    found = records.read_records(run_uri, "render", "grey").values()
    known = [Grey(r["median"], r["spread"]) for r in found if r["median"] is not None]
    return dict(common_grey(known)._asdict()) if known else {"median": None, "spread": None}


def reads_sections(box: Box, *, run_uri: str) -> list[Ref | str]:
    """Return the sections that a shard shows, with the fields and places that move them."""
    run = load(run_uri)
    used: set[int] = set()
    shows = []
    for z in range(box.start[0], box.stop[0]):
        shown = shown_section(run, z)
        filling = [] if shown is None else substitutes(run, z, shown)
        shows.append(f"{z} shows {shown}, filled from {filling}")
        if shown is not None:
            used |= {shown, *filling}
    common = [COMMON_GREY] if run.config.render.normalise != "none" else []
    sections = [ref for z in sorted(used) for ref in reads(run, z)]
    places = inputs.place_facts(run_uri, *used)
    return [*sections, *common, *places, *shows, layout_fact(run)]


def render_shard(box: Box, *, run_uri: str) -> Record:
    """Write one shard of the aligned volume, and those of the next levels that it fills."""
    run = load(run_uri)
    drawing = Drawing(run)
    block = np.empty(box.shape, np.uint8)
    for k, z in enumerate(range(box.start[0], box.stop[0])):
        block[k] = drawing.draw(z, box)
    digests, written = [], 0
    shape = (run.shape[0], *inputs.coarse(run.uri).canvas)
    for mip in range(own_levels(run, shape) + 1):
        if mip:
            block, box = halve(block), box.coarser()
        digests.append(write(open_array(run_uri, f"{PATH}/{mip}"), box, block))
        written += int(block.nbytes)
    return {"sha256": digests, "bytes_read": drawing.bytes_read, "bytes_written": written}
