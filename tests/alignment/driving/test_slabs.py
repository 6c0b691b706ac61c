"""Slabs of a stage of its own making: who finishes it, and what a dead driver leaves behind."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from distributed import Client

from alignment.config import PipelineConfig
from alignment.driving import slabdriver
from alignment.driving.slabdriver import drive_slab
from alignment.driving.slabs import state_name
from alignment.driving.states import stage_states
from alignment.errors import DataError, StageFailed
from alignment.runs import Run
from alignment.stages import runner
from alignment.stages.runner import run_stage
from alignment.stages.units import Phase, Section, Whole
from storage import ledger
from storage.commit import manifest, records
from storage.store import join, replace_json

SLABS = ("0-3", "4-7", "8-9")
CONFIG = {"slab_sections": 3, "aligned_shard": (2, 64, 64), "aligned_chunk": (2, 32, 32)}


@pytest.fixture(scope="module")
def client():
    with Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0"
    ) as client:
        yield client


def new_run(folder) -> Run:
    uri = folder.as_uri()
    config = PipelineConfig.model_validate({"volume": CONFIG})
    return Run(uri, uri, "a", "", (10, 8, 8), (1.0, 1.0, 1.0), (), config, {})


@pytest.fixture
def run_uri(tmp_path, monkeypatch):
    loaded = {}

    def load(uri):
        return loaded.setdefault(uri, replace(new_run(tmp_path), uri=uri, volume_uri=uri))

    monkeypatch.setattr(runner, "load", load)
    monkeypatch.setattr(slabdriver, "load", load)
    monkeypatch.setattr(runner, "import_module", lambda name: SimpleNamespace(phases=phases))
    return join(tmp_path.as_uri(), "run")


def phases(run):
    units = [Section(z) for z in range(run.shape[0]) if run.owns(z)]
    yield Phase("one", units, do, local=True)
    # What a slab may read of this stage is what it did itself.
    there = records.read_records(run.uri, "masks", "one", [unit.label for unit in units])
    yield Phase("two", [Section(record["z"]) for record in there.values()], do, local=True)
    if run.slab is not None:
        return
    yield Phase("sum", [Whole()], add)


def do(unit, *, run_uri):
    replace_json(join(run_uri, "calls", f"{unit.label}-{threading.get_ident()}"), {})
    return {"z": unit.z, "bytes_written": 10}


def add(_, *, run_uri):
    return {"sum": sum(r["z"] for r in records.read_records(run_uri, "masks", "two").values())}


def sealed(run_uri):
    return manifest.read_seal(run_uri, "masks").root


@pytest.fixture
def at_once(run_uri, client):
    """The root of the same stage, done by one driver."""
    run_stage("masks", run_uri + "-whole", client)
    return sealed(run_uri + "-whole")


def state(run_uri, label="all"):
    return ledger.read_state(run_uri, state_name("masks", label))


def test_the_last_slab_finishes_the_stage_with_the_records_of_one_driver(run_uri, client, at_once):
    for label in SLABS:
        assert state(run_uri).status == "waiting"
        done = drive_slab("masks", run_uri, label, client)
        assert done == 2 * len(range(*slabdriver.Slab.parse(label)))
        assert state(run_uri, label).status == "done"
    assert state(run_uri).finisher == "masks.z000008"
    assert (state(run_uri).status, state(run_uri).blocks_done) == ("done", 21)
    assert sealed(run_uri) == at_once
    assert records.read_records(run_uri, "masks", "sum") == {"all": {"sum": 45}}


def test_of_two_that_end_at_the_same_moment_one_finishes(run_uri, client, at_once, monkeypatch):
    drive_slab("masks", run_uri, "8-9", client)
    looked, finished = threading.Barrier(2), []
    look, finish = slabdriver._are_all_done, slabdriver._finish

    def look_together(run, stage):
        looked.wait(30)  # both have said that their units are done
        found = look(run, stage)
        looked.wait(30)  # and neither has claimed the stage
        return found

    def note(*args, **kwargs):
        finished.append(args)
        finish(*args, **kwargs)

    monkeypatch.setattr(slabdriver, "_are_all_done", look_together)
    monkeypatch.setattr(slabdriver, "_finish", note)
    drivers = [
        threading.Thread(target=drive_slab, args=("masks", run_uri, label, client))
        for label in ("0-3", "4-7")
    ]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert len(finished) == 1
    assert [state(run_uri, label).status for label in ("all", *SLABS)] == ["done"] * 4
    assert sealed(run_uri) == at_once


class Killed(BaseException):
    """What no driver handles."""


def test_a_driver_killed_before_it_looked_leaves_the_stage_to_its_next_attempt(
    run_uri, client, at_once, monkeypatch
):
    for label in SLABS[:2]:
        drive_slab("masks", run_uri, label, client)

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(slabdriver, "_are_all_done", die)
        with pytest.raises(Killed):
            drive_slab("masks", run_uri, "8-9", client)
    assert (state(run_uri, "8-9").status, state(run_uri).status) == ("running", "waiting")
    drive_slab("masks", run_uri, "8-9", client)
    assert sealed(run_uri) == at_once


def test_a_driver_killed_while_it_finishes_the_stage_is_followed_by_its_next_attempt(
    run_uri, client, at_once, monkeypatch
):
    for label in SLABS[:2]:
        drive_slab("masks", run_uri, label, client)

    def die(*_args, **_kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(slabdriver, "_finish", die)
        with pytest.raises(Killed):
            drive_slab("masks", run_uri, "8-9", client)
    # The others' tasks do not see to it: they do nothing, and the stage stays unsealed.
    drive_slab("masks", run_uri, "0-3", client)
    assert state(run_uri).status == "running"
    drive_slab("masks", run_uri, "8-9", client)
    assert state(run_uri).status == "done"
    assert sealed(run_uri) == at_once


def test_what_fails_in_finishing_is_told_by_the_slab_and_tried_again(run_uri, client, monkeypatch):
    for label in SLABS[:2]:
        drive_slab("masks", run_uri, label, client)
    broken = SimpleNamespace(phases=lambda run: (replace(p, work=fail) for p in phases(run)))
    with monkeypatch.context() as patch:
        patch.setattr(runner, "import_module", lambda name: broken)
        with pytest.raises(StageFailed, match="DataError: no sum"):
            drive_slab("masks", run_uri, "8-9", client)
    failed = state(run_uri, "8-9")
    assert (failed.status, failed.error_kind, failed.units_done) == ("failed", "data", True)
    assert failed.error == state(run_uri).error
    drive_slab("masks", run_uri, "8-9", client)
    assert state(run_uri).status == "done"


def fail(unit, *, run_uri):
    if isinstance(unit, Whole):
        raise DataError("no sum")
    return do(unit, run_uri=run_uri)


def test_a_driver_of_the_whole_stage_is_waited_for(run_uri, client, monkeypatch):
    monkeypatch.setattr(slabdriver, "POLL_S", 0.05)
    assert ledger.claim(run_uri, "masks", silent_after_s=60)  # as `petalign resume` does
    for label in SLABS[:2]:
        drive_slab("masks", run_uri, label, client)
    last = threading.Thread(target=drive_slab, args=("masks", run_uri, "8-9", client))
    last.start()
    last.join(0.5)
    assert last.is_alive()
    run_stage("masks", run_uri, client)
    last.join(30)
    assert state(run_uri, "8-9").status == "done"
    assert state(run_uri).finisher == ""


def test_a_slab_that_is_too_much_for_a_driver_names_the_setting(run_uri, client, monkeypatch):
    monkeypatch.setattr(slabdriver, "MAX_UNITS", 3)
    with pytest.raises(StageFailed, match=r"has 4 units.*Lower volume.slab_sections=3"):
        drive_slab("masks", run_uri, "0-3", client)
    assert state(run_uri, "0-3").error_kind == "config"


@pytest.mark.parametrize("label", ["0-2", "8-11", "all", "-3"])
def test_only_slabs_of_the_volume_are_driven(run_uri, client, label):
    with pytest.raises(Exception, match="slab"):
        drive_slab("masks", run_uri, label, client)


def test_the_states_of_slabs_are_summed(run_uri, client):
    drive_slab("masks", run_uri, "0-3", client)
    found = {each.stage: each for each in stage_states(run_uri)}
    assert found["ingest"] == ledger.StageState("ingest")
    masks = found["masks"]
    assert (masks.status, masks.blocks_done, masks.bytes_written) == ("running", 8, 80)
    ledger.write_state(run_uri, replace(state(run_uri, "0-3"), status="failed", error="lost"))
    failed = {each.stage: each for each in stage_states(run_uri)}["masks"]
    assert (failed.status, failed.error) == ("failed", "lost")
    for label in SLABS:
        drive_slab("masks", run_uri, label, client)
    masks = {each.stage: each for each in stage_states(run_uri)}["masks"]
    assert (masks.status, masks.blocks_done, masks.blocks_total) == ("done", 21, 21)
    assert masks.bytes_written == 200
    assert masks.error is None
