import dataclasses
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from alignment import qc
from alignment.errors import ShapeError
from alignment.report import (
    SHOWN_PLACES,
    TABLE_ROWS,
    DuplicatePair,
    FilterCount,
    MaskPicture,
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
    WorstPlace,
    build_report,
    qc_json,
    shown_sections,
    verdict,
)

VOID = {"meta", "br", "img", "link", "input", "hr"}
MISSING = 3


def correlation(middle, count=40):
    return qc.CorrelationSummary(middle, middle - 0.4, middle - 0.3, middle, middle + 0.3, count)


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(1, 256, shape).astype(np.uint8)


def report_data(nz=6, *, side=24, pictured=None, **changes):
    """Return the report of a made-up run of `nz` sections, the fourth of them bridged."""
    rng = np.random.default_rng(5)
    residual = qc.ResidualSummary(0.71, 0.6, 1.234, 2.5, 900)
    distortion = qc.DistortionSummary(-0.03, 0.001, 0.04, 0.01, 0.052, 0, 529)
    good = [z for z in range(nz) if z != MISSING]
    values = {
        "facts": RunFacts(
            title="Demo",
            source_uri="s3://raw/demo.zarr",
            volume_uri="s3://petalign/demo",
            run_uri="s3://petalign/demo/runs/0123456789abcdef",
            shape=(nz, 20_000, 12_345),
            resolution_nm=(40.0, 4.0, 4.0),
            config_digest="0123456789abcdef",
            versions={"petalign": "0.1.0", "numpy": "2.5.0"},
            created="2026-01-02T03:04:05+00:00",
            config_yaml="qc:\n  chunk_px: 64\n",
        ),
        "chunk_px": 64,
        "correlation_before": correlation(0.2112, 4000),
        "correlation_after": correlation(0.5432, 4000),
        "residual": residual,
        "pairs": tuple(
            PairRow(z, before, correlation(0.2), correlation(0.5 + z / 1e5), residual)
            for before, z in pairwise(good)
        ),
        "sections": tuple(
            SectionRow(z, f"sec_{z:04d}.tif", distortion=distortion)
            if z != MISSING
            else SectionRow(z, f"sec_{z:04d}.tif", "bridged", 0.0, "blank: all pixels are 0")
            for z in range(nz)
        ),
        "matches": 123_456,
        "filters": (FilterCount("score", 1_000), FilterCount("peak ratio", 2_345)),
        "pictures": tuple(
            SectionPicture(
                z,
                rng.gamma(2, 1, (side, side)).astype(np.float32),
                rng.normal(0, 5, (2, side, side)).astype(np.float32),
                rng.uniform(-1, 1, (side, side)).astype(np.float32),
            )
            for z in (good if pictured is None else pictured)
        ),
        "worst": (
            WorstPlace(2, 1, 800.5, 1600.5, 0.1, -0.25, *(noise((40, 40), k) for k in range(4))),
        ),
        "reslices": (Reslice("xz", 10_000, noise((nz, 300)), noise((nz, 310)), (40.0, 40.0)),),
        "stages": (
            StageCost(
                *("match", 4000.0, 5_000_000_000, 1_200, 10),
                planned=Resources(8, 16, 1_000_000, 3600.0, 10**9),
                actual=Resources(10, 16, 1_100_000, 1800.0, None),
            ),
            StageCost("render", 61.0, 7_000_000, 8_000_000, 4, retries=2),
        ),
        "notes": ("The voxel size was not stated.",),
    }
    return ReportData(**{**values, **changes})


class Page(HTMLParser):
    """Collects what the tests ask about, and fails on tags that do not match."""

    def __init__(self, html):
        super().__init__()
        self.open, self.ids, self.references, self.tags, self.text = [], [], [], [], []
        self.images_without_alt = 0
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.references += [
            attrs[name]
            for name in ("src", "href", "srcset", "xlink:href", "action", "data", "poster")
            if name in attrs
        ]
        self.references += re.findall(r"url\(([^)]*)\)", attrs.get("style") or "")
        if tag == "img" and not attrs.get("alt"):
            self.images_without_alt += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


