"""Stage "coarse", after the solve: what is wrong with sections as wholes, by name.

Mirrored, swapped, misplaced, reversed and duplicated sections, and such as nothing fits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from alignment.affines import compose_affines, invert_affine
from alignment.coarse import estimate_pair
from alignment.findings import Finding, finding_of
from alignment.likeness import Likeness, measure_likeness
from alignment.order import far_pairs, find_order_faults
from alignment.runs import Run, load
from alignment.stages import inputs
from alignment.stages.units import Pair, Phase, Record, Ref, Whole
from alignment.unlinked import find_unlinked
from storage.commit import records

SMALLEST_SIDE_PX = 400
"""Below this a section holds too few features; a finer level is compared instead."""
FAR_PAIRS = 2
"""Sections that may be out of place are compared with others, in at most so many pairs a section
of the stack; in a stack that is in order there are next to none."""

Both = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]


def phases(run: Run) -> Iterator[Phase]:
    """Yield the likeness of neighbours, then of sections out of place, then what it tells."""
    pairs = [Pair(z, d) for z, d in inputs.pairs(run, run.config.coarse.neighbours)]
    yield Phase("likeness", pairs, measure_pair, reads_placed_pair, ("coarse",))
    far = [Pair(z, d) for z, d in _far(run)]
    yield Phase("far", far, measure_far_pair, reads_pair, ("coarse",))
    yield Phase("findings", [Whole()], find, reads_findings, ("coarse",))


def compared_mip(run: Run) -> int:
    """Return the configured mip, or a finer one if the sections would be too small there."""
    mip = run.config.coarse.mip
    while mip > 0 and min(run.shape_at(mip)[1:]) < SMALLEST_SIDE_PX:
        mip -= 1
    return mip


def sections(run: Run, unit: Pair) -> Both:
    """Return the images of section z - d and section z, then their valid parts."""
    mip, both = compared_mip(run), (unit.z - unit.d, unit.z)
    fixed, moving = (inputs.section(run, z, mip) for z in both)
    fixed_valid, moving_valid = (inputs.valid(run, z, mip) for z in both)
    return fixed, moving, fixed_valid, moving_valid


def reads_pair(unit: Pair, *, run_uri: str) -> list[Ref]:
    """Return both sections and their valid parts."""
    both = (unit.z - unit.d, unit.z)
    return [*map(inputs.ingested, both), *map(inputs.masked, both)]


def reads_placed_pair(unit: Pair, *, run_uri: str) -> list[Ref | str]:
    """Return both sections, their valid parts, where they lie, and whether pairs tie them."""
    placed = inputs.place_facts(run_uri, unit.z, unit.z - unit.d)
    tied = f"tied {_are_tied(load(run_uri), unit)}"
    return [*reads_pair(unit, run_uri=run_uri), *placed, tied]


def reads_findings(_: Whole, *, run_uri: str) -> list[Ref | str]:
    """Return all likenesses, the solution, and which sections are missing."""
    run = load(run_uri)
    near = inputs.pairs(run, run.config.coarse.neighbours)
    return [
        *(Ref("coarse", "likeness", Pair(z, d).label) for z, d in near),
        *(Ref("coarse", "far", Pair(z, d).label) for z, d in _far(run)),
        inputs.PLACED,
        inputs.missing_fact(run_uri),
    ]


def measure_pair(unit: Pair, *, run_uri: str) -> Record:
    """Measure how alike two sections are where the solution puts them.

    Sections of different parts lie anyhow to each other, so nothing is measured there.
    """
    run = load(run_uri)
    placed = inputs.coarse(run_uri).matrices
    if not _are_tied(run, unit):
        return _record(unit, None, 0)
    matrix = compose_affines(placed[unit.z], invert_affine(placed[unit.z - unit.d]))
    seen = sections(run, unit)
    found = measure_likeness(*seen, matrix, mip=compared_mip(run))
    return _record(unit, found, seen[0].nbytes + seen[1].nbytes)


def _are_tied(run: Run, unit: Pair) -> bool:
    both = {unit.z, unit.z - unit.d}
    return any(both <= set(part) for part in _solution(run)["parts"])


def measure_far_pair(unit: Pair, *, run_uri: str) -> Record:
    """Find where a section lies in one that may be its true neighbour, and how alike they are."""
    run = load(run_uri)
    seen = sections(run, unit)
    found = estimate_pair(*seen, run.config.coarse, mip=compared_mip(run))
    alike = found and measure_likeness(*seen, found.matrix, mip=compared_mip(run))
    # What was looked for and not found is as unlike as strangers are.
    return _record(unit, alike or Likeness(0.0, 0.0), seen[0].nbytes + seen[1].nbytes)


def _record(unit: Pair, found: Likeness | None, bytes_read: int) -> Record:
    return {
        "z": unit.z,
        "d": unit.d,
        "tissue": round(found.tissue, 6) if found else None,
        "grain": round(found.grain, 6) if found else None,
        "bytes_read": int(bytes_read),
    }


def find(_: Whole, *, run_uri: str) -> Record:
    """Name what is wrong with whole sections."""
    run = load(run_uri)
    solution = _solution(run)
    present, far = inputs.present(run), _likeness(run, "far")
    found = find_order_faults(_likeness(run, "likeness") | far, present)
    what = {
        "flip": "turned the right side up",
        "report": "left as it is and bridged, because coarse.mirrored is 'report'",
    }[run.config.coarse.mirrored]
    mirrored = [
        Finding("mirrored", (int(z),), score, (), what) for z, score in solution["mirrored"].items()
    ]
    links = [(z - d, z) for (z, d), pair in far.items() if pair.tissue > 0]
    unlinked = find_unlinked(
        [*solution["parts"], *links],
        present,
        inputs.pairs(run, run.config.coarse.neighbours),
        {z for finding in [*mirrored, *found] for z in finding.sections},
    )
    return {"findings": [finding.as_dict() for finding in [*mirrored, *found, *unlinked]]}


def findings(run_uri: str) -> tuple[Finding, ...]:
    """Return what the coarse stage found wrong with whole sections."""
    record = records.read_records(run_uri, "coarse", "findings")["all"]
    return tuple(map(finding_of, record["findings"]))


def _far(run: Run) -> list[tuple[int, int]]:
    """Return the pairs that tell where misplaced sections belong; known when neighbours are."""
    present = inputs.present(run)
    return far_pairs(_likeness(run, "likeness"), present, FAR_PAIRS * len(present))


def _likeness(run: Run, phase: str) -> dict[tuple[int, int], Likeness]:
    return {
        (record["z"], record["d"]): Likeness(record["tissue"], record["grain"])
        for record in records.read_records(run.uri, "coarse", phase).values()
        if record["tissue"] is not None
    }


def _solution(run: Run) -> Record:
    return records.read_records(run.uri, "coarse", "solve")["all"]
