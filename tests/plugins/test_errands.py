"""Errands against the real ledger and a real Dask cluster; what they do is a stand-in."""

import asyncio
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)

import alignment.errands.drive
from petalign_airflow.errands import ErrandOperator, ErrandTrigger
from petalign_airflow.retries import ClusterLost, StorageFailed
from petalign_airflow.upkeep import IngestOperator, VerifyOperator
from storage import ledger
from storage.ledger import StageState
from storage.store import replace_json

CHECKED = {"runs": ["a"], "objects": 7, "bytes": 9, "full": True, "problems": []}
SOUND = {"checked": CHECKED, "mended": None, "after": None}
DAMAGED = {
    "checked": CHECKED | {"problems": ["digest: runs/a/x", "missing: runs/a/y"]},
    "mended": {"units": ["render/shards/s1"], "failed": ["match/pairs/p: no source"]},
    "after": CHECKED | {"problems": ["missing: runs/a/y"]},
}
QUICK = {"poll_s": 0.05, "silent_after_s": 60, "linger_s": 0}


@pytest.fixture
def volume(tmp_path, connect, scheduler_address, monkeypatch):
    connect(scheduler_address, allowed_uris=[tmp_path.as_uri()])
    monkeypatch.setenv("AIRFLOW_VAR_PETALIGN_NIGHTLY", "{}")
    return f"{tmp_path.as_uri()}/out"


@pytest.fixture
def drivers(monkeypatch):
    """Let a stand-in do the errands; return its calls, and what it leaves."""
    left = SimpleNamespace(calls=[], found=SOUND, state=StageState("", "done"))

    def run(errand: str, volume: str, arguments: dict) -> None:
        left.calls.append((errand, volume, arguments))
        if left.found is not None:
            replace_json(f"{volume}/errands/{errand}.json", left.found)
        if left.state is not None:
            state = replace(left.state, stage=errand, heartbeat=time.time())
            ledger.write_state(f"{volume}/errands", state)

    monkeypatch.setattr(alignment.errands.drive, "run", run)
    return left


@pytest.fixture
def told(monkeypatch):
    """Return what goes to the task's log; Airflow's own loggers do not reach pytest."""
    lines = []
    log = SimpleNamespace(
        **dict.fromkeys(("info", "warning", "error"), lambda text, *args: lines.append(text % args))
    )
    for owner in (ErrandOperator, ErrandTrigger):
        monkeypatch.setattr(owner, "log", log, raising=False)
    return lines


def context(params, **values):
    ti = SimpleNamespace(id="0190", try_number=1)
    run = SimpleNamespace(run_type="manual")
    return {"params": params, "ti": ti, "dag_run": run, "outlet_events": {}} | values


def do(task, params, **values):
    """Do what Airflow does: execute, wait for the trigger elsewhere, resume; again if it defers."""
    method, kwargs = task.execute, {}
    while True:
        try:
            return method(context(params, **values), **kwargs)
        except TaskDeferred as deferred:
            name, arguments = deferred.trigger.serialize()
            assert name == "petalign_airflow.errands.ErrandTrigger"
            event = asyncio.run(event_of(ErrandTrigger(**arguments)))
            method = getattr(task, deferred.method_name)
            kwargs = {"event": event} | deferred.kwargs


async def event_of(trigger):
    return (await asyncio.wait_for(anext(trigger.run()), 60)).payload


def verify(volume, params=None, **settings):
    task = VerifyOperator(task_id="verify", **(QUICK | settings))
    return do(task, {"volume": volume, "full": True} | (params or {}))


@pytest.mark.parametrize("linger_s", [0, 30])
def test_a_sound_volume_gives_counts(volume, drivers, linger_s):
    found = verify(volume, linger_s=linger_s)
    assert found == {"objects": 7, "bytes": 9, "damaged": 0, "mended_units": 0}
    arguments = {"volume": volume, "full": True, "every_run": None, "repair": None}
    assert drivers.calls == [("verify", volume, arguments)]


def test_damage_is_red_without_retries_and_every_object_is_in_the_log(volume, drivers, told):
    drivers.found = DAMAGED
    drivers.state = StageState("", "failed", error="2 damaged objects", error_kind="data")
    with pytest.raises(AirflowFailException, match="2 damaged"):
        verify(volume)
    for words in (*DAMAGED["checked"]["problems"], "render/shards/s1", "no source", "verify.json"):
        assert any(words in line for line in told)


def test_a_store_that_is_down_is_worth_a_retry(volume, drivers):
    drivers.state = StageState("", "failed", error="503", error_kind="storage")
    with pytest.raises(StorageFailed, match="503"):
        verify(volume)


def test_every_run_of_the_task_begins_anew(volume, drivers):
    verify(volume)
    verify(volume)
    assert len(drivers.calls) == 2