def test_the_page_is_well_formed_with_unique_ids_and_described_pictures():
    page = Page(build_report(report_data()))
    assert len(set(page.ids)) == len(page.ids)
    assert page.images_without_alt == 0
    links = {reference for reference in page.references if reference.startswith("#")}
    assert links <= {f"#{name}" for name in page.ids}
    assert len(links) > 8


def test_the_page_loads_nothing_and_runs_nothing():
    html = build_report(report_data())
    page = Page(html)
    assert all(reference.startswith(("#", "data:image/png")) for reference in page.references)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not re.search(r"@import|\burl\(\s*['\"]?(?!data:)", html)
    assert "http://" not in html
    assert "https://" not in html
    assert "default-src 'none'; img-src data:;" in html


def test_every_section_and_pair_is_on_the_page():
    data = report_data(9)
    page = Page(build_report(data))
    for section in data.sections:
        assert section.name in page.words
    assert {f"section-{p.z}" for p in data.pictures} <= set(page.ids)
    table = re.search(r"Correlation of each pair.*?</table>", build_report(data), re.DOTALL)[0]
    rows = re.findall(r'<th scope="row">(\d+)</th><td>(\d+)</td>', table)
    assert [(int(z), int(f)) for z, f in rows] == [(p.z, p.fixed_z) for p in data.pairs]


@pytest.mark.parametrize(
    "expected",
    [
        *("0.543", "0.211 before", "1.23 px", "4.94 nm", "120,111 trusted (97.3 %)"),
        *("1 h 7 min", "5.01 GB", "6 \u00d7 20,000 \u00d7 12,345 px", "blank: all pixels are 0"),
        *("The voxel size was not stated.", "r -0.25", "petalign view s3://petalign/demo"),
        "1 section bridged: z 3",
    ],
)
def test_numbers_stand_on_the_page_with_units_and_separators(expected):
    assert expected in Page(build_report(report_data())).words


def test_what_a_user_named_cannot_become_markup():
    evil = "<script>alert('x')</script>\"'><img src=http://evil.example/x>"
    data = report_data()
    facts = dataclasses.replace(
        data.facts,
        **dict.fromkeys(
            ("title", "source_uri", "volume_uri", "run_uri", "config_yaml", "before_is"), evil
        ),
        versions={evil: evil},
    )
    sections = (SectionRow(0, evil, "bridged", 0.0, evil), *data.sections[1:])
    truth = Truth(evil, data.residual)
    changed = dataclasses.replace(
        data,
        facts=facts,
        sections=sections,
        truth=truth,
        notes=(evil,),
        filters=(FilterCount(evil, 1),),
        stages=(StageCost(evil, 1.0, 1, 1, 1),),
    )
    page, plain = Page(build_report(changed)), Page(build_report(data))
    assert "script" not in page.tags
    assert page.tags.count("img") == plain.tags.count("img")
    assert "alert('x')" in page.words


def test_json_has_the_numbers_of_the_data():
    data = report_data(truth=Truth("phantom", qc.ResidualSummary(1, 2, 3, 4, 5)))
    value = qc_json(data)
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["schema"] == 1
    assert value["run"]["shape"] == [6, 20_000, 12_345]
    assert value["run"]["versions"] == {"petalign": "0.1.0", "numpy": "2.5.0"}
    assert value["correlation"]["after"] == dataclasses.asdict(data.correlation_after)
    assert value["residual"]["p95"] == 1.234
    assert value["matches"] == {
        "measured": 123_456,
        "rejected": {"score": 1_000, "peak ratio": 2_345},
        "trusted": 120_111,
    }
    for row, pair in zip(value["pairs"], data.pairs, strict=True):
        assert row == dataclasses.asdict(pair)
    for row, section in zip(value["sections"], data.sections, strict=True):
        assert row == {**dataclasses.asdict(section), "remarks": list(section.remarks)}
    assert value["worst"] == [
        {"z": 2, "fixed_z": 1, "y": 800.5, "x": 1600.5, "before": 0.1, "after": -0.25}
    ]
    assert [stage["seconds"] for stage in value["stages"]] == [4000.0, 61.0]
    assert value["truth"]["error"]["p99"] == 4
    assert value["verdict"]["sentence"] == verdict(data).sentence


