"""Stage "masks": what may be matched, and why the rest may not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from alignment.masks import Defect, estimate_valid, is_missing
from alignment.runs import Run, load
from alignment.stages import inputs
from alignment.stages.units import Phase, Record, Ref, Section
from storage.volume import create_array, open_array


def phases(run: Run) -> Iterator[Phase]:
    """Yield one phase over the sections."""
    shape = run.shape_at(run.config.masks.mip)
    chunk = (1, *(min(n, run.config.volume.section_shard_px) for n in shape[1:]))
    for path in ("valid", "defects"):
        create_array(
            run.uri,
            path,
            shape=shape,
            chunk=chunk,
            dtype="uint8",
            fill_value=0,
            dimension_names=("z", "y", "x"),
            attributes={"mip": run.config.masks.mip},
        )
    units = [Section(z) for z in range(run.shape[0])]
    yield Phase("sections", units, mask_section, reads_section, ("masks",))


def reads_section(unit: Section, *, run_uri: str) -> list[Ref]:
    """Return the section itself."""
    return [inputs.ingested(unit.z)]


def mask_section(unit: Section, *, run_uri: str) -> Record:
    """Write `valid` (1 = tissue may be used) and `defects` (bits of `Defect`) of one section."""
    run = load(run_uri)
    config = run.config.masks
    image = inputs.section(run, unit.z, config.mip)
    valid, defects = estimate_valid(image, config)
    digest = inputs.write_row(open_array(run_uri, "valid"), unit.z, valid.astype(np.uint8))
    inputs.write_row(open_array(run_uri, "defects"), unit.z, defects)
    return {
        "z": unit.z,
        "missing": bool(is_missing(valid, config, defects)),
        "valid_fraction": round(float(valid.mean()), 6),
        "defects": {
            defect.name: round(float(((defects & defect) > 0).mean()), 6) for defect in Defect
        },
        "sha256": digest,
        "bytes_read": int(image.nbytes),
        "bytes_written": int(valid.nbytes + defects.nbytes),
    }
