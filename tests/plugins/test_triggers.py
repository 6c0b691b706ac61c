import asyncio
import time
from dataclasses import replace
from importlib import import_module

import pytest

from petalign_airflow import triggers
from petalign_airflow.hooks import DaskHook, Driver
from petalign_airflow.triggers import StageTrigger
from storage import ledger
from storage.errors import UnavailableError
from storage.ledger import StageState


@pytest.fixture
def run_uri(tmp_path):
    return f"file://{tmp_path}/out.zarr/runs/0123"


def trigger(run_uri: str, *, silent_after_s: float = 60.0) -> StageTrigger:
    return StageTrigger(run_uri, "match", 0.02, silent_after_s, "dask_default")


def first_event(trigger: StageTrigger) -> dict:
    async def wait() -> list[dict]:
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(asyncio.wait_for(wait(), 60))
    return payload


def test_it_is_rebuilt_elsewhere_from_what_it_serialises():
    values = ("s3://petalign/out/runs/1", "relax.z000064", 3.0, 77.0, "dask_gpu", "tls://a:1", 99.0)
    original = StageTrigger(*values)
    path, kwargs = original.serialize()
    module, _, name = path.rpartition(".")
    rebuilt = getattr(import_module(module), name)(**kwargs)
    assert rebuilt.serialize() == original.serialize()
    assert set(kwargs.values()) == set(values)


@pytest.mark.parametrize("status", ["done", "failed"])
def test_it_fires_once_with_the_state_of_a_settled_stage(run_uri, status):
    state = StageState("match", status, blocks_done=3, blocks_total=4, heartbeat=time.time())
    ledger.write_state(run_uri, state)
    assert StageState(**first_event(trigger(run_uri))) == state


def test_it_never_fires_at_once(run_uri):
    """Airflow may fail a task that is resumed before its scheduler saw the process end."""
    ledger.write_state(run_uri, StageState("match", "done"))
    began = time.monotonic()
    first_event(StageTrigger(run_uri, "match", 0.5, 60.0, "dask_default"))
    assert time.monotonic() - began >= 0.5


def test_it_waits_for_a_driver_that_reports_and_for_its_end(run_uri):
    state = StageState("match", "running", blocks_total=5)

    async def drive() -> None:
        for done in range(5):
            beat = replace(state, blocks_done=done, heartbeat=time.time())
            await asyncio.to_thread(ledger.write_state, run_uri, beat)
            await asyncio.sleep(0.8)
        ledger.write_state(run_uri, replace(state, status="done", blocks_done=5))

    async def both() -> dict:
        driver = asyncio.create_task(drive())
        # The stage takes longer than the patience with one heartbeat.
        event = await anext(trigger(run_uri, silent_after_s=3.0).run())
        await driver
        return event.payload

    assert asyncio.run(both())["blocks_done"] == 5


def test_a_driver_without_a_new_heartbeat_is_silent_whatever_its_clock_says(run_uri):
    tomorrow = time.time() + 86_400
    state = StageState("match", "running", blocks_done=2, blocks_total=9, heartbeat=tomorrow)
    ledger.write_state(run_uri, state)
    event = first_event(trigger(run_uri, silent_after_s=0.2))
    assert StageState(**event) == replace(state, status="silent")


@pytest.mark.parametrize(
    ("status", "fires"), [("gone", True), ("failed", True), ("waiting", False), ("unknown", False)]
)
def test_a_cluster_that_has_no_such_driver_ends_the_patience(run_uri, monkeypatch, status, fires):
    monkeypatch.setattr(triggers, "DOUBT_S", 0.1)
    monkeypatch.setattr(DaskHook, "look_up", lambda _, name: Driver(status, "says Dask"))
    ledger.write_state(run_uri, StageState("match", "running", heartbeat=1.0))
    began = time.monotonic()
    assert first_event(trigger(run_uri, silent_after_s=2.0))["status"] == "silent"
    assert (time.monotonic() - began < 2.0) is fires


