"""The masks stage: its records tell folds and seams one by one, and name a section found twice."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import tifffile

from alignment.blockwise import Outcome
from alignment.defects import Defect
from alignment.runs import load, prepare
from alignment.stages import inputs, maskviews, run_stage, runner
from storage.commit import records
from storage.volume import open_array

SIDE_PX = 640


def tissue(seed):
    """Return blobs and noise at mip 0."""
    random = np.random.default_rng(seed)
    blobs = cv2.GaussianBlur(random.normal(size=(SIDE_PX, SIDE_PX)), (0, 0), 8)
    grey = 150 + 35 * blobs / blobs.std() + random.normal(0, 8, blobs.shape)
    return grey.clip(1, 230).astype(np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run of five sections: 0 and 1 are one exposure, 2 is black, 3 has a fold."""
    folder = tmp_path_factory.mktemp("masks")
    sections = [tissue(1), tissue(1), np.zeros((SIDE_PX, SIDE_PX), np.uint8), tissue(3), tissue(4)]
    sections[3][300:330] = 25
    tifffile.imwrite(folder / "raw.tif", np.stack(sections))

    def one_after_the_other(work, blocks, _client):
        return (Outcome(block, value=work(block)) for block in blocks)

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
