"""Stage "coarse": one affine a section, from pairs of sections, solved over the whole stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from alignment.affines import Affine, apply_affine, invert_affine
from alignment.coarse import (
    PairAffine,
    estimate_mirrored_pair,
    estimate_pair,
    fit_canvas,
    solve_stack,
)
from alignment.insertion import insert_sections
from alignment.mirrors import (
    mirrored_again,
    mirrored_beside,
    mirrored_sections,
    more_alike,
    pairs_to_mirror,
    unmirrored,
)
from alignment.runs import Run, load
from alignment.stages import inputs, kept, wholesections
from alignment.stages.units import Pair, Phase, Record, Ref, Whole
from storage.commit import records
from storage.volume import create_array, open_array

CONFIG = ("coarse",)


def phases(run: Run) -> Iterator[Phase]:
    """Yield the pairs first, then the one solve that needs them all, then what is wrong."""
    pairs = [Pair(z, d) for z, d in inputs.pairs(run, run.config.coarse.neighbours)]
    yield Phase("pairs", pairs, compare_pair, wholesections.reads_pair, CONFIG, local=True)
    if run.slab is not None:
        return  # which pairs are compared mirrored is known when all pairs are
    mirrors = [Pair(z, d) for z, d in mirror_pairs(run)]
    yield Phase("mirrors", mirrors, compare_mirrored, wholesections.reads_pair, CONFIG)
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
    yield Phase("solve", [Whole()], solve, reads_pairs, (*CONFIG, "section_yx"))
    yield from wholesections.phases(run)


def reads_pairs(_: Whole, *, run_uri: str) -> list[Ref | str]:
    """Return what was found of every pair, and which sections are missing."""
    run = load(run_uri)
    pairs = inputs.pairs(run, run.config.coarse.neighbours)
    found = [Ref("coarse", "pairs", Pair(z, d).label) for z, d in pairs]
    found += [Ref("coarse", "mirrors", Pair(z, d).label) for z, d in mirror_pairs(run)]
    return [*found, inputs.missing_fact(run_uri), *kept.place_facts(run)]


def mirror_pairs(run: Run) -> list[tuple[int, int]]:
    """Return the pairs that are compared once more, mirrored; known when all pairs are."""
    pairs = inputs.pairs(run, run.config.coarse.neighbours)
    found = records.read_records(run.uri, "coarse", "pairs").values()
    fits = {(record["z"], record["d"]) for record in found if record["matrix"] is not None}
    return pairs_to_mirror(pairs, fits, inputs.present(run))


def compare_pair(unit: Pair, *, run_uri: str) -> Record:
    """Estimate the affine that takes section z - d to section z; none is an answer too."""
    return _compared(unit, run_uri, estimate_pair)


def compare_mirrored(unit: Pair, *, run_uri: str) -> Record:
    """Estimate the same as if one of the two sections were mirrored."""
    return _compared(unit, run_uri, estimate_mirrored_pair)


def _compared(unit: Pair, run_uri: str, estimate: Any) -> Record:
    run = load(run_uri)
    both = wholesections.sections(run, unit)
    found = estimate(*both, run.config.coarse, mip=wholesections.compared_mip(run))
    return {
        "z": unit.z,
        "d": unit.d,
        "matrix": found.matrix.tolist() if found else None,
        "score": found.score if found else None,
        "inliers": found.inliers if found else 0,
        "method": found.method if found else None,
        "bytes_read": int(both[0].nbytes + both[1].nbytes),
    }


def _found(run_uri: str, phase: str) -> dict[tuple[int, int], PairAffine]:
    return {
        (record["z"], record["d"]): PairAffine(
            np.array(record["matrix"]), record["score"], record["inliers"], record["method"]
        )
        for record in records.read_records(run_uri, "coarse", phase).values()
        if record["matrix"] is not None
    }


def solve(_: Whole, *, run_uri: str) -> Record:
    """Place all sections at once and choose the canvas that holds them.

    In an update, sections that keep their places keep the canvas, too.
    """
    run = load(run_uri)
    found = more_alike(*(_found(run_uri, phase) for phase in ("pairs", "mirrors")))
    before = kept.placed_before(run)
    is_mirrored = (
        mirrored_beside(found, before.mirrored)
        if before
        else dict.fromkeys(mirrored_sections(found), True)
    )
    mirrored = sorted(z for z, mirrors in is_mirrored.items() if mirrors)
    scores = {str(z): _mean_score(found, z) for z in mirrored if _pairs_of(found, z)}
    if run.config.coarse.mirrored == "report":
        found = {
            (z, d): p for (z, d), p in found.items() if z not in mirrored and z - d not in mirrored
        }
    width = run.section_yx[1]
    turned = mirrored if run.config.coarse.mirrored == "flip" else []
    plain = unmirrored(found, mirrored, width)
    stack = (run.shape[0], run.section_yx, inputs.missing(run_uri), run.config.coarse)
    if before:
        upright = mirrored_again(before.matrices, turned, width)
        known = {z: upright[z] for z in sorted(before.sections)}
        solution = insert_sections(plain, known, *stack, rejected=before.rejected)
        matrices = mirrored_again(solution.matrices, turned, width)
        for z in before.sections:  # to the last bit
            matrices[z] = before.matrices[z]
        canvas, seat = before.canvas, before.seat
    else:
        solution = solve_stack(plain, *stack)
        matrices = mirrored_again(solution.matrices, turned, width)
        matrices, canvas = fit_canvas(matrices, run.section_yx)
        seat = _seat(matrices, run.section_yx)
    digest = inputs.write_all(open_array(run_uri, "coarse"), matrices)
    return {
        "matrices": matrices.tolist(),
        "canvas": [int(n) for n in canvas],
        "seat": list(seat),
        "beyond_canvas_px": _beyond(matrices, run.section_yx, canvas),
        "rejected": sorted([int(z), int(d)] for z, d in solution.rejected),
        "bridged": sorted(int(z) for z in solution.bridged),
        "mirrored": scores,
        "parts": [[int(z) for z in part] for part in solution.parts],
        "residual_px": {
            Pair(z, d).label: round(float(px), 3)
            for (z, d), px in sorted(solution.residual_px.items())
        },
        "sha256": digest,
        "bytes_written": int(matrices.nbytes),
    }


def _pairs_of(pairs: Mapping[tuple[int, int], PairAffine], z: int) -> list[PairAffine]:
    return [pair for (at, d), pair in pairs.items() if z in (at, at - d)]


def _mean_score(pairs: Mapping[tuple[int, int], PairAffine], z: int) -> float:
    return round(float(np.mean([pair.score for pair in _pairs_of(pairs, z)])), 4)


def _beyond(
    matrices: Affine, section_yx: tuple[int, int], canvas: tuple[int, int]
) -> dict[str, int]:
    """Return by how many px sections reach beyond the canvas, if they do: {z: px}."""
    ny, nx = section_yx
    corners = np.array([[0.0, 0], [0, nx - 1], [ny - 1, 0], [ny - 1, nx - 1]])
    beyond = {}
    for z, matrix in enumerate(matrices):
        there = apply_affine(invert_affine(matrix), corners)
        over = max(float(-there.min()), float((there - np.array(canvas) + 1).max()))
        if over >= 1:
            beyond[str(z)] = int(np.ceil(over))
    return beyond


def _seat(matrices: Affine, section_yx: tuple[int, int]) -> tuple[int, int]:
    """Return `inputs.Coarse.seat`."""
    centre = (np.array(section_yx) - 1) / 2
    on_canvas = [np.linalg.solve(c[:, :2], centre - c[:, 2]) for c in matrices]
    y, x = np.rint(centre - np.mean(on_canvas, axis=0))
    return int(y), int(x)
