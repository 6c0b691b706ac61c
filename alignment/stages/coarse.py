"""Stage "coarse": one affine a section, from pairs of sections, solved over the whole stack."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from alignment.coarse import PairAffine, estimate_pair, fit_canvas, solve_stack
from alignment.runs import Run, load
from alignment.stages import inputs
from alignment.stages.units import Pair, Phase, Record, Ref, Whole
from storage.commit import records
from storage.volume import create_array, open_array

SMALLEST_SIDE_PX = 400
"""Below this a section holds too few features; a finer level is compared instead."""


def phases(run: Run) -> Iterator[Phase]:
    """Yield the pairs first, then the one solve that needs them all."""
    pairs = inputs.pairs(run, run.config.coarse.neighbours)
    yield Phase("pairs", [Pair(z, d) for z, d in pairs], compare_pair, reads_pair, ("coarse",))
    create_array(
        run.uri,
        "coarse",
        shape=(run.shape[0], 2, 3),
        chunk=(run.shape[0], 2, 3),
        dtype="float64",
        fill_value=0.0,
        dimension_names=("z", "row_yx", "column_yx1"),
        attributes={"unit": "px at mip 0", "maps": "common frame (y, x, 1) to source (y, x)"},
    )
    yield Phase("solve", [Whole()], solve, reads_pairs, ("coarse", "section_yx"))


def reads_pair(unit: Pair, *, run_uri: str) -> list[Ref]:
    """Return both sections and their valid parts."""
    both = (unit.z - unit.d, unit.z)
    return [*map(inputs.ingested, both), *map(inputs.masked, both)]


def reads_pairs(_: Whole, *, run_uri: str) -> list[Ref | str]:
    """Return what was found of every pair, and which sections are missing."""
    run = load(run_uri)
    pairs = inputs.pairs(run, run.config.coarse.neighbours)
    found = [Ref("coarse", "pairs", Pair(z, d).label) for z, d in pairs]
    return [*found, inputs.missing_fact(run_uri)]


def compared_mip(run: Run) -> int:
    """Return the configured mip, or a finer one if the sections would be too small there."""
    mip = run.config.coarse.mip
    while mip > 0 and min(run.shape_at(mip)[1:]) < SMALLEST_SIDE_PX:
        mip -= 1
    return mip


def compare_pair(unit: Pair, *, run_uri: str) -> Record:
    """Estimate the affine that takes section z - d to section z; none is an answer too."""
    run = load(run_uri)
    mip = compared_mip(run)
    fixed, moving = (inputs.section(run, z, mip) for z in (unit.z - unit.d, unit.z))
    fixed_valid, moving_valid = (inputs.valid(run, z, mip) for z in (unit.z - unit.d, unit.z))
    found = estimate_pair(fixed, moving, fixed_valid, moving_valid, run.config.coarse, mip=mip)
    return {
        "z": unit.z,
        "d": unit.d,
        "matrix": found.matrix.tolist() if found else None,
        "score": found.score if found else None,
        "inliers": found.inliers if found else 0,
        "method": found.method if found else None,
        "bytes_read": int(fixed.nbytes + moving.nbytes),
    }


def solve(_: Whole, *, run_uri: str) -> Record:
    """Place all sections at once and choose the canvas that holds them."""
    run = load(run_uri)
    found = {
        (record["z"], record["d"]): PairAffine(
            np.array(record["matrix"]), record["score"], record["inliers"], record["method"]
        )
        for record in records.read_records(run_uri, "coarse", "pairs").values()
        if record["matrix"] is not None
    }
    solution = solve_stack(
        found, run.shape[0], run.section_yx, inputs.missing(run_uri), run.config.coarse
    )
    matrices, canvas = fit_canvas(solution.matrices, run.section_yx)
    digest = inputs.write_all(open_array(run_uri, "coarse"), matrices)
    return {
        "canvas": [int(n) for n in canvas],
        "rejected": sorted([int(z), int(d)] for z, d in solution.rejected),
        "bridged": sorted(int(z) for z in solution.bridged),
        "residual_px": {
            Pair(z, d).label: round(float(px), 3)
            for (z, d), px in sorted(solution.residual_px.items())
        },
        "sha256": digest,
        "bytes_written": int(matrices.nbytes),
    }
