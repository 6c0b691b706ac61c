"""Sections that are wrong as a whole: named, and the run goes on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from alignment.commands.query import to_aligned, to_source
from alignment.errors import DataError
from alignment.fields import flipped_cells
from alignment.phantom import Phantom, PhantomConfig
from alignment.runs import load, prepare
from alignment.stages import ORDER, inputs, run_stage, wholesections
from storage.commit import records
from storage.store import read_bytes, read_json
from storage.volume import open_array

from .conftest import CONFIG

SIDE = 256
SECTIONS = 8


@pytest.fixture(scope="module")
def tissue():
    """Undamaged neighbouring sections, hardly moved."""
    place = {"rotation_deg": 1.0, "shift_px": 6.0, "elastic_px": 1.0, "stretch": 0.0}
    whole = {"fold_section": None, "blank_section": None, "corner_section": None}
    phantom = Phantom(
        PhantomConfig(sections=SECTIONS, height=SIDE, width=SIDE, seed=4, **place, **whole)
    )
    return np.stack([phantom.section(z) for z in range(SECTIONS)])


def run_of(stack, cluster, folder, *, until="coarse", config=None):
    """Run the stages up to `until` on a stack; return the run."""
    tifffile.imwrite(folder / "raw.tif", stack, photometric="minisblack")
    settings = CONFIG | (config or {})
    run_uri = prepare((folder / "raw.tif").as_uri(), (folder / "out.zarr").as_uri(), settings)
    for stage in ORDER[: ORDER.index(until) + 1]:
        run_stage(stage, run_uri, cluster)
    return load(run_uri)


def told(run):
    return [(f.kind, f.sections) for f in wholesections.findings(run.uri)]


def solution(run):
    return records.read_records(run.uri, "coarse", "solve")["all"]


def strange(seed=99):
    config = PhantomConfig(sections=1, height=SIDE, width=SIDE, seed=seed)
    return Phantom(config).section(0)


@pytest.fixture(scope="module")
def mirrored_run(tissue, cluster, tmp_path_factory):
    stack = tissue.copy()
    stack[3] = stack[3][:, ::-1]
    return run_of(stack, cluster, tmp_path_factory.mktemp("mirrored"), until="qc")


@pytest.mark.slow
def test_a_mirrored_section_is_named_and_drawn_the_right_side_up(mirrored_run, tissue):
    run = mirrored_run
    assert told(run) == [("mirrored", (3,))]
    matrices = inputs.coarse(run.uri).matrices
    assert [z for z, m in enumerate(matrices) if np.linalg.det(m[:, :2]) < 0] == [3]
    for field in inputs.read_all(open_array(run.uri, "fields")):
        assert not flipped_cells(field, run.config.relax.node_spacing_px).any()
    after = {pair["z"]: pair["after"]["mean"] for pair in read_json(run.uri + "/qc.json")["pairs"]}
    others = [after[z] for z in after if z not in (3, 4)]
    assert min(after[3], after[4]) > min(others) - 0.05


@pytest.mark.slow
def test_points_of_a_mirrored_section_map_both_ways(mirrored_run, tissue):
    points = np.random.default_rng(0).uniform(60, 190, (40, 2))
    there = to_source(mirrored_run.uri, 3, points)
    np.testing.assert_allclose(to_aligned(mirrored_run.uri, 3, there), points, atol=0.05)
    # The same tissue lies at about the same place of the next section, mirrored left to right.
    beside = to_source(mirrored_run.uri, 2, points)
    assert np.abs(np.corrcoef(there[:, 1], beside[:, 1])[0, 1] + 1) < 0.01
    aligned = inputs.read_row(open_array(mirrored_run.uri, "aligned/0"), 3)
    y, x = np.rint(there).astype(int).T
    drawn = aligned[tuple(np.rint(points).astype(int).T)].astype(float)
    taken = inputs.section(mirrored_run, 3, 0)[y, x].astype(float)
    assert np.corrcoef(drawn, taken)[0, 1] > 0.8


@pytest.mark.slow
def test_the_report_tells_what_was_found(mirrored_run):
    figures = read_json(mirrored_run.uri + "/qc.json")
    (finding,) = figures["findings"]
    assert finding["kind"] == "mirrored"
    assert any("section 3 is mirrored" in reason for reason in figures["verdict"]["reasons"])
    assert figures["verdict"]["level"] == "look"
    page = read_bytes(mirrored_run.uri + "/report.html").decode()
    assert page.count("section 3 is mirrored") == 2


@pytest.mark.slow
def test_a_mirrored_section_may_be_left_as_it_is(tissue, cluster, tmp_path):
    stack = tissue[:5].copy()
    stack[2] = stack[2][:, ::-1]
    run = run_of(stack, cluster, tmp_path, config={"coarse": {"mirrored": "report"}})
    assert told(run) == [("mirrored", (2,))]
    assert solution(run)["bridged"] == [2]
    assert (np.linalg.det(inputs.coarse(run.uri).matrices[:, :, :2]) > 0).all()
    (finding,) = wholesections.findings(run.uri)
    assert "coarse.mirrored is 'report'" in finding.sentence


def test_swapped_and_doubled_sections_are_named(tissue, cluster, tmp_path):
    run = run_of(tissue[[0, 1, 3, 2, 4, 5, 5, 6, 7]], cluster, tmp_path)
    assert told(run) == [("duplicated", (5, 6)), ("swapped", (2, 3))]


@pytest.mark.slow
def test_a_section_without_overlap_is_named_with_its_pairs(tissue, cluster, tmp_path):
    stack = tissue[:6].copy()
    stack[2] = strange()
    run = run_of(stack, cluster, tmp_path)
    (finding,) = wholesections.findings(run.uri)
    assert (finding.kind, finding.sections) == ("unlinked", (2,))
    assert "no believable match with 0, 1, 3, 4, 5" in finding.sentence
    assert solution(run)["bridged"] == [2]


def test_a_pair_without_overlap_is_named(tissue, cluster, tmp_path):
    run = run_of(np.stack([tissue[0], strange()]), cluster, tmp_path, until="qc")
    sentences = [finding.sentence for finding in wholesections.findings(run.uri)]
    assert len(sentences) == 2
    assert "section 0 fits none of its neighbours: no believable match with 1" in sentences[0]
    assert "section 1 fits none of its neighbours: no believable match with 0" in sentences[1]


def test_blank_and_masked_sections_are_bridged_without_a_word_about_their_order(
    tissue, cluster, tmp_path
):
    stack = tissue[:6].copy()
    stack[1] = 0
    stack[3] = 255
    run = run_of(stack, cluster, tmp_path)
    assert inputs.missing(run.uri) == {1, 3}
    assert solution(run)["bridged"] == [1, 3]
    assert told(run) == []


def test_a_stack_of_which_all_is_masked_runs_to_its_end(cluster, tmp_path):
    run = run_of(np.zeros((3, SIDE, SIDE), np.uint8), cluster, tmp_path)
    assert solution(run)["bridged"] == [0, 1, 2]
    assert told(run) == []


def test_a_single_section_is_refused_before_anything_is_computed(tissue, cluster, tmp_path):
    with pytest.raises(DataError, match="holds 1 section; aligning needs at least 2"):
        run_of(tissue[:1], cluster, tmp_path)


def data(name):
    root = Path(os.environ.get("ALIGN_TEST_DATA", "../shared/data"))
    if not (root / name).exists():
        pytest.skip(f"set {name} is not in {root}; set ALIGN_TEST_DATA")
    return tifffile.imread(root / name / "raw.tif")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_real_stack_of_thirty_with_two_swapped_and_one_double(cluster, tmp_path):
    order = list(range(29))
    order[7], order[8] = 8, 7
    order.insert(21, 20)
    run = run_of(data("isbi2012_test")[order], cluster, tmp_path)
    assert told(run) == [("duplicated", (20, 21)), ("swapped", (7, 8))]
    assert wholesections.findings(run.uri)[1].order == (6, 8, 7, 9)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "planes"),
    [
        ("vnc_stack1", slice(None)),
        ("isbi2012_test", slice(None)),
        ("fib_medulla_ts2", slice(None, None, 4)),
        ("aligntk_z00-07", slice(None)),
        ("pinky_sample1", slice(None)),
    ],
)
def test_real_stacks_as_they_came_raise_no_alarm(name, planes, cluster, tmp_path):
    assert told(run_of(data(name)[planes], cluster, tmp_path)) == []