def test_unknown_numbers_are_null_in_json_and_a_dash_on_the_page():
    empty = qc.summarise(np.zeros(0))
    data = report_data(correlation_after=empty, residual=qc.residual_summary(np.zeros(0)))
    value = json.loads(json.dumps(qc_json(data), allow_nan=False))
    assert value["correlation"]["after"]["p50"] is None
    page = Page(build_report(data))
    assert "nan" not in page.words.lower()
    assert "no chunk of 64 px could be measured; lower qc.chunk_px" in page.words


def test_numpy_scalars_become_plain_json():
    data = report_data(matches=np.int64(9), chunk_px=np.int32(64))
    assert type(qc_json(data)["matches"]["measured"]) is int
    json.dumps(qc_json(data))


def test_the_same_data_give_the_same_page():
    assert build_report(report_data()) == build_report(report_data())


def test_a_long_stack_of_noise_stays_below_15_mb_and_says_what_it_left_out():
    nz = 3000
    shown = [z for z in shown_sections(nz, [17, 2999]) if z != MISSING]
    places = tuple(
        WorstPlace(5, 4, 9.0, 9.0, 0.0, -1.0, *(noise((256, 256), 4 * k + i) for i in range(4)))
        for k in range(40)
    )
    planes = tuple(
        Reslice(p, 0, noise((nz, 4000), 1), noise((nz, 4000), 2), (40.0, 4.0)) for p in ("xz", "yz")
    )
    data = report_data(nz, side=300, pictured=shown, worst=places, reslices=planes)
    html = build_report(data)
    assert len(html.encode()) < 15e6
    words = Page(html).words
    assert f"{len(shown)} of 3,000 sections" in words
    assert f"the {TABLE_ROWS:,} weakest of 2,998; qc.json has all" in words
    assert f"The {SHOWN_PLACES} places" in words
    assert "of 40; qc.json has all" in words
    assert len(qc_json(data)["pairs"]) == 2998


def test_a_long_table_keeps_the_weakest_pairs_in_order_of_z():
    pairs = tuple(
        PairRow(z, z - 1, correlation(0.2), correlation(0.1 if z == 1777 else 0.5))
        for z in range(1, 2000)
    )
    html = build_report(report_data(2000, pairs=pairs, pictured=[]))
    table = re.search(r"Correlation of each pair.*?</table>", html, re.DOTALL)[0]
    rows = [int(z.replace(",", "")) for z in re.findall(r'<th scope="row">([\d,]+)</th>', table)]
    assert len(rows) == TABLE_ROWS
    assert rows == sorted(rows)
    assert 1777 in rows


def test_what_came_stands_beside_what_was_planned():
    words = Page(build_report(report_data())).words
    assert "10 (1.25)" in words
    assert "30 min 0 s (0.50)" in words
    stage, other = qc_json(report_data())["stages"]
    assert stage["planned"]["core_s"] == 3600
    assert stage["actual"]["peak_bytes"] is None
    assert other["planned"] is None


def test_parts_without_data_are_left_out():
    bare = report_data(
        worst=(), reslices=(), stages=(), pictures=(), filters=(), notes=(), pairs=()
    )
    page = Page(build_report(bare))
    assert not {"worst", "reslices", "cost", "maps", "truth"} & set(page.ids)
    assert {"run", "correlation", "residuals", "matches", "open"} <= set(page.ids)


def test_a_known_truth_is_told_with_its_worst_pair():
    def rows(*p95s):
        return tuple(
            TruthRow(z, z - 1, qc.ResidualSummary(1, 1, p95, 9, 50 if p95 else 0))
            for z, p95 in enumerate(p95s, start=1)
        )

    truth = Truth("phantom, seed 7", qc.ResidualSummary(0.4, 0.33, 0.9, 1.5, 99), rows(2, 7, 0, 7))
    assert truth.worst_pair.z == 2
    page = Page(build_report(report_data(truth=truth)))
    assert "truth" in page.ids
    assert "after, worst pair: z 2 and 1" in page.words
    assert "the median distance to the truth is 0.33 px" in page.words


