"""What a report tells: its data, its verdict, and the numbers as JSON.

The qc stage fills a `ReportData` from storage; `alignment.report` draws it. Lengths are px at mip 0
unless the name has another unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.findings import Finding
from alignment.qc import CorrelationSummary, DistortionSummary, ResidualSummary
from alignment.report_masks import DuplicatePair, MaskPicture
from alignment.report_wander import as_dict as wander_dict
from alignment.wander import Wander

SCHEMA_VERSION = 1
SHOWN_SECTIONS = 64
"""Sections whose maps are drawn; `shown_sections` chooses them."""
_TOLD = 8  # findings that are told in the verdict; the page has all


@dataclass(frozen=True)
class RunFacts:
    """What was aligned, with what, and where it lies."""

    title: str
    source_uri: str
    volume_uri: str
    run_uri: str
    shape: tuple[int, int, int]
    """Of the aligned volume (z, y, x), px at mip 0."""
    resolution_nm: tuple[float, float, float]
    """Voxel size (z, y, x) at mip 0."""
    config_digest: str
    versions: Mapping[str, str]
    """Package to version, in the order in which they are shown."""
    created: str
    """ISO 8601 with time zone; given, so that the page is a function of its data."""
    before_is: str = "the sections as they came"
    """What "before" means here; the page says it under each comparison."""
    config_yaml: str = ""
    """The complete configuration, shown folded; empty leaves it out."""


@dataclass(frozen=True)
class PairRow:
    """Section z against its nearest good predecessor."""

    z: int
    fixed_z: int
    before: CorrelationSummary
    after: CorrelationSummary
    residual: ResidualSummary | None = None
    """After relaxation, px at mip 0, of the trusted matches; its count is 0 if there is none."""


@dataclass(frozen=True)
class SectionRow:
    """One section of the source; every section has one."""

    z: int
    name: str
    state: Literal["aligned", "bridged"] = "aligned"
    """Bridged: without usable tissue; its neighbours were aligned across it."""
    valid_fraction: float = 1.0
    """Share of its px that could be used."""
    reason: str = ""
    """Why parts are masked or the section is bridged; empty if nothing is to be said."""
    distortion: DistortionSummary | None = None
    defects: Mapping[str, float] = field(default_factory=dict)
    """Name of each `alignment.defects.Defect` to the share of the section that it takes."""
    remarks: tuple[str, ...] = ()
    """What else was found: folds, cracks and seams one by one, why it could not be read."""


@dataclass(frozen=True)
class SectionPicture:
    """The maps of one drawn section."""

    z: int
    residual: NDArray[np.float32]
    """(ny, nx) residual lengths at nodes, px at mip 0; NaN without a trusted match."""
    field: NDArray[np.float32]
    """(2, ny, nx) displacement field (pull), px at mip 0."""
    correlation: NDArray[np.float32] | None = None
    """(cy, cx) chunk correlations with its predecessor after alignment."""


@dataclass(frozen=True)
class WorstPlace:
    """A place with the lowest correlation after alignment, seen in both sections.

    All four cut-outs are uint8 (y, x), 0 = no data; the two of a pair have one shape.
    """

    z: int
    fixed_z: int
    y: float
    x: float
    """Centre in the aligned volume, px at mip 0."""
    before: float
    after: float
    """Chunk correlation."""
    before_moving: NDArray[np.uint8]
    before_fixed: NDArray[np.uint8]
    after_moving: NDArray[np.uint8]
    after_fixed: NDArray[np.uint8]


@dataclass(frozen=True)
class Reslice:
    """The stack cut across its sections: uint8 (z, lateral), one row a section, 0 = no data."""

    plane: Literal["xz", "yz"]
    at_px: int
    """Where the plane lies on the axis that it leaves out, px at mip 0."""
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    pixel_nm: tuple[float, float]
    """Size of one pixel of the two pictures (z, lateral)."""


@dataclass(frozen=True)
class FilterCount:
    """Matches that one filter rejected."""

    name: str
    rejected: int


@dataclass(frozen=True)
class Resources:
    """What a stage takes and leaves, planned or found; None where it is not known."""

    units: int | None = None
    objects: int | None = None
    """That hold voxels or values."""
    stored_bytes: int | None = None
    """Of these objects, and of what describes them, as they lie in the store."""
    core_s: float | None = None
    """Processor time of its units."""
    peak_bytes: int | None = None
    """Most memory of a worker."""


@dataclass(frozen=True)
class StageCost:
    """What one stage took."""

    name: str
    seconds: float
    bytes_read: int
    bytes_written: int
    units: int
    """Shards, or pairs, that it finished."""
    planned: Resources | None = None
    """By `alignment.planning`, from shape and configuration alone."""
    actual: Resources | None = None
    retries: int = 0


@dataclass(frozen=True)
class TruthRow:
    """Distance of one pair to its known displacement."""

    z: int
    fixed_z: int
    error: ResidualSummary


@dataclass(frozen=True)
class Truth:
    """Distance to a displacement that is known, px at mip 0: for phantoms and synthetic warps."""

    name: str
    """Where the truth comes from."""
    error: ResidualSummary
    """Over all pairs."""
    pairs: tuple[TruthRow, ...] = ()
    before: ResidualSummary | None = None
    """The same distance before alignment."""

    @property
    def worst_pair(self) -> TruthRow | None:
        """The pair with the largest 95th percentile; None if no pair was measured."""
        known = [pair for pair in self.pairs if pair.error.count]
        return max(known, key=lambda pair: (pair.error.p95, -pair.z), default=None)


@dataclass(frozen=True)
class ReportData:
    """Everything the report shows; plain numbers and arrays."""

    facts: RunFacts
    chunk_px: int
    """Side of the correlation's chunks, px at mip 0."""
    correlation_before: CorrelationSummary
    correlation_after: CorrelationSummary
    """Over all chunks of all pairs, on their common area."""
    residual: ResidualSummary
    """Over all trusted matches."""
    pairs: tuple[PairRow, ...]
    """By ascending z."""
    sections: tuple[SectionRow, ...]
    """All sections by ascending z."""
    matches: int
    """Matches measured, before any filter."""
    filters: tuple[FilterCount, ...] = ()
    """In the order in which they ran; each match is counted by the first that rejects it."""
    pictures: tuple[SectionPicture, ...] = ()
    worst: tuple[WorstPlace, ...] = ()
    """The worst first."""
    reslices: tuple[Reslice, ...] = ()
    stages: tuple[StageCost, ...] = ()
    truth: Truth | None = None
    masks: tuple[MaskPicture, ...] = ()
    """Sections with their masks, the worst first."""
    duplicates: tuple[DuplicatePair, ...] = ()
    """Neighbours that show the same."""
    notes: tuple[str, ...] = ()
    """Sentences that the reader must see beside the verdict."""
    findings: tuple[Finding, ...] = ()
    """What is wrong with whole sections: their order, their side, their doubles."""
    wander: Wander | None = None
    """How whole sections drift along the stack."""

    @property
    def trusted(self) -> int:
        """Matches that no filter rejected."""
        return self.matches - sum(f.rejected for f in self.filters)

    @property
    def bridged(self) -> tuple[int, ...]:
        """Sections without usable tissue."""
        return tuple(s.z for s in self.sections if s.state == "bridged")

    @property
    def flipped_cells(self) -> int:
        """Mesh cells of all sections that folded over."""
        return sum(s.distortion.flipped_cells for s in self.sections if s.distortion)