def test_an_errand_that_is_under_way_is_watched_not_doubled(volume, drivers):
    place = f"{volume}/errands"
    assert ledger.claim(place, "verify", silent_after_s=60)  # by the task's first attempt
    task = VerifyOperator(task_id="verify", **QUICK)
    with pytest.raises(TaskDeferred):
        task.execute(context({"volume": volume}))
    replace_json(f"{place}/verify.json", SOUND)
    event = {"status": "done", "error": None, "error_kind": None}
    assert task.resume(context({}), event, place)["objects"] == 7
    assert drivers.calls == []


def test_a_task_that_is_killed_while_it_waits_stops_what_it_started_and_nothing_else(
    volume, drivers
):
    place = f"{volume}/errands"
    drivers.state = StageState("", "running")
    task = VerifyOperator(task_id="verify", **QUICK)
    with pytest.raises(TaskDeferred):
        task.execute(context({"volume": volume}))
    other = VerifyOperator(task_id="verify", **QUICK)
    other.on_kill()
    assert not ledger.read_state(place, "verify").is_settled
    task.on_kill()
    state = ledger.read_state(place, "verify")
    assert state.error == "its task was killed in Airflow"
    with pytest.raises(AirflowException, match="its task was killed"):
        task.resume(context({}), asdict(state), place)  # which forgets the driver


def test_a_driver_that_dies_without_a_word_is_reported_with_what_dask_knows(volume, monkeypatch):
    def die(errand, volume, arguments):
        raise MemoryError("cannot allocate 90 TiB")

    monkeypatch.setattr(alignment.errands.drive, "run", die)
    with pytest.raises(ClusterLost, match=r"does not report \(MemoryError: cannot allocate"):
        verify(volume, silent_after_s=0.5)


def test_a_cluster_that_is_down_gives_the_claim_back(volume, connect, tmp_path):
    connect("127.0.0.1:1", connect_timeout=0.3, allowed_uris=[tmp_path.as_uri()])
    with pytest.raises(AirflowException, match="no Dask scheduler answers"):
        verify(volume)
    assert ledger.claim(f"{volume}/errands", "verify", silent_after_s=60)


def test_progress_is_told_while_it_waits(volume, told):
    place = f"{volume}/errands"
    state = StageState("verify", "running", "checking", 3, 9, heartbeat=1.0)
    ledger.write_state(place, state)

    async def look() -> None:
        waiting = asyncio.ensure_future(
            event_of(ErrandTrigger(place, "verify", 0.02, 60, "dask_default"))
        )
        while "verify: checking: 3 of 9" not in told:
            await asyncio.sleep(0.02)
        ledger.write_state(place, replace(state, heartbeat=2.0))
        await asyncio.sleep(0.2)
        assert told.count("verify: checking: 3 of 9") == 1, "what has not changed is no news"
        ledger.write_state(place, replace(state, status="done"))
        assert (await waiting)["status"] == "done"

    asyncio.run(asyncio.wait_for(look(), 30))


def test_progress_is_told_before_it_is_deferred_too(volume, told, monkeypatch):
    def run(errand, volume, arguments):
        state = StageState("verify", "running", "checking", 3, 9, heartbeat=1.0)
        ledger.write_state(f"{volume}/errands", state)
        deadline = time.monotonic() + 30
        while "verify: checking: 3 of 9" not in told and time.monotonic() < deadline:
            time.sleep(0.05)
        replace_json(f"{volume}/errands/verify.json", SOUND)
        ledger.write_state(f"{volume}/errands", replace(state, status="done"))

    monkeypatch.setattr(alignment.errands.drive, "run", run)
    verify(volume, linger_s=60)
    assert told.count("verify: checking: 3 of 9") == 1


# Ingest


def ingest(volume, **values):
    task = IngestOperator(task_id="ingest", outlets=list(values.get("outlet_events", ())), **QUICK)
    return do(task, {"incoming": f"{volume}-in", "source": volume, "pad": False}, **values)


def test_new_sections_update_the_asset(volume, drivers):
    drivers.found = {"new": ["a", "b"], "replaced": ["c"], "unchanged": 4, "sections": 9}
    asset, event = Asset("sections"), SimpleNamespace(extra=None)
    found = ingest(volume, outlet_events={asset: event})
    assert found == {"new": 2, "replaced": 1, "unchanged": 4, "sections": 9}
    assert event.extra == {"new": 2, "replaced": 1, "sections": 9}


def test_nothing_new_is_skipped_so_that_nothing_follows_on_it(volume, drivers):
    drivers.found = {"new": [], "replaced": [], "unchanged": 4, "sections": 9}
    with pytest.raises(AirflowSkipException, match="4 are known already"):
        ingest(volume)


def test_every_fault_is_in_the_log(volume, drivers, told):
    drivers.found = {"faults": ["z1.tif: 16 bit", "z2.tif: 5 x 5 px"]}
    drivers.state = StageState("", "failed", error="2 faults", error_kind="data")
    with pytest.raises(AirflowFailException, match="2 faults"):
        ingest(volume)
    assert {"refused: z1.tif: 16 bit", "refused: z2.tif: 5 x 5 px"} <= set(told)
