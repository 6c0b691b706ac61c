"""The report of a run: one HTML page that stands alone.

The page loads nothing, not even from its own folder, and says so in its content security policy:
it can be sent by mail and read in ten years. It runs no script. `alignment.report_data` holds what
it shows and the same numbers as JSON.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from alignment import figures, report_masks, report_wander
from alignment.planning.compared import against_plan
from alignment.qc import DistortionSummary, ResidualSummary
from alignment.report_data import (
    FilterCount,
    PairRow,
    ReportData,
    Reslice,
    Resources,
    RunFacts,
    SectionPicture,
    SectionRow,
    StageCost,
    Truth,
    TruthRow,
    Verdict,
    WorstPlace,
    qc_json,
    shown_sections,
    verdict,
)
from alignment.report_masks import DuplicatePair, MaskCard, MaskPicture
from alignment.wander import WINDOW_SECTIONS

__all__ = [
    "DuplicatePair",
    "FilterCount",
    "MaskPicture",
    "PairRow",
    "ReportData",
    "Reslice",
    "Resources",
    "RunFacts",
    "SectionPicture",
    "SectionRow",
    "StageCost",
    "Truth",
    "TruthRow",
    "Verdict",
    "WorstPlace",
    "build_report",
    "qc_json",
    "shown_sections",
    "verdict",
]

UNKNOWN = "\u2013"
TABLE_ROWS = 1000
"""Rows of one table; `qc.json` has all of them."""
SHOWN_PLACES, CUTOUT_PX, RESLICE_PX = 12, 160, 900
"""What the pictures may take, so that the page stays below 15 MB even if all of them are noise."""
RESIDUAL_PALETTE, FIELD_PALETTE, CORRELATION_PALETTE = "magma", "cividis", "viridis"


def build_report(data: ReportData) -> str:
    """Return the report as one HTML page without any outside resource.

    Raises
    ------
    ShapeError
        If the two cut-outs of a pair differ in shape.
    """
    return _template().render(
        data=data,
        facts=data.facts,
        verdict=verdict(data),
        tiles=_tiles(data),
        correlation_charts=_correlation_charts(data),
        residual_charts=_residual_charts(data),
        distortion_charts=_distortion_charts(data),
        wander_charts=report_wander.charts(data.wander, data.bridged),
        wander_window=WINDOW_SECTIONS,
        pairs=_most_telling(data.pairs, lambda p: p.after.p5 if p.after.count else -1.0),
        sections=_most_telling(
            data.sections, lambda s: -s.distortion.strain_p99 if s.distortion else 0.0
        ),
        remarks=_most_telling(
            [s for s in data.sections if s.reason or s.remarks or s.state == "bridged"],
            lambda s: s.valid_fraction,
        ),
        mask_columns=report_masks.columns([s.defects for s in data.sections]),
        mask_cards=[_mask_card(data, picture) for picture in data.masks],
        maps=_maps(data),
        worst=[_worst_card(place) for place in data.worst[:SHOWN_PLACES]],
        reslices=[_reslice(cut) for cut in data.reslices],
        totals=_totals(data.stages),
        planned=against_plan(data.stages, (_count, _count, _bytes, _duration, _bytes)),
        table_rows=TABLE_ROWS,
    )


class _Tile(NamedTuple):
    label: str
    value: str
    detail: str


def _tiles(data: ReportData) -> list[_Tile]:
    before, after, total = data.correlation_before, data.correlation_after, _totals(data.stages)
    cells = sum(s.distortion.cells for s in data.sections if s.distortion)
    p95_nm = data.residual.p95 * data.facts.resolution_nm[2]
    good = len(data.sections) - len(data.bridged)
    tiles = [
        _Tile("Median correlation", _number(after.p50, 3), f"{_number(before.p50, 3)} before"),
        _Tile("Weakest 5 % of chunks", _number(after.p5, 3), f"{_number(before.p5, 3)} before"),
        _Tile("Residual, 95th percentile", _unit(data.residual.p95, "px"), _unit(p95_nm, "nm")),
        _Tile("Folded cells", f"{data.flipped_cells:,}", f"of {cells:,} mesh cells"),
        _Tile("Sections aligned", f"{good:,}", f"{len(data.bridged):,} bridged"),
        _Tile("Matches trusted", _percent(data.trusted, data.matches), f"of {data.matches:,}"),
    ]
    if data.truth:
        p95 = _unit(data.truth.error.p95, "px")
        median = _unit(data.truth.error.p50, "px")
        tiles.append(_Tile("Distance to truth, median", median, f"95th percentile {p95}"))
    if data.stages:
        moved = f"{_bytes(total.bytes_read)} read, {_bytes(total.bytes_written)} written"
        tiles.append(_Tile("Time of all stages", _duration(total.seconds), moved))
    return tiles


def _totals(stages: Sequence[StageCost]) -> StageCost:
    return StageCost(
        name="all",
        seconds=sum(s.seconds for s in stages),
        bytes_read=sum(s.bytes_read for s in stages),
        bytes_written=sum(s.bytes_written for s in stages),
        units=sum(s.units for s in stages),
        retries=sum(s.retries for s in stages),
    )


class _Chart(NamedTuple):
    title: str
    picture: Markup


def _correlation_charts(data: ReportData) -> list[_Chart]:
    sides = [p.before for p in data.pairs] + [p.after for p in data.pairs]
    known = [v for side in sides for v in (side.mean, side.p5, side.p50) if math.isfinite(v)]
    y_range = min([0.0, *known]), min(max([0.1, *known]) * 1.05, 1.0)
    return [
        _Chart(
            title,
            figures.line_chart(
                f"{title}: chunked Pearson correlation of each pair, before and after",
                [p.z for p in data.pairs],
                [
                    figures.Series("before", [getattr(p.before, n) for p in data.pairs], "before"),
                    figures.Series("after", [getattr(p.after, n) for p in data.pairs], "after"),
                ],
                y_label="Pearson r",
                y_range=y_range,
                gaps=data.bridged,
            ),
        )
        for n, title in (
            ("mean", "Mean of the chunks"),
            ("p50", "Median chunk"),
            ("p5", "Weakest 5 % of the chunks (5th percentile)"),
        )
    ]


def _residual_charts(data: ReportData) -> list[_Chart]:
    known = [(p.z, p.residual) for p in data.pairs if p.residual and p.residual.count]
    lines = [
        figures.Series("median", [r.p50 for _, r in known], "after"),
        figures.Series("95th percentile", [r.p95 for _, r in known], "plain"),
        figures.Series("99th percentile", [r.p99 for _, r in known], "faint"),
    ]
    return _percentile_chart(data, "Residual after relaxation", "px", [z for z, _ in known], lines)


def _distortion_charts(data: ReportData) -> list[_Chart]:
    known = [(s.z, s.distortion) for s in data.sections if s.distortion and s.distortion.cells]
    z = [section for section, _ in known]
    area = [
        figures.Series("median", [100 * d.area_p50 for _, d in known], "after"),
        figures.Series("1st percentile", [100 * d.area_p1 for _, d in known], "plain"),
        figures.Series("99th percentile", [100 * d.area_p99 for _, d in known], "plain"),
    ]
    strain = [
        figures.Series("median", [100 * d.strain_p50 for _, d in known], "after"),
        figures.Series("99th percentile", [100 * d.strain_p99 for _, d in known], "plain"),
    ]
    return [
        *_percentile_chart(data, "Change of area", "per cent", z, area),
        *_percentile_chart(data, "Strain", "per cent", z, strain),
    ]


def _percentile_chart(
    data: ReportData, title: str, unit: str, z: list[int], lines: list[figures.Series]
) -> list[_Chart]:
    if not z:
        return []
    alt = f"{title} of each section: {', '.join(line.label for line in lines)}"
    return [_Chart(title, figures.line_chart(alt, z, lines, y_label=unit, gaps=data.bridged))]


class _Card(NamedTuple):
    z: int
    name: str
    residual: Markup | None
    histogram: Markup | None
    field: Markup
    correlation: Markup | None
    numbers: ResidualSummary | None
    distortion: DistortionSummary | None


class _Maps(NamedTuple):
    cards: list[_Card]
    residual_scale: Markup
    field_scale: Markup
    correlation_scale: Markup


def _maps(data: ReportData) -> _Maps:
    """Draw the maps of the shown sections on common scales: the 99th percentile of all of them."""
    top = _high([p.residual for p in data.pictures])
    reach = _high([np.hypot(p.field[0], p.field[1]) for p in data.pictures])
    pairs = {p.z: p for p in data.pairs}
    sections = {s.z: s for s in data.sections}
    cards = []
    for p in data.pictures:
        who = f"section {p.z}"
        residual = histogram = correlation = None
        if np.isfinite(p.residual).any():
            alt = f"Residuals of {who}"
            residual = figures.scalar_map(p.residual, 0.0, top, RESIDUAL_PALETTE, alt)
            histogram = figures.histogram(p.residual, top, label=f"Histogram: {alt}, px")
        if p.correlation is not None:
            alt = f"Correlation of {who} with its predecessor, chunk by chunk"
            correlation = figures.scalar_map(p.correlation, 0.0, 1.0, CORRELATION_PALETTE, alt)
        alt = f"Displacement field of {who}"
        cards.append(
            _Card(
                z=p.z,
                name=sections[p.z].name,
                residual=residual,
                histogram=histogram,
                field=figures.field_picture(p.field, reach, FIELD_PALETTE, alt),
                correlation=correlation,
                numbers=pairs[p.z].residual if p.z in pairs else None,
                distortion=sections[p.z].distortion,
            )
        )
    return _Maps(
        cards,
        figures.colour_bar(0.0, top, RESIDUAL_PALETTE, "px"),
        figures.colour_bar(0.0, reach, FIELD_PALETTE, "px"),
        figures.colour_bar(0.0, 1.0, CORRELATION_PALETTE, "r"),
    )


def _high(maps: Sequence[NDArray[Any]]) -> float:
    known = np.concatenate([m[np.isfinite(m)].ravel() for m in maps] or [np.zeros(0)])
    return max(float(np.percentile(known, 99)) if known.size else 1.0, 0.1)


def _mask_card(data: ReportData, picture: MaskPicture) -> MaskCard:
    section = next(s for s in data.sections if s.z == picture.z)
    return report_masks.card(picture, section.name, section.defects)


class _WorstCard(NamedTuple):
    place: WorstPlace
    rows: list[tuple[str, float, Markup, Markup, Markup]]
    """(before or after, correlation, overlay, moving, fixed)."""


def _worst_card(place: WorstPlace) -> _WorstCard:
    rows = []
    for word, r, moving, fixed in (
        ("before", place.before, place.before_moving, place.before_fixed),
        ("after", place.after, place.after_moving, place.after_fixed),
    ):
        moving, fixed = _fit(moving), _fit(fixed)
        where = f"at y {place.y:,.0f}, x {place.x:,.0f}, {word}"
        rows.append(
            (
                word,
                r,
                figures.photograph(
                    figures.overlay(moving, fixed),
                    f"Sections {place.z} (red) and {place.fixed_z} (cyan) {where}",
                ),
                figures.photograph(figures.grey(moving), f"Section {place.z} {where}"),
                figures.photograph(figures.grey(fixed), f"Section {place.fixed_z} {where}"),
            )
        )
    return _WorstCard(place, rows)


def _fit(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the centre of an image that is larger than a cut-out may be."""
    y, x = (max((n - CUTOUT_PX) // 2, 0) for n in image.shape)
    return image[y : y + CUTOUT_PX, x : x + CUTOUT_PX]


class _ResliceView(NamedTuple):
    reslice: Reslice
    wide: bool
    pictures: list[tuple[str, Markup]]
    size: str


def _reslice(cut: Reslice) -> _ResliceView:
    z_nm, lateral_nm = cut.pixel_nm
    pictures, aspects = [], []
    for word, image in (("before", cut.before), ("after", cut.after)):
        nz, nx = image.shape
        aspects.append(nx * lateral_nm / max(nz * z_nm, 1e-9))
        thin = image[tuple(slice(None, None, -(-n // RESLICE_PX) or 1) for n in image.shape)]
        alt = f"{cut.plane} plane at {cut.at_px:,} px, {word}; z downwards"
        # One section is one row here, so that even a narrow gap is no speck.
        picture = figures.grey(np.ascontiguousarray(thin), missing_area_px=8)
        pictures.append((word, figures.photograph(picture, alt, aspect=aspects[-1])))
    nz, nx = cut.after.shape
    size = f"{_unit(nx * lateral_nm / 1e3, 'µm')} wide, {_unit(nz * z_nm / 1e3, 'µm')} deep"
    return _ResliceView(cut, max(aspects) > 2.2, pictures, size)


def _most_telling[R: (PairRow, SectionRow)](
    rows: Sequence[R], rank: Callable[[R], float]
) -> list[R]:
    """Return the rows of a table in order of z: the lowest `rank` first to stay in a long one."""
    if len(rows) <= TABLE_ROWS:
        return list(rows)
    return sorted(sorted(rows, key=rank)[:TABLE_ROWS], key=lambda row: row.z)


def _number(value: float | None, digits: int = 2) -> str:
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def _unit(value: float | None, unit: str) -> str:
    """Write three significant digits and the unit; never in exponents."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def _count(n: float) -> str:
    return f"{n:,.0f}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else UNKNOWN


def _bytes(n: float) -> str:
    """Write a size in decimal units.

    >>> _bytes(1_234_567)
    '1.23 MB'
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n < 1000:
            return f"{n:,.0f} B" if unit == "B" else _unit(n, unit)
        n /= 1000
    return _unit(n, "PB")


def _duration(seconds: float | None) -> str:
    """Write a time in its two largest units.

    >>> _duration(3725.0), _duration(4.25)
    ('1 h 2 min', '4.2 s')
    """
    if seconds is None:
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours:,} h {m} min" if hours else f"{m} min {s} s"


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(
        number=_number,
        unit=_unit,
        percent=_percent,
        bytes=_bytes,
        duration=_duration,
        shell=shlex.quote,
        python=repr,
    )
    text = resources.files("alignment").joinpath("report_template.html").read_text("utf-8")
    return environment.from_string(text)
