"""Rendering with every option on, from a stack whose other stages were done before."""

import shutil

import numpy as np
import pytest

from alignment.runs import load, prepare
from alignment.stages import ORDER, inputs, render, run_stage
from alignment.stages.runner import noted_phases
from alignment.stages.work import Work
from storage import ledger
from storage.journal import Journal
from storage.uri import local_path
from storage.volume import open_array

from .conftest import CONFIG
from .test_keys import is_declared, owners, reads

OPTIONS = {
    "masked": "neighbour",
    "normalise": "section",
    "bridge_missing": "copy",
    "interpolation": "cubic",
}


@pytest.fixture(scope="module")
def runs_of_both(phantom, aligned_run, cluster, tmp_path_factory):
    """The published run, and one with other options, in a copy of the volume."""
    volume = tmp_path_factory.mktemp("options") / "out.zarr"
    shutil.copytree(local_path(load(aligned_run).volume_uri), volume)
    run_uri = prepare(phantom, volume.as_uri(), {**CONFIG, "render": OPTIONS})
    for stage in ORDER[: ORDER.index("render") + 1]:
        run_stage(stage, run_uri, cluster)
    return aligned_run, run_uri


def test_only_rendering_is_done_again(runs_of_both):
    _, run_uri = runs_of_both
    for stage in ORDER[: ORDER.index("render") + 1]:
        state = ledger.read_state(run_uri, stage)
        assert state.blocks_reused == (0 if stage == "render" else state.blocks_total)


def test_units_read_nothing_that_their_keys_do_not_name(runs_of_both):
    _, run_uri = runs_of_both
    owner, run = owners(run_uri), load(run_uri)
    phases = list(noted_phases("render", run, Journal()))
    assert [phase.name for phase in phases] == ["grey", "common", "shards"]
    for phase in phases:
        work = Work.of("render", phase, run)
        for unit in (phase.units[0], phase.units[-1]):
            declared = list(phase.inputs(unit, run_uri=run_uri))
            found = reads(unit, work)
            assert [path for path in found if not is_declared(path, declared, owner)] == []


def test_no_tissue_is_missing_and_sections_are_alike(runs_of_both):
    before, after = (open_array(uri, f"{render.PATH}/0")[:] for uri in runs_of_both)
    (blank,) = inputs.missing(runs_of_both[1])
    assert not before[blank].any()
    middle = np.s_[150:250, 150:250]
    assert (after[(slice(None), *middle)] > 0).all()
    there = [z for z in range(len(after)) if z != blank]

    def spread(volume):
        return np.ptp([np.median(volume[z][volume[z] > 0]) for z in there])

    assert spread(after) < 0.5 * spread(before)
