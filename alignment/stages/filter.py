"""Stage "filter": what of the matches is believed; the rest becomes NaN, with its reason."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from alignment.confidence import RIGHT_PX, confidence
from alignment.filter import count_reasons, cycle_lengths, reject_cycles, reject_outliers
from alignment.match import CHANNELS, grid_spacing_px
from alignment.runs import Run, load
from alignment.stages import inputs
from alignment.stages.matched import holes_refs, pair_refs, read_pair, retried_pairs
from alignment.stages.units import Phase, Record, Ref, Section
from storage.volume import create_array, open_array


def phases(run: Run) -> Iterator[Phase]:
    """Yield one phase over the sections; each judges all matches of its own."""
    sections = sorted({z for z, _ in inputs.match_pairs(run)})
    for d in sorted({d for z in sections for d in _own(run, z)}):
        nz, channels, ny, nx = open_array(run.uri, f"matches/{d}").shape
        create_array(
            run.uri,
            f"trusted/{d}",
            shape=(nz, channels, ny, nx),
            chunk=(1, channels, ny, nx),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=("z", "channel", "y", "x"),
            attributes={"channels": list(CHANNELS), "unit": "px at mip 0"},
        )
        create_array(
            run.uri,
            f"confidence/{d}",
            shape=(nz, ny, nx),
            chunk=(1, ny, nx),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=("z", "y", "x"),
            attributes={"about": f"probability that a trusted match is right to {RIGHT_PX:g} px"},
        )
        create_array(
            run.uri,
            f"rejected/{d}",
            shape=(nz, ny, nx),
            chunk=(1, ny, nx),
            dtype="uint16",
            fill_value=0,
            dimension_names=("z", "y", "x"),
        )
    units = [Section(z) for z in sections]
    yield Phase("sections", units, judge_section, reads_matches, ("filter", "match"))


def _own(run: Run, z: int) -> dict[int, int]:
    """Return, by distance d, which retry section z was matched in; 0 for those matched anyway."""
    anyway = {d: 0 for at, d in inputs.match_pairs(run) if at == z}
    return dict(sorted({**anyway, **retried_pairs(run, z)}.items()))


def _cycles(run: Run, z: int) -> list[tuple[int, int]]:
    """Return (near, far) where z -> z - near -> z - far can be compared with z -> z - far."""
    own, pairs = _own(run, z), set(inputs.match_pairs(run))
    return [
        (near, far) for near in own for far in own if far > near and (z - near, far - near) in pairs
    ]


def reads_matches(unit: Section, *, run_uri: str) -> list[Ref]:
    """Return the section's matches, and those of its earlier neighbours that close a cycle."""
    run, z = load(run_uri), unit.z
    own = [ref for d, k in _own(run, z).items() for ref in pair_refs(run, z, d, retry=k)]
    links = [ref for a, b in _cycles(run, z) for ref in pair_refs(run, z - a, b - a)]
    return [*own, *links, *holes_refs(run, z)]


def judge_section(unit: Section, *, run_uri: str) -> Record:
    """Write the trusted matches of section z with its earlier neighbours."""
    run = load(run_uri)
    z = unit.z
    spacing = grid_spacing_px(run.config.match)
    trusted, reasons = {}, {}
    for d, k in _own(run, z).items():
        trusted[d], reasons[d] = _judge(run, z, d, retry=k)
    links = {(near, far): _judge(run, z - near, far - near)[0] for near, far in _cycles(run, z)}
    for (near, far), link in links.items():
        trusted[near], trusted[far], cycle_near, cycle_far = reject_cycles(
            trusted[near], link, trusted[far], spacing_px=spacing, config=run.config.filter
        )
        reasons[near] = reasons[near] | cycle_near
        reasons[far] = reasons[far] | cycle_far
    cycle_px = cycle_lengths(trusted, links, spacing_px=spacing)
    record: Record = {"z": z, "pairs": {}, "bytes_read": 0, "bytes_written": 0}
    for d, matches in trusted.items():
        sure = confidence(matches, spacing_px=spacing, cycle_px=cycle_px[d])
        inputs.write_row(open_array(run_uri, f"confidence/{d}"), z, sure)
        digest = inputs.write_row(open_array(run_uri, f"trusted/{d}"), z, matches)
        inputs.write_row(open_array(run_uri, f"rejected/{d}"), z, reasons[d])
        record["pairs"][str(d)] = {
            "trusted": int(np.isfinite(matches[0]).sum()),
            "reasons": count_reasons(reasons[d]),
            "right": round(float(np.nansum(sure)), 3),
            "sha256": digest,
        }
        record["bytes_read"] += int(matches.nbytes)
        record["bytes_written"] += int(matches.nbytes + reasons[d].nbytes + sure.nbytes)
    return record


def _judge(
    run: Run, z: int, d: int, *, retry: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    matches = read_pair(run, z, d, retry=retry)
    spacing = grid_spacing_px(run.config.match)
    return reject_outliers(matches, spacing_px=spacing, config=run.config.filter)
