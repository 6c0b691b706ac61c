"""Stage "masks": what may be matched, why the rest may not, and which sections are duplicates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.defects import Defect
from alignment.duplicates import measure_likeness
from alignment.folds import Tear
from alignment.masks import examine_section, is_missing
from alignment.runs import Run, load, pyramid_levels
from alignment.seams import Seam
from alignment.stages import inputs
from alignment.stages.handdrawn import drawn_section, without
from alignment.stages.marked import marked_section
from alignment.stages.units import Pair, Phase, Record, Ref, Section
from storage.volume import create_array, open_array

LISTED = 20
"""Folds and cracks, and seams, of a section that its record lists; the longest or surest."""
COMPARED_PX = 4096
"""Longest side of the sections that are compared: grain is lost further down, time further up."""


def phases(run: Run) -> Iterator[Phase]:
    """Yield the sections first, then the pairs of neighbours, which may show the same."""
    shape = run.shape_at(run.config.masks.mip)
    layout = run.config.volume
    for path in ("valid", "defects"):
        create_array(
            run.uri,
            path,
            shape=shape,
            chunk=(1, layout.section_chunk_px, layout.section_chunk_px),
            shard=(1, layout.section_shard_px, layout.section_shard_px),
            dtype="uint8",
            fill_value=0,
            dimension_names=("z", "y", "x"),
            attributes={"mip": run.config.masks.mip},
        )
    units = [Section(z) for z in range(run.shape[0])]
    yield Phase("sections", units, mask_section, reads_section, ("masks",), local=True)
    if run.slab is not None:
        return  # which sections are neighbours is known when the masks of all are
    pairs = [Pair(z, d) for z, d in inputs.pairs(run, 1)]
    yield Phase("likeness", pairs, compare_pair, reads_pair, ("masks",))


def reads_section(unit: Section, *, run_uri: str) -> list[Ref | str]:
    """Return the section itself, what a person drew over it, and the network that marks it."""
    attached = load(run_uri).attachments
    seen: list[Ref | str] = [inputs.ingested(unit.z)]
    if drawn := attached.get("drawn"):
        seen.append(f"drawn {drawn['sections'][unit.z]}")
    if network := attached.get("defects"):
        seen.append(f"network {network}")
    return seen


def reads_pair(unit: Pair, *, run_uri: str) -> list[Ref]:
    """Return both sections and their valid parts."""
    both = (unit.z - unit.d, unit.z)
    return [*map(inputs.ingested, both), *map(inputs.masked, both)]


def mask_section(unit: Section, *, run_uri: str) -> Record:
    """Write `valid` (1 = tissue may be used) and `defects` (bits of `Defect`) of one section."""
    run = load(run_uri)
    config = run.config.masks
    image = inputs.section(run, unit.z, config.mip)
    found = examine_section(image, config)
    drawn = drawn_section(run, unit.z)
    if drawn is not None:
        found = without(found, drawn, Defect.NO_DATA)
    marked = marked_section(run, image)
    if marked is not None:
        found = without(found, marked, Defect[config.network_finds.upper()])
    digest = inputs.write_row(open_array(run_uri, "valid"), unit.z, found.valid.astype(np.uint8))
    inputs.write_row(open_array(run_uri, "defects"), unit.z, found.reasons)
    return {
        "z": unit.z,
        "missing": bool(is_missing(found.valid, config, found.reasons)),
        "valid_fraction": round(float(found.valid.mean()), 6),
        "drawn_fraction": _share(drawn),
        "marked_fraction": _share(marked),
        "defects": {name: round(area, 6) for name, area in found.areas.items()},
        "tears": [_tear(tear) for tear in found.tears[:LISTED]],
        "seams": [_seam(seam) for seam in found.seams[:LISTED]],
        "shading": round(found.shading, 4),
        "sha256": digest,
        "bytes_read": int(image.nbytes),
        "bytes_written": int(found.valid.nbytes + found.reasons.nbytes),
    }


def _share(area: NDArray[np.bool_] | None) -> float:
    return 0.0 if area is None else round(float(area.mean()), 6)


def _tear(tear: Tear) -> dict[str, Any]:
    """Return a fold or crack as plain values, px at the masks' mip."""
    return {
        "kind": tear.kind.name,
        "length_px": round(2 * tear.length_px),
        "width_px": round(2 * tear.width_px, 1),
        "contrast": round(tear.contrast, 3),
        "strength": round(tear.strength, 3),
    }


def _seam(seam: Seam) -> dict[str, Any]:
    """Return a seam as plain values, px at the masks' mip."""
    ends = [[2 * p + 0.5 for p in end] for end in ((seam.y0, seam.x0), (seam.y1, seam.x1))]
    return {"ends_yx_px": ends, "step": round(seam.step, 3), "z_score": round(seam.z, 2)}


def compare_pair(unit: Pair, *, run_uri: str) -> Record:
    """Measure how alike two neighbours are: a section can be there twice."""
    run = load(run_uri)
    mip = run.config.masks.mip
    while max(run.shape_at(mip)[1:]) > COMPARED_PX and mip + 1 < pyramid_levels(run.shape):
        mip += 1
    both = (unit.z - unit.d, unit.z)
    fixed, moving = (inputs.section(run, z, mip) for z in both)
    found = measure_likeness(fixed, moving, *(inputs.valid(run, z, mip) for z in both))

    def plain(value: float) -> float | None:
        return None if math.isnan(value) else round(value, 4)

    return {
        "z": unit.z,
        "d": unit.d,
        "mip": mip,
        "structure": plain(found.structure),
        "grain": plain(found.grain),
        "shift_yx_px": [plain(v) for v in found.shift_yx],
        "tiles": found.tiles,
        "bytes_read": int(fixed.nbytes + moving.nbytes),
    }
