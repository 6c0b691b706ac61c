"""Some sections are matched far back too, and these matches reach the solver with their weight."""

import numpy as np
import pytest

from alignment.blockwise import local_client
from alignment.commands.plan import plan
from alignment.commands.sample import write_phantom
from alignment.config import parse_config
from alignment.phantom import PhantomConfig
from alignment.runs import load, prepare
from alignment.stages import ORDER, inputs, run_stage
from storage.commit import records
from storage.volume import open_array

SETTINGS = {
    "coarse": {"neighbours": 1},
    "match": {
        "neighbours": 1,
        "retry_neighbours": 0,
        "long_range": [2, 4],
        "long_range_every": 2,
        "levels": [{"mip": 2, "template_px": 48, "search_radius_px": 12, "node_spacing_px": 16}],
        "refine": [],
    },
}
SECTIONS = 6


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Six sections of 256 x 256 px; the second is blank, so distances are counted without it."""
    uri = (tmp_path_factory.mktemp("long") / "raw.zarr").as_uri()
    config = PhantomConfig(
        sections=SECTIONS, height=256, width=256, seed=5, blank_section=1, fold_section=None
    )
    write_phantom(uri, config)
    return uri


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    uri = prepare(source, (tmp_path_factory.mktemp("aligned") / "out.zarr").as_uri(), SETTINGS)
    with local_client(1) as client:
        for stage in ORDER[: ORDER.index("relax") + 1]:
            run_stage(stage, uri, client)
    return load(uri)


def test_every_second_present_section_is_matched_far_back(run):
    assert inputs.missing(run.uri) == {1}
    assert inputs.long_range_pairs(run) == [(3, 3), (5, 2), (5, 5)]
    near = inputs.pairs(run, 1)
    assert inputs.match_pairs(run) == sorted([*near, *inputs.long_range_pairs(run)])
    far = inputs.long_range_pairs(run)
    assert all(
        inputs.sections_told(run, *pair) == (2 if pair in far else 1) for pair in (*near, *far)
    )


def test_far_matches_are_found_judged_and_solved_for(run):
    assert inputs.trusted_pairs(run) == inputs.match_pairs(run)
    for z, d in inputs.match_pairs(run):
        for array in ("matches", "trusted"):
            found = inputs.read_row(open_array(run.uri, f"{array}/{d}"), z)[0]
            assert np.isfinite(found).sum() >= 4, (array, z, d)
        residual = inputs.read_row(open_array(run.uri, f"residuals/{d}"), z)
        assert np.nanmedian(residual) < 3


def test_the_plan_counts_the_far_pairs(source, run):
    config = parse_config(SETTINGS)
    stages = {stage.stage: stage for stage in plan(source, config).stages}
    near = SECTIONS * config.match.neighbours
    assert stages["match"].units == near + 2 + 1  # 2, 4 with 2 back; 4 with 4 back
    without = parse_config({**SETTINGS, "match": {**SETTINGS["match"], "long_range": []}})
    assert {s.stage: s for s in plan(source, without).stages}["match"].units == near
    matched = records.read_records(run.uri, "match", "round0")
    assert len(matched) == len(inputs.match_pairs(run))
