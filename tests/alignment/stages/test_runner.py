"""The runner with a stage of its own making: what is done once, kept, counted, and told."""

import threading
import time
from functools import partial
from types import SimpleNamespace

import pytest
from distributed import Client

from alignment.config import PipelineConfig
from alignment.driving import progress
from alignment.errors import ConfigError, DataError, StageFailed
from alignment.stages import runner
from alignment.stages.runner import run_stage
from alignment.stages.units import Phase, Section
from storage import ledger
from storage.commit import records
from storage.errors import StorageError
from storage.store import join, read_json, replace_json


@pytest.fixture(scope="module")
def client():
    with Client(
        processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as client:
        yield client


@pytest.fixture
def run_uri(tmp_path, monkeypatch):
    uri = tmp_path.as_uri()
    run = SimpleNamespace(uri=uri, volume_uri=uri, key="a", config=PipelineConfig())
    monkeypatch.setattr(runner, "load", lambda _: run)
    return uri


def install(monkeypatch, *phases):
    stage = SimpleNamespace(phases=lambda run: iter(phases))
    monkeypatch.setattr(runner, "import_module", lambda name: stage)


def count_calls(unit, *, run_uri, fail_on=(), error=ValueError):
    attempts = join(run_uri, "calls", unit.label)
    replace_json(attempts, {"calls": calls(run_uri, unit) + 1})
    if unit.z in fail_on:
        raise error(f"section {unit.z} is bad")
    return {"z": unit.z, "bytes_written": 10}


def calls(run_uri, unit):
    try:
        return read_json(join(run_uri, "calls", unit.label))["calls"]
    except FileNotFoundError:
        return 0


def test_every_unit_runs_once_and_a_second_run_does_nothing(run_uri, client, monkeypatch):
    units = [Section(z) for z in range(5)]
    install(monkeypatch, Phase("one", units, count_calls), Phase("two", units[:1], count_calls))
    told = []
    assert run_stage("masks", run_uri, client, tell=told.append) == 6
    assert run_stage("masks", run_uri, client) == 6
    assert [calls(run_uri, unit) for unit in units] == [2, 1, 1, 1, 1]  # unit 0 is in both phases
    state = ledger.read_state(run_uri, "masks")
    assert (state.status, state.blocks_done, state.blocks_total) == ("done", 6, 6)
    assert state.bytes_written == 60
    assert [s.blocks_done for s in told] == sorted(s.blocks_done for s in told)
    assert told[-1].status == "done"


def test_a_failing_unit_does_not_stop_the_others_and_only_it_runs_again(
    run_uri, client, monkeypatch
):
    units = [Section(z) for z in range(4)]
    broken = partial(count_calls, fail_on={2}, error=DataError)
    after = Phase("after", units, count_calls)
    install(monkeypatch, Phase("one", units, broken), after)
    with pytest.raises(StageFailed, match="z000002: DataError: section 2 is bad"):
        run_stage("masks", run_uri, client)
    state = ledger.read_state(run_uri, "masks")
    assert (state.status, state.error_kind, state.blocks_done) == ("failed", "data", 3)
    assert "1 of 4 units failed" in state.error
    assert records.recorded(run_uri, "masks", "after") == set()

    install(monkeypatch, Phase("one", units, count_calls), after)
    assert run_stage("masks", run_uri, client) == 8
    assert ledger.read_state(run_uri, "masks").error is None
    assert [calls(run_uri, unit) for unit in units] == [2, 2, 3, 2]


def test_a_phase_that_is_always_done_is_done_again(run_uri, client, monkeypatch):
    install(monkeypatch, Phase("pointer", [Section(0)], count_calls, always=True))
    run_stage("publish", run_uri, client)
    run_stage("publish", run_uri, client)
    assert calls(run_uri, Section(0)) == 2


def test_a_unit_whose_answer_changes_is_a_fault_and_not_overwritten(run_uri, client, monkeypatch):
    records.record(run_uri, "masks", "one", "z000000", {"z": 99})
    install(monkeypatch, Phase("one", [Section(0)], count_calls, always=True))
    with pytest.raises(StageFailed, match="ConflictError"):
        run_stage("masks", run_uri, client)
    assert records.read_records(run_uri, "masks", "one") == {"z000000": {"z": 99}}


def test_an_unknown_stage_is_a_setting_that_is_wrong(run_uri, client):
    with pytest.raises(ConfigError, match=r"no stage 'mask'; there are ingest, masks"):
        run_stage("mask", run_uri, client)


def test_the_ledger_hears_of_the_driver_while_a_unit_takes_long(run_uri, client, monkeypatch):
    monkeypatch.setattr(progress, "HEARTBEAT_S", 0.05)
    install(monkeypatch, Phase("one", [Section(0)], _slow))
    thread = threading.Thread(target=run_stage, args=("masks", run_uri, client))
    thread.start()
    beats = set()
    while thread.is_alive():
        beats.add(ledger.read_state(run_uri, "masks").heartbeat)
        time.sleep(0.02)
    thread.join()
    assert len(beats) > 4


def _slow(unit, *, run_uri):
    time.sleep(0.6)
    return {}


def test_a_driver_whose_stage_was_settled_by_another_stops_and_leaves_the_verdict(
    run_uri, client, monkeypatch
):
    monkeypatch.setattr(progress, "HEARTBEAT_S", 0.05)
    units = [Section(z) for z in range(20)]
    install(monkeypatch, Phase("one", units, _slow))

    def mark_failed(state):
        if state.blocks_done and state.status == "running":
            marked = ledger.StageState("masks", "failed", error="marked by a user")
            ledger.write_state(run_uri, marked)

    with pytest.raises(StageFailed, match="stopped from outside"):
        run_stage("masks", run_uri, client, tell=mark_failed)
    assert ledger.read_state(run_uri, "masks").error == "marked by a user"
    assert len(records.recorded(run_uri, "masks", "one")) < 10


def test_a_heartbeat_that_cannot_be_written_is_not_the_last(run_uri, client, monkeypatch):
    monkeypatch.setattr(progress, "HEARTBEAT_S", 0.05)
    failures = iter([StorageError("the server is away")] * 3)
    report = ledger.Lease.report

    def flaky(lease, state):
        if threading.current_thread() is not threading.main_thread():
            for error in failures:
                raise error
        report(lease, state)

    monkeypatch.setattr(ledger.Lease, "report", flaky)
    install(monkeypatch, Phase("one", [Section(0)], _slow))
    assert run_stage("masks", run_uri, client) == 1
    assert next(failures, None) is None
