"""What units that have not run are assumed to record, as far as later units are listed by it.

A rehearsal (`alignment.planning.rehearsal`) needs no result, but which units there will be hangs on
a few records: which sections are missing, which pairs fit, where holes are matched again. Of a unit
that the earlier run has too, that one's record is taken; of a new one, that all is well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alignment.runs import Run
from alignment.stages.matched import retries
from alignment.stages.units import Record, Unit

ANYWHERE = [[1.0, 0.0, 0.5**16], [0.0, 1.0, 0.0]]
"""A place that no section has, so that whoever reads it is seen to read something new."""


def is_read(run: Run, stage: str, phase: str) -> bool:
    """Return whether the listing of units reads what units of a phase recorded."""
    holes = {f"holes{k}" for k in retries(run)}
    return (stage, phase) in _WELL or (stage == "match" and phase in holes)


def well(run: Run, stage: str, phase: str, unit: Unit) -> Record:
    """Return the record of a new unit if all is well."""
    make = _WELL.get((stage, phase), _no_holes)
    return make(run, unit)


def unplaced(run: Run, record: Record) -> Record:
    """Return the coarse solution with a place that is new for every section that is placed anew."""
    keeps = run.base.places if run.base else frozenset()
    before = record["matrices"]
    matrices = [before[z] if z in keeps else ANYWHERE for z in range(run.shape[0])]
    part = sorted({z for part in record["parts"] for z in part} | {*range(run.shape[0])} - keeps)
    return {**record, "matrices": matrices, "parts": [part]}


def _section(run: Run, unit: Any) -> Record:
    return {"z": unit.z, "missing": False}


def _pair(run: Run, unit: Any) -> Record:
    return {"z": unit.z, "d": unit.d, "matrix": ANYWHERE}


def _alike(run: Run, unit: Any) -> Record:
    return {"z": unit.z, "d": unit.d, "tissue": 1.0, "grain": 1.0}


def _no_holes(run: Run, unit: Any) -> Record:
    return {"untied": 0, "boxes": []}


def _judged(run: Run, unit: Any) -> Record:
    there = min(run.config.match.neighbours, unit.z)
    return {"z": unit.z, "pairs": {str(d): {} for d in range(1, there + 1)}}


def _nothing(run: Run, unit: Any) -> Record:
    return {}


_WELL: dict[tuple[str, str], Callable[[Run, Any], Record]] = {
    ("masks", "sections"): _section,
    ("coarse", "pairs"): _pair,
    ("coarse", "mirrors"): _pair,
    ("coarse", "solve"): _nothing,
    ("coarse", "likeness"): _alike,
    ("coarse", "far"): _alike,
    ("filter", "sections"): _judged,
}
