"""A stack that is relaxed in boxes, through the stages: the answer of one solve."""

import numpy as np
import pytest

from alignment.runs import load, prepare
from alignment.stages import ORDER, inputs, run_stage
from alignment.stages.runner import noted_phases
from alignment.stages.slabstate import ties_of
from alignment.stages.work import Work
from storage.commit.verify import verify_run
from storage.journal import Journal
from storage.volume import open_array

from .conftest import CONFIG
from .test_keys import is_declared, owners, reads


@pytest.fixture(scope="module")
def in_boxes(phantom, aligned_run, cluster):
    """The same volume, relaxed in two slabs."""
    volume = load(aligned_run).volume_uri
    run_uri = prepare(phantom, volume, {**CONFIG, "relax": {"slab_sections": 4}})
    for stage in ORDER[: ORDER.index("render")]:
        run_stage(stage, run_uri, cluster)
    return run_uri


def test_the_field_is_that_of_one_solve(aligned_run, in_boxes):
    phases = [p.name for p in noted_phases("relax", load(in_boxes), Journal())]
    assert phases[:3] == ["survey", "ties", "gather-0-0"]
    assert "sweep-2-1" in phases
    once, boxes = (inputs.read_all(open_array(uri, "fields")) for uri in (aligned_run, in_boxes))
    apart = np.abs(once - boxes)
    assert apart.max() <= 1 / 32
    assert (apart > 0).mean() < 0.01, "only rounding to 1/32 px tells them apart"
    for z, d in inputs.trusted_pairs(load(aligned_run)):
        once, boxes = (
            inputs.read_row(open_array(uri, f"residuals/{d}"), z) for uri in (aligned_run, in_boxes)
        )
        np.testing.assert_allclose(boxes, once, atol=1e-3)


def test_sigma_is_about_that_of_one_solve(aligned_run, in_boxes):
    once, boxes = (inputs.read_all(open_array(uri, "sigma")) for uri in (aligned_run, in_boxes))
    np.testing.assert_array_equal(np.isnan(once), np.isnan(boxes))
    ratio = (boxes / once)[np.isfinite(once)]
    assert 0.8 < np.median(ratio) < 1.25


def test_what_boxes_left_is_sealed_and_whole(in_boxes):
    assert verify_run(in_boxes, full=True).problems == ()


def test_units_read_nothing_that_their_keys_do_not_name(in_boxes):
    owner, seen = owners(in_boxes), 0
    for phase in noted_phases("relax", load(in_boxes), Journal()):
        work = Work.of("relax", phase, load(in_boxes))
        for unit in {phase.units[0], phase.units[-1]}:
            declared = list(phase.inputs(unit, run_uri=in_boxes))
            ties_of.cache_clear()
            read = reads(unit, work)
            seen += sum(path in owner for path in read)
            undeclared = [path for path in sorted(read) if not is_declared(path, declared, owner)]
            assert undeclared == [], f"{phase.name}/{unit.label}"
    assert seen
