"""Same inputs, same run, same voxels: after an interruption, in other blocks, a second time."""

import os
import signal

import pytest

from alignment.blockwise import local_client
from alignment.runs import load, prepare
from alignment.stages import ORDER, run_stage, runner, work
from storage import ledger
from storage.commit import records

from .conftest import CONFIG


def digests(run_uri):
    """Everything that the units recorded, but for the report, which holds times."""
    found = {}
    for stage in ORDER:
        for phase in runner.import_module(f"alignment.stages.{stage}").phases(load(run_uri)):
            found[stage, phase.name] = records.read_records(run_uri, stage, phase.name)
    return found


def test_the_same_request_is_the_same_run_and_another_setting_is_another(phantom, tmp_path):
    volume = tmp_path.as_uri()
    first = prepare(phantom, volume, CONFIG)
    assert prepare(phantom, volume, CONFIG) == first
    assert prepare(phantom, volume, {**CONFIG, "relax": {"stiffness": 2.0}}) != first


@pytest.mark.slow
def test_a_killed_worker_does_not_change_a_voxel(phantom, aligned_run, tmp_path):
    run_uri = prepare(phantom, tmp_path.as_uri(), CONFIG)
    killed = []
    with local_client(2) as client:

        def kill_once(state):
            if state.blocks_done >= 2 and not killed:
                killed.append(min(client.run(os.getpid).values()))
                os.kill(killed[0], signal.SIGKILL)

        for stage in ORDER:
            run_stage(stage, run_uri, client, tell=kill_once if stage == "match" else None)
    assert killed
    assert digests(run_uri) == digests(aligned_run)


@pytest.mark.parametrize("stage", ["ingest", "match", "render"])
def test_a_finished_stage_does_nothing_when_it_runs_again(aligned_run, cluster, stage, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a unit was done twice")

    monkeypatch.setattr(work.Work, "__call__", refuse)
    before = ledger.read_state(aligned_run, stage).blocks_done
    assert run_stage(stage, aligned_run, cluster) == before


def test_what_units_took_is_in_the_ledger_and_in_no_record(aligned_run):
    state = ledger.read_state(aligned_run, "match")
    assert state.busy_s > 0
    assert state.peak_bytes > 50e6
    told = {name for record in digests(aligned_run)["match", "round0"].values() for name in record}
    assert not told & {work.BUSY_S, work.PEAK_BYTES, work.REUSED}