def test_cut_outs_that_do_not_fit_are_refused():
    bad = WorstPlace(2, 1, 0.0, 0.0, 0.0, 0.0, *(noise((n, 9)) for n in (9, 9, 9, 8)))
    with pytest.raises(ShapeError, match="cut both at the same box"):
        build_report(report_data(worst=(bad,)))


def with_distortion(**values):
    base = qc.DistortionSummary(-0.03, 0.001, 0.04, 0.01, 0.05, 0, 529)
    found = dataclasses.replace(base, **values)
    return tuple(SectionRow(z, str(z), distortion=found if z == 4 else base) for z in range(6))


def test_a_good_run_is_called_good():
    judged = verdict(report_data(sections=with_distortion()))
    assert judged.level == "good"
    assert judged.reasons == ()
    assert judged.sentence == (
        "Looks good: neighbours agree better in 4 of 4 pairs (median correlation 0.21 before, "
        "0.54 after); 95 % of the residuals are below 1.2 px; no cell folded over."
    )


@pytest.mark.parametrize(
    ("changes", "level", "reason"),
    [
        ({}, "look", "1 section bridged: z 3"),
        ({"sections": with_distortion(flipped_cells=2)}, "poor", "2 mesh cells folded over"),
        ({"sections": with_distortion(strain_p99=0.3)}, "look", "1 section strained by over 25 %"),
        ({"correlation_after": correlation(0.1)}, "poor", "fell from 0.211 to 0.100"),
        (
            {"pairs": (PairRow(1, 0, correlation(0.5), correlation(0.4)),)},
            "look",
            "1 pair worse than before: z 1",
        ),
        (
            {
                "pairs": tuple(
                    PairRow(z, z - 1, correlation(0.1), correlation(0.2 if z == 7 else 0.5))
                    for z in range(1, 20)
                )
            },
            "look",
            "1 pair clearly weaker than the other pairs: z 7",
        ),
    ],
)
def test_the_verdict_names_what_to_look_at(changes, level, reason):
    judged = verdict(report_data(**changes))
    assert judged.level == level
    assert any(reason in text for text in judged.reasons)


def test_many_bridged_sections_are_poor_and_listed_shortly():
    sections = tuple(SectionRow(z, str(z), "bridged" if z % 2 else "aligned") for z in range(30))
    judged = verdict(report_data(sections=sections))
    assert judged.level == "poor"
    assert "15 sections bridged: z 1, 3, 5, 7, 9, 11, 13, 15 and 7 more" in judged.reasons


def test_drawn_sections_hold_the_worst_and_both_ends():
    assert shown_sections(10, [3]) == tuple(range(10))
    shown = shown_sections(7600, [1234, 1234, 99])
    assert len(shown) <= 64
    assert {0, 99, 1234, 7599} <= set(shown)
    assert max(np.diff(shown)) <= 125


def test_masks_are_shown_with_their_reasons_and_duplicates_by_name():
    data = report_data()
    masked = dataclasses.replace(
        data.sections[1],
        valid_fraction=0.9,
        reason="fold 400 px long, fold 8.0%",
        defects={"FOLD": 0.08, "SEAM": 0.0},
        remarks=("fold 400 px long",),
    )
    pair = DuplicatePair(5, 4, "exposure", 0.99, 0.98, "sec_0005.tif", "sec_0004.tif")
    shown = MaskPicture(1, noise((40, 50)), np.full((20, 25), 16, np.uint8))
    changed = dataclasses.replace(
        data,
        sections=(data.sections[0], masked, *data.sections[2:]),
        masks=(shown,),
        duplicates=(pair,),
    )
    page = Page(build_report(changed))
    for expected in (
        "Section 1",
        "fold 8.0 %",
        "fold 400 px long",
        "sections 4 (sec_0004.tif) and 5 (sec_0005.tif) show the same exposure",
    ):
        assert expected in page.words
    assert "seam" not in page.words.split("Masked, bridged")[1].split("Matches")[0]
    assert verdict(changed).level == "look"
    assert any("the same exposure" in reason for reason in verdict(changed).reasons)
    assert qc_json(changed)["duplicates"] == [dataclasses.asdict(pair)]
    assert "The same twice" not in Page(build_report(data)).words
