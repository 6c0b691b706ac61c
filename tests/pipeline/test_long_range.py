"""Some sections are matched far back too, and these matches reach the solver with their weight."""

import numpy as np
import pytest

from alignment.blockwise import local_client
from alignment.commands.sample import write_phantom
from alignment.config import parse_config
from alignment.phantom import PhantomConfig
from alignment.planning.counts import count_stages
from alignment.planning.stack import Stack
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
    """A run of which only those stages have run that say which sections are there."""
    return _run(source, tmp_path_factory.mktemp("begun"), until="masks")


def _run(source, folder, *, until):
    uri = prepare(source, (folder / "out.zarr").as_uri(), SETTINGS)
    with local_client(1) as client:
        for stage in ORDER[: ORDER.index(until) + 1]:
            run_stage(stage, uri, client)
    return load(uri)


def test_every_second_present_section_is_matched_far_back(run):
    assert inputs.missing(run.uri) == {1}
    far = inputs.long_range_pairs(run)
    assert far == [(3, 3), (5, 2), (5, 5)]
    near = inputs.pairs(run, 1)
    assert inputs.match_pairs(run) == sorted([*near, *far])
    assert [inputs.sections_told(run, z, d) for z, d in far] == [2, 2, 2]
    assert {inputs.sections_told(run, z, d) for z, d in near} == {1}


def test_the_plan_counts_the_far_pairs():
    config = parse_config(SETTINGS)
    near = (SECTIONS - 1) * config.match.neighbours
    without = parse_config({**SETTINGS, "match": {**SETTINGS["match"], "long_range": []}})
    for settings, pairs in ((config, near + 2 + 1), (without, near)):  # 2 and 4, 4 with 4 back
        stages = {stage.stage: stage for stage in count_stages(Stack((6, 256, 256), settings))}
        assert stages["match"].units == pairs


@pytest.mark.slow
def test_far_matches_are_found_judged_and_solved_for(source, tmp_path):
    run = _run(source, tmp_path, until="relax")
    pairs = inputs.match_pairs(run)
    assert inputs.trusted_pairs(run) == pairs
    assert len(records.read_records(run.uri, "match", "round0")) == len(pairs)
    for z, d in pairs:
        for array in ("matches", "trusted"):
            found = inputs.read_row(open_array(run.uri, f"{array}/{d}"), z)[0]
            assert np.isfinite(found).sum() >= 4, (array, z, d)
        residual = inputs.read_row(open_array(run.uri, f"residuals/{d}"), z)
        assert np.nanmedian(residual) < 3
