"""Stage "qc": how good it is, in numbers and pictures that a person can check."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment import qc
from alignment.confidence import RIGHT_PX
from alignment.config import commented_yaml
from alignment.driving.states import stage_states
from alignment.filter import Reason
from alignment.planning.outcome import outcomes
from alignment.planning.rates import shipped_rates
from alignment.report import build_report
from alignment.report_data import (
    FilterCount,
    PairRow,
    ReportData,
    Reslice,
    RunFacts,
    SectionPicture,
    SectionRow,
    StageCost,
    WorstPlace,
    qc_json,
    shown_sections,
)
from alignment.runs import Run, load
from alignment.stages import correlations, inputs, knowntruth, maskviews, matched, wholesections
from alignment.stages.correlations import aligned, unaligned
from alignment.stages.units import Phase, Record, Whole
from alignment.wander import Wander, measure_wander
from storage.commit import records
from storage.store import join, replace_bytes, replace_json
from storage.volume import open_array

CUTOUT_PX = 160
RESLICE_HEIGHT_PX = 600
"""Longest side of the re-slices; wider ones are sampled."""


def phases(run: Run) -> Iterator[Phase]:
    """Yield the correlations of neighbours first, then the report that sums them up."""
    yield correlations.phase(run)
    yield Phase("report", [Whole()], write_report, always=True)


def write_report(_: Whole, *, run_uri: str) -> Record:
    """Write ``report.html`` and ``qc.json``; made anew each time, because times are in them."""
    run = load(run_uri)
    data = gather(run)
    replace_bytes(join(run_uri, "report.html"), build_report(data).encode())
    replace_json(join(run_uri, "qc.json"), qc_json(data))
    return {}


def gather(run: Run) -> ReportData:
    """Collect what the report shows from the run's folder."""
    pairs = inputs.pairs(run, 1)
    before, after = qc.on_common_area(*(_scores(run, name, pairs) for name in ("before", "after")))
    residuals = {z: _row(run, f"residuals/{d}", z) for z, d in pairs}
    side = run.config.qc.chunk_px
    worst = qc.worst_places(
        ((score.z, score.chunks) for score in after),
        run.config.qc.worst_places,
        spacing_px=side,
        first_px=(side - 1) / 2,
        separation_px=CUTOUT_PX,
        lowest=True,
    )
    fixed_of = {score.z: score.fixed_z for score in after}
    truth = knowntruth.measure(run)
    return ReportData(
        facts=_facts(run),
        chunk_px=side,
        correlation_before=qc.summarise(np.stack([score.chunks for score in before])),
        correlation_after=qc.summarise(np.stack([score.chunks for score in after])),
        residual=qc.residual_summary(np.stack(list(residuals.values()))),
        pairs=tuple(
            PairRow(b.z, b.fixed_z, b.summary, a.summary, qc.residual_summary(residuals[b.z]))
            for b, a in zip(before, after, strict=True)
        ),
        sections=_section_rows(run),
        matches=sum(
            record["matched"]
            for phase in matched.last_phases(run)
            for record in records.read_records(run.uri, "match", phase).values()
        ),
        filters=_filter_counts(run),
        pictures=tuple(
            SectionPicture(score.z, residuals[score.z], _row(run, "fields", score.z), score.chunks)
            for score in after
            if score.z in shown_sections(run.shape[0], [place.z for place in worst])
        ),
        worst=tuple(
            _cutouts(run, place, fixed_of[place.z], _score_at(before, place, side))
            for place in worst
        ),
        reslices=(_reslice(run),),
        stages=_costs(run),
        truth=truth,
        masks=maskviews.pictures(
            run, list(records.read_records(run.uri, "masks", "sections").values())
        ),
        duplicates=maskviews.duplicates(run),
        notes=_notes(run),
        findings=wholesections.findings(run.uri),
        wander=_wander(run),
    )


def _notes(run: Run) -> tuple[str, ...]:
    notes = []
    judged = records.read_records(run.uri, "filter", "sections").values()
    pairs = [pair for record in judged for pair in record["pairs"].values()]
    trusted = sum(pair["trusted"] for pair in pairs)
    if trusted:
        notes.append(
            f"Of {trusted:,} trusted matches {sum(pair['right'] for pair in pairs):,.0f} are "
            f"expected to be right to {RIGHT_PX:g} px, by their confidence."
        )
    beyond = records.read_records(run.uri, "coarse", "solve")["all"]["beyond_canvas_px"]
    if beyond:
        far = ", ".join(f"{run.section_names[int(z)]} by {px} px" for z, px in beyond.items())
        notes.append(
            f"Sections that reach beyond the canvas: {far}. An update keeps the canvas; align the "
            "volume anew to see all of them."
        )
    sigma = run.config.qc.smoothing_px
    if sigma:
        notes.append(
            f"Correlations are taken after a Gaussian of {sigma:g} px, so that pixel noise, which "
            "differs between sections, does not hide how well the tissue agrees."
        )
    return tuple(notes)


