"""What the report shows of the masks stage: its remarks, its pictures, duplicated sections."""

from __future__ import annotations

from typing import Any

import numpy as np

from alignment.duplicates import Likeness, judge_duplicates
from alignment.report_masks import LEAST_AREA, DuplicatePair, MaskPicture, label_of, shown_masks
from alignment.runs import Run, pyramid_levels
from alignment.stages import inputs
from storage.commit import records
from storage.volume import open_array

VIEW_PX = 768
"""Longest side of a section that is read for a small picture."""
TOLD = 3
"""Folds, cracks and seams that are told one by one."""


def areas_told(record: dict[str, Any]) -> list[str]:
    """Return the reasons of a section's record with their areas, as text."""
    return [
        f"{label_of(name)} {share:.1%}"
        for name, share in record["defects"].items()
        if share >= LEAST_AREA
    ]


def findings(record: dict[str, Any]) -> list[str]:
    """Return what was found in a section besides areas: folds, cracks, seams, shading."""
    told = [
        f"{label_of(tear['kind'])} {tear['length_px']:,} px long, {tear['width_px']:.0f} px wide"
        for tear in record["tears"][:TOLD]
    ]
    told += [
        f"seam from (y {y0:,.0f}, x {x0:,.0f}) to ({y1:,.0f}, {x1:,.0f}), step {seam['step']:+.2f}"
        for seam in record["seams"][:TOLD]
        for (y0, x0), (y1, x1) in [seam["ends_yx_px"]]
    ]
    more = sum(max(len(record[name]) - TOLD, 0) for name in ("tears", "seams"))
    return [*told, f"{more} more"] if more else told


def pictures(run: Run, records_: list[dict[str, Any]]) -> tuple[MaskPicture, ...]:
    """Return the sections with the worst masks, small; those without any tissue show nothing."""
    there = {record["z"]: record["defects"] for record in records_ if record["valid_fraction"]}
    mip = 0
    while max(run.shape_at(mip)[1:]) > VIEW_PX and mip + 1 < pyramid_levels(run.shape):
        mip += 1
    defects = open_array(run.uri, "defects")
    return tuple(
        MaskPicture(z, inputs.section(run, z, mip), np.asarray(inputs.read_row(defects, z)))
        for z in shown_masks(there)
    )


def duplicates(run: Run) -> tuple[DuplicatePair, ...]:
    """Return the neighbours that show the same exposure or the same tissue, by ascending z."""
    measured = {
        (record["z"], record["z"] - record["d"]): Likeness(
            record["structure"], record["grain"], (0.0, 0.0), record["tiles"]
        )
        for record in records.read_records(run.uri, "masks", "likeness").values()
        if record["structure"] is not None
    }
    names = run.section_names
    return tuple(
        DuplicatePair(
            z,
            fixed,
            kind.value,
            measured[z, fixed].structure,
            measured[z, fixed].grain,
            names[z],
            names[fixed],
        )
        for (z, fixed), kind in sorted(judge_duplicates(measured).items())
    )
