"""Operators against the real ledger and a real Dask cluster; only the stages are stand-ins."""

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

import alignment.runs
import alignment.stages
from alignment.config import parse_config
from alignment.errors import ConfigError
from petalign_airflow.drivers import driver_name
from petalign_airflow.hooks import DaskHook
from petalign_airflow.operators import PrepareRunOperator, RunStageOperator
from petalign_airflow.params import run_params
from petalign_airflow.triggers import StageTrigger
from storage import ledger
from storage.errors import SourceError, UnavailableError
from storage.ledger import StageState


@pytest.fixture
def volume(tmp_path, connect, scheduler_address):
    volume = f"file://{tmp_path}/out.zarr"
    connect(scheduler_address, allowed_uris=[f"file://{tmp_path}"])
    return volume


@pytest.fixture
def run_uri(volume):
    return f"{volume}/runs/0123"


@pytest.fixture
def drivers(monkeypatch):
    """Let a stand-in drive the stages; return the list of its calls and the state it will leave."""
    left = SimpleNamespace(calls=[], state=StageState("", "done", blocks_done=5, blocks_total=5))

    def run(stage: str, run_uri: str) -> None:
        left.calls.append((stage, run_uri))
        if left.state is not None:
            ledger.write_state(run_uri, replace(left.state, stage=stage, heartbeat=time.time()))

    monkeypatch.setattr(alignment.stages, "run", run)
    return left


def context(**values: object) -> dict:
    ti = SimpleNamespace(id="0190", try_number=1)
    return {"ti": ti, "outlet_events": {}} | values


def operator(run_uri: str, *, stage: str = "match", **kwargs: object) -> RunStageOperator:
    settings = {"poll_s": 0.05, "silent_after_s": 60, "linger_s": 0} | kwargs
    return RunStageOperator(task_id=stage, stage=stage, run_uri=run_uri, **settings)


def run(task: RunStageOperator, **values: object) -> int:
    """Do what Airflow does: execute, wait for the trigger elsewhere, resume; again if it defers."""
    method, kwargs = task.execute, {}
    while True:
        try:
            return method(context(**values), **kwargs)
        except TaskDeferred as deferred:
            _, arguments = deferred.trigger.serialize()
            payload = asyncio.run(event_of(StageTrigger(**arguments)))
            method, kwargs = getattr(task, deferred.method_name), {"event": payload}


async def event_of(trigger: StageTrigger) -> dict:
    event = await asyncio.wait_for(anext(trigger.run()), 60)
    return event.payload


def test_a_stage_is_started_on_the_cluster_and_its_blocks_are_counted(run_uri, drivers):
    assert run(operator(run_uri)) == 5
    assert drivers.calls == [("match", run_uri)]


def test_a_short_stage_is_not_deferred(run_uri, drivers):
    assert operator(run_uri, linger_s=30).execute(context()) == 5


def test_a_stage_that_is_done_is_not_started_again(run_uri, drivers):
    run(operator(run_uri))
    assert run(operator(run_uri)) == 5
    assert len(drivers.calls) == 1


def test_a_driver_that_is_alive_is_watched_not_doubled(run_uri, drivers):
    assert ledger.claim(run_uri, "match", silent_after_s=60)  # by somebody else
    with pytest.raises(TaskDeferred):
        operator(run_uri).execute(context())
    ledger.write_state(run_uri, StageState("match", "done", blocks_done=2, blocks_total=2))
    assert run(operator(run_uri)) == 2  # by its retry
    assert drivers.calls == []


def test_the_scheduler_forgets_the_driver_of_a_finished_stage(run_uri, drivers):
    run(operator(run_uri))
    assert DaskHook().look_up(driver_name(run_uri, "match")).status == "unknown"


@pytest.mark.parametrize(
    ("kind", "error", "advice"),
    [
        ("config", AirflowFailException, "trigger a new run"),
        ("data", AirflowFailException, "trigger a new run"),
        ("storage", AirflowException, "Clear this task"),
        ("other", AirflowException, "Clear this task"),
    ],
)
def test_a_failed_stage_speaks_for_itself_and_its_kind_decides_on_retries(
    run_uri, drivers, kind, error, advice
):
    drivers.state = StageState(
        "", "failed", blocks_done=3, blocks_total=9, error="z000004: blank", error_kind=kind
    )
    message = f"stage 'match' stopped after 3 of 9 blocks: z000004: blank.*{advice}"
    with pytest.raises(AirflowException, match=message) as failure:
        run(operator(run_uri))
    assert type(failure.value) is error


def test_a_retry_starts_a_new_driver_that_goes_on(run_uri, drivers):
    drivers.state = StageState("", "failed", error="lost", error_kind="other")
    with pytest.raises(AirflowException, match="lost"):
        run(operator(run_uri))
    drivers.state = StageState("", "done", blocks_done=9, blocks_total=9)
    assert run(operator(run_uri), ti=SimpleNamespace(id="0191", try_number=2)) == 9
    assert len(drivers.calls) == 2


def test_a_driver_that_dies_without_a_word_is_reported_with_what_dask_knows(run_uri, monkeypatch):
    def run_and_die(stage, run_uri):
        raise MemoryError("cannot allocate 90 TiB")

    monkeypatch.setattr(alignment.stages, "run", run_and_die)
    with pytest.raises(
        AirflowException, match=r"does not report \(MemoryError: cannot allocate 90 TiB\)"
    ):
        run(operator(run_uri, silent_after_s=0.5))


def test_a_retry_after_silence_starts_a_new_driver(run_uri, drivers):
    drivers.state = None
    with pytest.raises(AirflowException, match="ended without settling its stage"):
        run(operator(run_uri, silent_after_s=0.5))
    drivers.state = StageState("", "done", blocks_done=1, blocks_total=1)
    assert run(operator(run_uri, silent_after_s=0.5), ti=SimpleNamespace(id="1", try_number=2)) == 1