def _scores(run: Run, name: str, pairs: list[tuple[int, int]]) -> tuple[qc.PairScore, ...]:
    before = dict(pairs)
    return tuple(
        qc.PairScore(z, z - before[z], chunks, qc.summarise(chunks))
        for z, chunks in correlations.rows(run, name)
        if z in before
    )


def _row(run: Run, path: str, z: int) -> NDArray[np.float32]:
    return inputs.read_row(open_array(run.uri, path), z)


def _score_at(scores: tuple[qc.PairScore, ...], place: qc.Place, side: int) -> float:
    chunks = next(score.chunks for score in scores if score.z == place.z)
    return float(chunks[int(place.y // side), int(place.x // side)])


def _facts(run: Run) -> RunFacts:
    text = commented_yaml(run.config)
    return RunFacts(
        title=" / ".join(run.volume_uri.split("/")[-2:]),
        source_uri=run.source_uri,
        volume_uri=run.volume_uri,
        run_uri=run.uri,
        shape=(run.shape[0], *inputs.coarse(run.uri).canvas),
        resolution_nm=run.resolution_nm,
        config_digest=hashlib.sha256(text.encode()).hexdigest()[:16],
        versions=run.provenance["libraries"],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        before_is="the sections as they came, laid on the canvas without turning or stretching",
        config_yaml=text,
    )


def _section_rows(run: Run) -> tuple[SectionRow, ...]:
    masked = records.read_records(run.uri, "masks", "sections")
    ingested = records.read_records(run.uri, "ingest", "sections")
    placed = records.read_records(run.uri, "coarse", "solve")["all"]
    gone = inputs.missing(run.uri)
    rows = []
    for label, record in sorted(masked.items()):
        z = record["z"]
        remarks = maskviews.findings(record)
        if ingested[label]["unreadable"]:
            remarks.insert(0, ingested[label]["unreadable"])
        if z in placed["bridged"] and z not in gone:
            remarks.insert(0, "no believable coarse match; placed between its neighbours")
        rows.append(
            SectionRow(
                z,
                run.section_names[z],
                "bridged" if z in gone else "aligned",
                record["valid_fraction"],
                ", ".join([*remarks, *maskviews.areas_told(record)]),
                None if z in gone else qc.distortion(_row(run, "fields", z), _spacing(run)),
                record["defects"],
                tuple(remarks),
            )
        )
    return tuple(rows)


def _wander(run: Run) -> Wander:
    gone = inputs.missing(run.uri)
    fields = (None if z in gone else _row(run, "fields", z) for z in range(run.shape[0]))
    return measure_wander(fields, _spacing(run))


def _spacing(run: Run) -> int:
    return run.config.relax.node_spacing_px


def _filter_counts(run: Run) -> tuple[FilterCount, ...]:
    totals = dict.fromkeys((reason.name or "" for reason in Reason), 0)
    for record in records.read_records(run.uri, "filter", "sections").values():
        for pair in record["pairs"].values():
            for name, count in pair["reasons"].items():
                totals[name] += count
    return tuple(FilterCount(name.lower().replace("_", " "), n) for name, n in totals.items())


def _cutouts(run: Run, place: qc.Place, fixed_z: int, before: float) -> WorstPlace:
    half = CUTOUT_PX // 2
    ny, nx = inputs.coarse(run.uri).canvas
    y = int(min(max(place.y - half, 0), max(ny - CUTOUT_PX, 0)))
    x = int(min(max(place.x - half, 0), max(nx - CUTOUT_PX, 0)))
    seen = [
        see(run, (z, z + 1), (y, x), (CUTOUT_PX, CUTOUT_PX))[0]
        for see in (unaligned, aligned)
        for z in (place.z, fixed_z)
    ]
    return WorstPlace(place.z, fixed_z, place.y, place.x, before, place.value, *seen)


def _reslice(run: Run) -> Reslice:
    """Cut the stack along x through the middle of the canvas."""
    ny, nx = inputs.coarse(run.uri).canvas
    at = ny // 2
    nz, depth = run.shape[0], open_array(run.uri, "aligned/0").chunks[0]
    slabs = [(z, min(z + depth, nz)) for z in range(0, nz, depth)]
    rows = {
        see: np.concatenate([see(run, slab, (at, 0), (1, nx))[:, 0] for slab in slabs])
        for see in (unaligned, aligned)
    }
    shrink = max(1, -(-nx // (2 * RESLICE_HEIGHT_PX)))
    size = (nx // shrink, run.shape[0])
    before, after = (
        np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        for picture in (rows[unaligned], rows[aligned])
    )
    z_nm, _, x_nm = run.resolution_nm
    return Reslice("xz", at, before, after, (z_nm, x_nm * shrink))


def _costs(run: Run) -> tuple[StageCost, ...]:
    states = stage_states(run.uri)
    compared = outcomes(run, states, shipped_rates())
    return tuple(
        StageCost(
            *(s.stage, s.seconds, s.bytes_read, s.bytes_written, s.blocks_done), *compared[s.stage]
        )
        for s in states
        if s.blocks_total
    )