def test_a_ledger_that_cannot_be_read_for_a_while_fails_nothing(run_uri, monkeypatch):
    answers = [UnavailableError("503"), OSError("reset"), StageState("match", "done")]

    def read_state(*_):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ledger, "read_state", read_state)
    assert first_event(trigger(run_uri))["status"] == "done"
    assert not answers


def test_the_ledger_is_read_outside_the_event_loop(run_uri, monkeypatch):
    async def longest_gap() -> float:
        gap, last = 0.0, time.monotonic()
        watcher = asyncio.create_task(anext(trigger(run_uri).run()))
        while not watcher.done():
            await asyncio.sleep(0.01)
            gap, last = max(gap, time.monotonic() - last), time.monotonic()
        return gap

    def slow(*_):
        time.sleep(1.5)
        return StageState("match", "done")

    monkeypatch.setattr(ledger, "read_state", slow)
    assert asyncio.run(longest_gap()) < 1.2


def test_a_user_who_kills_the_task_stops_the_stage(run_uri, connect):
    connect("127.0.0.1:1", connect_timeout=0.3)  # no scheduler: the ledger is what stops a driver
    ledger.write_state(run_uri, StageState("match", "running", blocks_done=2, heartbeat=1.0))
    asyncio.run(trigger(run_uri).on_kill())
    state = ledger.read_state(run_uri, "match")
    assert (state.status, state.error_kind, state.blocks_done) == ("failed", "other", 2)
    assert "a user marked or cleared" in state.error
    assert ledger.claim(run_uri, "match", silent_after_s=60), "a cleared task starts at once"


def test_killing_the_task_of_a_finished_stage_changes_nothing(run_uri, connect):
    connect("127.0.0.1:1", connect_timeout=0.3)
    done = StageState("match", "done", blocks_done=4, blocks_total=4)
    ledger.write_state(run_uri, done)
    asyncio.run(trigger(run_uri).on_kill())
    assert ledger.read_state(run_uri, "match") == done


def test_progress_is_an_event_once_in_a_while(run_uri):
    state = StageState("match", "running", blocks_total=5)
    ledger.write_state(run_uri, replace(state, blocks_done=1, heartbeat=1.0))
    events = []

    async def wait() -> None:
        patient = StageTrigger(run_uri, "match", 0.02, 60.0, "dask_default", "", 0.3)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(advance())
            events.append((await anext(patient.run())).payload)

    async def advance() -> None:
        await asyncio.sleep(0.5)  # without progress nothing is told
        await asyncio.to_thread(
            ledger.write_state, run_uri, replace(state, blocks_done=3, heartbeat=2.0)
        )

    asyncio.run(asyncio.wait_for(wait(), 60))
    assert [(event["status"], event["blocks_done"]) for event in events] == [("running", 3)]


def test_a_slab_is_done_when_its_stage_is(run_uri):
    """`petalign resume` does a stage whole, whatever its slabs' drivers said before."""
    ledger.write_state(run_uri, StageState("match.z000064", "running", heartbeat=1.0))
    ledger.write_state(run_uri, StageState("match", "done", blocks_done=9))
    event = first_event(StageTrigger(run_uri, "match.z000064", 0.02, 60.0, "dask_default"))
    assert (event["status"], event["blocks_done"]) == ("done", 9)


def test_killing_the_task_of_a_slab_stops_its_stage_only_if_its_driver_finishes_it(
    run_uri, connect
):
    connect("127.0.0.1:1", connect_timeout=0.3)
    for finisher, stopped in (("match.z000000", "running"), ("match.z000064", "failed")):
        ledger.write_state(run_uri, StageState("match", "running", finisher=finisher))
        ledger.write_state(run_uri, StageState("match.z000064", "running"))
        asyncio.run(StageTrigger(run_uri, "match.z000064", 1, 60.0, "dask_default").on_kill())
        assert ledger.read_state(run_uri, "match.z000064").status == "failed"
        assert ledger.read_state(run_uri, "match").status == stopped