class Verdict(NamedTuple):
    """The report's first line: how it went, and what to look at."""

    level: Literal["good", "look", "poor"]
    sentence: str
    reasons: tuple[str, ...]


def shown_sections(nz: int, worst: Sequence[int], limit: int = SHOWN_SECTIONS) -> tuple[int, ...]:
    """Choose the sections whose maps are drawn: the `worst`, then an even spread over the stack.

    >>> shown_sections(1000, [617], limit=5)
    (0, 333, 617, 666, 999)
    """
    if nz <= limit:
        return tuple(range(nz))
    chosen = set(list(dict.fromkeys(worst))[: limit // 2])
    spread = np.linspace(0, nz - 1, limit - len(chosen)).astype(int)
    return tuple(sorted(chosen | {int(z) for z in spread}))


def verdict(data: ReportData) -> Verdict:
    """Judge a run in plain words, which sort what to look at first and do not replace looking.

    "poor": a cell folded over, the median correlation fell, nothing could be measured, or over a
    fifth of the sections is bridged. "look": a section is bridged,
    mirrored, out of order, there twice or without a link, a pair lost more than 0.02 of
    its mean correlation, a pair's mean lies more than 5 median absolute deviations (at least 0.1)
    below the median pair, or a section is strained by over a quarter somewhere (percentile 99).
    Otherwise "good".
    """
    poor, look = _complaints(data)
    level: Literal["good", "look", "poor"] = "poor" if poor else "look" if look else "good"
    opening = {
        "good": "Looks good",
        "look": "Aligned, with places to look at",
        "poor": "Needs attention before it is used",
    }[level]
    before, after = data.correlation_before, data.correlation_after
    measured = [p for p in data.pairs if p.before.count and p.after.count]
    better = sum(p.after.mean > p.before.mean for p in measured)
    told = [f"neighbours agree better in {better:,} of {_count(len(measured), 'pair')}"]
    if after.count and before.count:
        told[0] += f" (median correlation {before.p50:.2f} before, {after.p50:.2f} after)"
    if data.residual.count:
        told.append(f"95 % of the residuals are below {data.residual.p95:.1f} px")
    if data.truth and data.truth.error.count:
        told.append(f"the median distance to the truth is {data.truth.error.p50:.2f} px")
    flipped = data.flipped_cells
    told.append(f"{_count(flipped, 'cell')} folded over" if flipped else "no cell folded over")
    return Verdict(level, f"{opening}: {'; '.join(told)}.", (*poor, *look))


def _complaints(data: ReportData) -> tuple[list[str], list[str]]:
    """Return the reasons for "poor" and for "look"."""
    poor: list[str] = []
    look: list[str] = []
    before, after = data.correlation_before, data.correlation_after
    if data.flipped_cells:
        poor.append(
            f"{_count(data.flipped_cells, 'mesh cell')} folded over; raise relax.stiffness, or "
            "look for wrong matches there"
        )
    if after.p50 < before.p50:
        poor.append(f"the median correlation fell from {before.p50:.3f} to {after.p50:.3f}")
    if not after.count:
        poor.append(f"no chunk of {data.chunk_px} px could be measured; lower qc.chunk_px")
    if data.bridged:
        grave = len(data.bridged) > len(data.sections) / 5
        text = f"{_count(len(data.bridged), 'section')} bridged: z {_listed(data.bridged)}"
        (poor if grave else look).append(text)
    look += [finding.sentence for finding in data.findings[:_TOLD]]
    if len(data.findings) > _TOLD:
        look.append(f"{_count(len(data.findings) - _TOLD, 'more section finding')} in the report")
    named = {finding.sections for finding in data.findings if finding.kind == "duplicated"}
    look += [p.sentence for p in data.duplicates[:_TOLD] if (p.fixed_z, p.z) not in named]
    pairs = [p for p in data.pairs if p.before.count and p.after.count]
    for found, what in (
        ([p.z for p in pairs if p.after.mean < p.before.mean - 0.02], "worse than before"),
        (_standing_out(pairs), "clearly weaker than the other pairs"),
    ):
        if found:
            look.append(f"{_count(len(found), 'pair')} {what}: z {_listed(found)}")
    loose = [f"{p.z}-{p.fixed_z}" for p in data.pairs if p.residual and not p.residual.count]
    if loose:
        look.append(
            f"{_count(len(loose), 'pair')} without a trusted match, tied only through others: z "
            f"{_listed(loose)}"
        )
    strained = [s.z for s in data.sections if s.distortion and s.distortion.strain_p99 > 0.25]
    if strained:
        look.append(
            f"{_count(len(strained), 'section')} strained by over 25 %: z {_listed(strained)}"
        )
    return poor, look


def _standing_out(pairs: Sequence[PairRow]) -> list[int]:
    means = np.array([p.after.mean for p in pairs])
    if means.size < 5:
        return []
    middle = float(np.median(means))
    limit = middle - max(5 * float(np.median(np.abs(means - middle))), 0.1)
    return [p.z for p in pairs if p.after.mean < limit]


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _listed(things: Sequence[int] | Sequence[str], most: int = 8) -> str:
    shown = ", ".join(str(thing) for thing in things[:most])
    return shown if len(things) <= most else f"{shown} and {len(things) - most:,} more"


def qc_json(data: ReportData) -> dict[str, Any]:
    """Return the report's numbers for machines; what is not known is None.

    Schema, version 1. A summary is an object with the fields of `CorrelationSummary`,
    `ResidualSummary` or `DistortionSummary` of `alignment.qc`::

        schema           1
        run              title, source_uri, volume_uri, run_uri, shape [z, y, x],
                         resolution_nm [z, y, x], config_digest, versions {package: version},
                         created, before_is
        verdict          level "good" | "look" | "poor", sentence, reasons [text]
        chunk_px         side of the correlation's chunks
        correlation      before, after: summaries over all chunks
        residual         summary over all trusted matches
        pairs            [{z, fixed_z, before, after, residual}]
        sections         [{z, name, state "aligned" | "bridged", valid_fraction, reason,
                         distortion, defects {name: share}, remarks [text]}]
        duplicates       [{z, fixed_z, kind "exposure" | "tissue", structure, grain, name,
                         fixed_name}]
        matches          measured, rejected {filter: count}, trusted
        worst            [{z, fixed_z, y, x, before, after}], the worst first
        stages           [{name, seconds, bytes_read, bytes_written, units, retries, and planned,
                         actual: null, or {units, objects, stored_bytes, core_s, peak_bytes}}]
        truth            null, or {name, error, pairs [{z, fixed_z, error}], before}
        notes            [text]
        findings         [{kind, sections [z], score, order [z], detail, sentence}], see
                         `alignment.findings`
        wander           null, or {window_sections, peak_to_peak_px {dy, dx, turn, growth}, and by
                         section dy, dx, turn, growth}, px, smoothed, see `alignment.wander`
    """
    facts = asdict(data.facts)
    del facts["config_yaml"]
    value = {
        "schema": SCHEMA_VERSION,
        "run": facts,
        "verdict": verdict(data)._asdict(),
        "chunk_px": data.chunk_px,
        "correlation": {
            "before": asdict(data.correlation_before),
            "after": asdict(data.correlation_after),
        },
        "residual": asdict(data.residual),
        "pairs": [asdict(pair) for pair in data.pairs],
        "sections": [asdict(section) for section in data.sections],
        "duplicates": [asdict(pair) for pair in data.duplicates],
        "matches": {
            "measured": data.matches,
            "rejected": {f.name: f.rejected for f in data.filters},
            "trusted": data.trusted,
        },
        "worst": [
            {name: getattr(w, name) for name in ("z", "fixed_z", "y", "x", "before", "after")}
            for w in data.worst
        ],
        "stages": [asdict(stage) for stage in data.stages],
        "truth": None if data.truth is None else asdict(data.truth),
        "notes": data.notes,
        "findings": [finding.as_dict() for finding in data.findings],
        "wander": wander_dict(data.wander),
    }
    plain: dict[str, Any] = _plain(value)
    return plain


def _plain(value: Any) -> Any:
    """Turn tuples and numpy scalars into what JSON knows; NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
