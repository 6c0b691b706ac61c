"""The masks stage: its records tell folds and seams one by one, and name a section found twice."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import tifffile

from alignment.blockwise import Outcome
from alignment.defects import Defect
from alignment.errors import ConfigError, DataError
from alignment.runs import load, prepare
from alignment.stages import inputs, marked, maskviews, run_stage, runner
from alignment.updates import changed_settings
from storage.commit import records
from storage.store import read_json
from storage.volume import open_array

SIDE_PX = 640


def tissue(seed):
    """Return blobs and noise at mip 0."""
    random = np.random.default_rng(seed)
    blobs = cv2.GaussianBlur(random.normal(size=(SIDE_PX, SIDE_PX)), (0, 0), 8)
    grey = 150 + 35 * blobs / blobs.std() + random.normal(0, 8, blobs.shape)
    return grey.clip(1, 230).astype(np.uint8)


def one_after_the_other(work, blocks, _client):
    return (Outcome(block, value=work(block)) for block in blocks)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run of five sections: 0 and 1 are one exposure, 2 is black, 3 has a fold."""
    folder = tmp_path_factory.mktemp("masks")
    sections = [tissue(1), tissue(1), np.zeros((SIDE_PX, SIDE_PX), np.uint8), tissue(3), tissue(4)]
    sections[3][300:330] = 25
    tifffile.imwrite(folder / "raw.tif", np.stack(sections))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "run_blocks", one_after_the_other)
        uri = prepare(str(folder / "raw.tif"), str(folder / "out.zarr"))
        for stage in ("ingest", "masks"):
            run_stage(stage, uri, None)
    return load(uri)


def sections_of(run):
    found = records.read_records(run.uri, "masks", "sections")
    return [found[label] for label in sorted(found)]


def test_a_record_has_every_reason_with_its_area(run):
    for record in sections_of(run):
        assert set(record["defects"]) == {defect.name for defect in Defect}
    areas = [record["defects"] for record in sections_of(run)]
    assert areas[2]["OUTSIDE"] == 1
    assert 0.04 < areas[3]["FOLD"] < 0.12
    assert not any(areas[0].values())


def test_a_record_tells_each_fold(run):
    (tear,) = sections_of(run)[3]["tears"]
    assert tear["kind"] in ("FOLD", "CRACK")
    assert tear["length_px"] == pytest.approx(SIDE_PX / 2, abs=32)
    assert 10 < tear["width_px"] < 30
    defects = inputs.read_row(open_array(run.uri, "defects"), 3)
    assert (defects[155, 20:-20] & (Defect.FOLD | Defect.CRACK)).all()


def test_findings_and_areas_are_told_in_words(run):
    record = sections_of(run)[3]
    (told,) = maskviews.findings(record)
    assert "px long" in told
    assert any(text.startswith(("fold ", "crack ")) for text in maskviews.areas_told(record))
    assert maskviews.areas_told(sections_of(run)[0]) == []


def test_pairs_step_over_the_missing_and_the_copy_is_named(run):
    assert inputs.missing(run.uri) == {2}
    compared = records.read_records(run.uri, "masks", "likeness").values()
    assert sorted((r["z"], r["d"]) for r in compared) == [(1, 1), (3, 2), (4, 1)]
    (pair,) = maskviews.duplicates(run)
    assert (pair.z, pair.fixed_z, pair.kind) == (1, 0, "exposure")
    assert pair.name == run.section_names[1]
    assert f"sections 0 ({run.section_names[0]}) and 1" in pair.sentence


def test_the_worst_sections_are_pictured_and_black_ones_are_not(run):
    shown = maskviews.pictures(run, sections_of(run))
    assert [picture.z for picture in shown] == [3]
    assert max(shown[0].image.shape) <= maskviews.VIEW_PX
    assert (shown[0].reasons > 0).any()


class Dark:
    """Stands for a network of two classes: the one beside the background is what is dark."""

    patch, channels = None, 2

    def shrink(self, patch):
        return (0, 0, 0)

    def __call__(self, patches):
        probability = 1 - patches / patches.max()
        return np.concatenate([1 - probability, probability], -1)


def marked_run(folder, monkeypatch, **settings):
    section = tissue(1)
    section[200:260, 300:420] = 30  # too short for a fold that is found otherwise
    tifffile.imwrite(folder / "raw.tif", np.stack([section, tissue(2)]))
    (folder / "net.keras").write_bytes(b"network")
    monkeypatch.setattr(runner, "run_blocks", one_after_the_other)
    config = {"masks": {"network": (folder / "net.keras").as_uri(), **settings}}
    uri = prepare(str(folder / "raw.tif"), str(folder / "out.zarr"), config)
    run_stage("ingest", uri, None)
    return load(uri)


def test_what_a_network_marks_may_not_be_used_for_the_reason_that_it_finds(tmp_path, monkeypatch):
    run = marked_run(tmp_path, monkeypatch, network_above=0.8, network_finds="fold")
    monkeypatch.setattr(marked, "_network", lambda uri, sha256: Dark())
    run_stage("masks", run.uri, None)
    defects = inputs.read_row(open_array(run.uri, "defects"), 0)
    assert (defects[102:128, 152:208] & Defect.FOLD).all()
    assert not inputs.valid(run, 0, 1)[102:128, 152:208].any()
    marks = [record["marked_fraction"] for record in sections_of(run)]
    assert marks[0] == pytest.approx(60 * 120 / SIDE_PX**2, rel=0.1)
    assert marks[1] < 0.1 * marks[0]
    assert [record["defects"]["FOLD"] for record in sections_of(run)] == pytest.approx(marks)


def test_a_network_that_was_changed_or_is_none_is_named(tmp_path, monkeypatch):
    run = marked_run(tmp_path, monkeypatch)
    image = inputs.section(run, 0, 1)
    with pytest.raises(ConfigError, match=r"masks\.network: .*net\.keras: "):
        marked.marked_section(run, image)
    (tmp_path / "net.keras").write_bytes(b"another")
    with pytest.raises(DataError, match=r"masks\.network: .* was changed since the run was made"):
        marked.marked_section(run, image)
    again = prepare(str(tmp_path / "raw.tif"), str(tmp_path / "b.zarr"), run.config.model_dump())
    before, now = (read_json(f"{uri}/run.json") for uri in (run.uri, again))
    assert changed_settings(before, now) == ("masks.network",)
