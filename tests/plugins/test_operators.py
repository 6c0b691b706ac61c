"""Operators against the real ledger and a real Dask cluster; only the stages are stand-ins."""

import asyncio
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

import alignment.runs
import alignment.stages
from alignment.config import parse_config
from alignment.driving import slabdriver
from alignment.errors import ConfigError, DataError
from petalign_airflow.drivers import driver_name
from petalign_airflow.hooks import DaskHook
from petalign_airflow.operators import PrepareRunOperator, RunStageOperator
from petalign_airflow.params import run_params
from petalign_airflow.retries import ClusterLost, StorageFailed, retry_policy, task_defaults
from petalign_airflow.triggers import StageTrigger
from storage import ledger
from storage.errors import MissingError, SourceError, UnavailableError
from storage.ledger import StageState
from storage.store import create_json


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
    assert DaskHook().look_up(driver_name(run_uri, "match")).status == "gone"


@pytest.mark.parametrize(
    ("kind", "error", "advice"),
    [
        ("config", AirflowFailException, "trigger a new run"),
        ("data", AirflowFailException, "trigger a new run"),
        ("storage", StorageFailed, "Clear this task"),
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
    monkeypatch.setattr("petalign_airflow.drivers.DRIVER", "alignment.stages:fly")
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


# slabs


@pytest.fixture
def slab_drivers(monkeypatch):
    """Let a stand-in drive slabs; return the list of its calls."""
    calls = []

    def run_slab(stage: str, run_uri: str, label: str) -> None:
        calls.append((stage, run_uri, label))
        name = slabdriver.state_name(stage, label)
        ledger.write_state(run_uri, StageState(name, "done", blocks_done=4, blocks_total=4))

    monkeypatch.setattr(slabdriver, "run_slab", run_slab)
    return calls


def test_a_slab_has_a_driver_and_a_state_of_its_own(run_uri, slab_drivers, drivers):
    assert run(operator(run_uri, sections="64-127")) == 4
    assert slab_drivers == [("match", run_uri, "64-127")]
    assert drivers.calls == []
    assert ledger.read_state(run_uri, "match").status == "waiting"
    assert DaskHook().look_up(driver_name(run_uri, "match.z000064")).status == "gone"


def test_a_slab_of_a_finished_stage_is_finished(run_uri, slab_drivers):
    ledger.write_state(run_uri, StageState("match", "done", blocks_done=9, blocks_total=9))
    assert run(operator(run_uri, sections="64-127")) == 9
    assert slab_drivers == []


@pytest.mark.parametrize(("whole", "again"), [("waiting", 1), ("failed", 1), ("running", 0)])
def test_a_finished_slab_is_driven_again_unless_somebody_finishes_its_stage(
    run_uri, slab_drivers, whole, again
):
    """As when a run was repaired, or the last driver was lost for good."""
    ledger.write_state(run_uri, StageState("match", whole, heartbeat=time.time()))
    done = StageState("match.z000064", "done", blocks_done=4, blocks_total=4)
    ledger.write_state(run_uri, done)
    assert run(operator(run_uri, sections="64-127")) == 4
    assert len(slab_drivers) == again


def test_a_failed_slab_names_its_sections(run_uri, slab_drivers, monkeypatch):
    def fail(stage, run_uri, label):
        state = StageState("match.z000064", "failed", error="503", error_kind="storage")
        ledger.write_state(run_uri, state)

    monkeypatch.setattr(slabdriver, "run_slab", fail)
    with pytest.raises(StorageFailed, match="sections 64-127 of stage 'match' stopped after 0"):
        run(operator(run_uri, sections="64-127"))


def test_progress_is_stored_while_the_task_runs_and_when_it_wakes(run_uri, drivers):
    stored = []
    store = SimpleNamespace(set=lambda key, value: stored.append((key, value)))
    task = operator(run_uri, progress_s=0.01)
    running = StageState("match", "running", "round1", 1, 4, seconds=9.0, heartbeat=time.time())
    ledger.write_state(run_uri, running)
    with pytest.raises(TaskDeferred):
        task.execute(context(task_state_store=store))
    ledger.write_state(run_uri, replace(running, blocks_done=3, heartbeat=time.time()))
    event = asdict(ledger.read_state(run_uri, "match"))
    with pytest.raises(TaskDeferred) as again:
        task.resume(context(task_state_store=store), event)
    assert [(key, told["done"], told["percent"]) for key, told in stored] == [
        ("progress", 1, 25.0),
        ("progress", 3, 75.0),
    ]
    assert stored[0][1]["phase"] == "round1"
    # A stage that takes long wakes its task less often.
    assert again.value.trigger.progress_s == pytest.approx(0.9, rel=0.01)


def test_a_store_that_cannot_be_written_fails_no_task(run_uri, drivers):
    def refuse(key, value):
        raise RuntimeError("503")

    store, ti = SimpleNamespace(set=refuse), SimpleNamespace(id="0192", try_number=1)
    assert operator(run_uri, linger_s=30).execute(context(task_state_store=store, ti=ti)) == 5


# retries


@pytest.mark.parametrize(
    ("error", "action", "delay_s"),
    [
        (ConfigError("x"), RetryAction.FAIL, None),
        (DataError("x"), RetryAction.FAIL, None),
        (SourceError("x"), RetryAction.FAIL, None),
        (MissingError("x"), RetryAction.RETRY, 30),  # a store may say so of what is there
        (UnavailableError("x"), RetryAction.RETRY, 30),
        (StorageFailed("x"), RetryAction.RETRY, 30),
        (ClusterLost("x"), RetryAction.RETRY, 10),
        (AirflowException("x"), RetryAction.DEFAULT, None),
    ],
)
def test_the_error_decides_whether_and_when_a_task_is_tried_again(error, action, delay_s):
    decision = retry_policy().evaluate(error, 1, 4)
    assert decision.action is action
    assert (decision.retry_delay and decision.retry_delay.total_seconds()) == delay_s


def test_tasks_use_the_pool_that_the_environment_names():
    assert task_defaults({"PETALIGN_POOL": "petalign"})["pool"] == "petalign"
    assert "pool" not in task_defaults({})


# prepare


def test_by_slab_it_returns_what_stages_are_mapped_over(volume, prepared):
    changes = {"volume.slab_sections": 40}
    task = PrepareRunOperator(task_id="prepare", by_slab=True)
    pushed = {}
    ti = SimpleNamespace(xcom_push=pushed.__setitem__)
    run_uri = f"{volume}/runs/0123"
    # 40 sections are rounded up to whole shards of 32.
    assert task.execute(context(params=parameters(volume, changes), ti=ti)) == [
        {"run_uri": run_uri, "sections": "0-63"},
        {"run_uri": run_uri, "sections": "64-99"},
    ]
    assert pushed == {"run_uri": run_uri}


def test_a_volume_of_one_slab_is_not_cut(volume, prepared):
    task = PrepareRunOperator(task_id="prepare", by_slab=True)
    params = parameters(volume, {"volume.slab_sections": 100})
    ti = SimpleNamespace(xcom_push=lambda *_: None)
    (only,) = task.execute(context(params=params, ti=ti))
    assert only["sections"] == "all"


def test_more_slabs_than_airflow_maps_are_refused(volume, prepared):
    changes = {"volume.slab_sections": 1, "volume.aligned_shard": [1, 2048, 2048]}
    prepared.sections = 2000
    task = PrepareRunOperator(task_id="prepare", by_slab=True)
    params = parameters(volume, changes | {"volume.aligned_chunk": [1, 128, 128]})
    with pytest.raises(AirflowFailException, match=r"raise volume\.slab_sections to 2 or more"):
        task.execute(context(params=params))


class Calls(list):
    """Calls of a stand-in, and how many sections the source has."""

    sections = 100


@pytest.fixture
def prepared(monkeypatch):
    """Let a stand-in prepare runs; return the list of its calls."""
    calls = Calls()

    def prepare(source: str, volume: str, config: dict) -> str:
        calls.append((source, volume, config))
        run_uri = f"{volume}/runs/0123"
        create_json(f"{run_uri}/run.json", {"shape": [calls.sections, 9, 9], "config": config})
        return run_uri

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
        ({"masks.network": "s3://other/net.keras"}, "'s3://other/net.keras' is refused"),
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