def test_a_driver_that_cannot_even_begin_is_reported_without_waiting_for_silence(
    run_uri, monkeypatch
):
    monkeypatch.setattr("petalign_airflow.operators.DRIVER", "alignment.stages:fly")
    with pytest.raises(AirflowException, match=r"does not report \(AttributeError: .*'fly'"):
        operator(run_uri, linger_s=1).execute(context())
    assert ledger.claim(run_uri, "match", silent_after_s=60), "a retry need not wait either"


def test_killing_the_process_stops_the_driver_that_it_has_just_started(run_uri, drivers):
    drivers.state = None
    task = operator(run_uri)
    with pytest.raises(TaskDeferred):
        task.execute(context())
    task.on_kill()
    assert ledger.read_state(run_uri, "match").status == "failed"


def test_killing_a_process_that_only_watches_stops_nothing(run_uri, drivers):
    assert ledger.claim(run_uri, "match", silent_after_s=60)  # by somebody else
    task = operator(run_uri)
    with pytest.raises(TaskDeferred):
        task.execute(context())
    task.on_kill()
    assert ledger.read_state(run_uri, "match").status == "running"


def test_a_driver_that_waits_for_a_worker_is_waited_for(run_uri, drivers, monkeypatch):
    answers = []

    def look_up(self, name):
        answers.append(name)
        if len(answers) == 2:
            ledger.write_state(run_uri, StageState("match", "done", blocks_done=7, blocks_total=7))
        return SimpleNamespace(status="waiting", words="none of the 0 workers has taken it yet")

    drivers.state = None
    monkeypatch.setattr(DaskHook, "look_up", look_up)
    assert run(operator(run_uri, silent_after_s=0.3)) == 7
    assert len(answers) == 2


def test_a_cluster_that_is_down_fails_the_task_and_gives_the_claim_back(run_uri, connect, tmp_path):
    connect("127.0.0.1:1", connect_timeout=0.3, allowed_uris=[f"file://{tmp_path}"])
    with pytest.raises(AirflowException, match="no Dask scheduler answers"):
        operator(run_uri).execute(context())
    state = ledger.read_state(run_uri, "match")
    assert (state.status, state.error_kind) == ("failed", "other")
    assert ledger.claim(run_uri, "match", silent_after_s=60)


def test_a_run_outside_the_allowed_places_is_not_touched(tmp_path, volume, drivers):
    with pytest.raises(AirflowFailException, match="refused"):
        operator(f"file://{tmp_path}-2/runs/0123").execute(context())
    assert drivers.calls == []


def test_the_assets_of_a_stage_carry_the_uri_of_the_run(run_uri, drivers):
    from airflow.sdk import Asset

    asset, event = Asset("aligned"), SimpleNamespace(extra=None)
    task = operator(run_uri, stage="publish", outlets=[asset])
    run(task, outlet_events={asset: event})
    assert event.extra == {"run_uri": run_uri}


# prepare


@pytest.fixture
def prepared(monkeypatch):
    """Let a stand-in prepare runs; return the list of its calls."""
    calls = []

    def prepare(source: str, volume: str, config: dict) -> str:
        calls.append((source, volume, config))
        return f"{volume}/runs/0123"

    monkeypatch.setattr(alignment.runs, "prepare", prepare)
    return calls


def parameters(volume: str, changes: dict | None = None) -> dict:
    defaults = {name: param.value for name, param in run_params().items()}
    source = volume.replace("out.zarr", "raw.zarr")
    return defaults | {"source": source, "volume": volume} | (changes or {})


def prepare(params: dict) -> str:
    return PrepareRunOperator(task_id="prepare").execute(context(params=params))


def test_preparing_hands_the_validated_configuration_to_the_cluster(volume, prepared):
    params = parameters(volume, {"match.neighbours": 3})
    assert prepare(params) == f"{volume}/runs/0123"
    ((source, target, config),) = prepared
    assert (source, target) == (params["source"], volume)
    assert parse_config(config).match.neighbours == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"match.neighbors": 3}, "match.neighbors: no such parameter; did you mean"),
        ({"match": {"neighbours": 3}}, "match: no such parameter"),
        ({"match.neighbours": 99}, "match.neighbours: .*less than or equal to 8; got 99"),
        ({"features.mip": 2}, "lower features.mip"),
        ({"source": "http://169.254.169.254/latest"}, "'http://169.254.169.254/latest' is refused"),
        ({"source": "file:///etc"}, "'file:///etc' is refused: allowed are"),
        ({"volume": "s3://other/out"}, "'s3://other/out' is refused"),
        ({"volume": "file:///tmp/{{ run_id }}"}, "is refused"),
    ],
)
def test_nothing_is_written_before_everything_is_allowed(
    volume, prepared, tmp_path, changes, message
):
    with pytest.raises(AirflowFailException, match=message):
        prepare(parameters(volume, changes))
    assert prepared == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ConfigError("too fine"), SourceError("no sections")])
def test_what_a_retry_would_only_repeat_is_not_retried(volume, monkeypatch, error):
    def prepare_badly(*_):
        raise error

    monkeypatch.setattr(alignment.runs, "prepare", prepare_badly)
    with pytest.raises(AirflowFailException, match=str(error)):
        prepare(parameters(volume))


def test_a_store_that_is_down_is_worth_a_retry(volume, monkeypatch):
    def prepare_later(*_):
        raise UnavailableError("503 from s3")

    monkeypatch.setattr(alignment.runs, "prepare", prepare_later)
    with pytest.raises(UnavailableError, match="503 from s3"):
        prepare(parameters(volume))
