"""Nights as Airflow runs them, on a real source and pointer; only the stages are stand-ins."""

import json
import re
import time
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pendulum
import pytest
import tifffile
from airflow.sdk import DAG, AssetOrTimeSchedule
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSkipException,
    DownstreamTasksSkipped,
)

import alignment.runs
import alignment.stages
from alignment.errands.nightly import prepare_update
from alignment.runs import load
from petalign_airflow.chain import STAGES
from petalign_airflow.nightly import FindChangesOperator, PrepareUpdateOperator
from storage import ledger
from storage.ledger import StageState
from storage.publish import Pointer, read_pointer
from storage.store import replace_json
from tests.dags.test_align_volume import asset_events, xcom
from tests.plugins.airflow_home import ROOT

pytestmark = pytest.mark.filterwarnings(  # Airflow's own use of pathspec
    "ignore:GitWildMatchPattern:DeprecationWarning"
)


@pytest.fixture(scope="module")
def dag(airflow_database):
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(ROOT / "dags")
    assert bag.import_errors == {}
    return bag.dags["reprocess_nightly"]


@pytest.fixture
def facility(tmp_path, connect, scheduler_address, monkeypatch):
    """Two sections on disk, and the Variable that names them; return the folder."""
    connect(scheduler_address, allowed_uris=[tmp_path.as_uri()])
    described = {"source": f"{tmp_path.as_uri()}/raw", "volume": f"{tmp_path.as_uri()}/out"}
    monkeypatch.setenv("AIRFLOW_VAR_PETALIGN_NIGHTLY", json.dumps(described))
    (tmp_path / "raw").mkdir()
    for z in range(2):
        image(tmp_path, z, seed=z)
    return tmp_path


def image(folder, z: int, *, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40)).astype(np.uint8)
    tifffile.imwrite(folder / "raw" / f"z{z}.tif", pixels)


def publish(run_uri: str) -> None:
    """Point readers to a run that holds nothing."""
    volume, _, key = run_uri.rpartition("/runs/")
    epoch = getattr(read_pointer(volume), "epoch", 0) + 1
    replace_json(f"{volume}/LATEST.json", asdict(Pointer(key, epoch, "root", 0.0)))


@pytest.fixture
def stages(monkeypatch):
    """Stand-ins that finish at once; "publish" moves the pointer. Return what was called."""
    called = []

    def run(stage: str, run_uri: str) -> None:
        called.append((stage, run_uri))
        if stage == "publish":
            publish(run_uri)
        ledger.write_state(run_uri, StageState(stage, "done", "", 1, 1, heartbeat=time.time()))

    monkeypatch.setattr(alignment.stages, "run", run)
    return called


@pytest.fixture
def first(facility):
    """Publish the two sections, aligned with a setting of its own; return the run's URI."""
    uri = facility.as_uri()
    run_uri = prepare_update(f"{uri}/raw", f"{uri}/out", {"match": {"neighbours": 3}})
    publish(run_uri)
    return run_uri


def night(dag, day: int, conf=None):
    """Run the DAG for a date; return the run and the states of its tasks."""
    run = dag.test(logical_date=pendulum.datetime(2026, 3, day, 2, tz="UTC"), run_conf=conf or {})
    return run, {ti.task_id: ti.state for ti in run.get_task_instances()}


def test_the_schedule_is_nightly_without_catching_up(dag):
    assert dag.timetable.expression == "0 2 * * *"
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert [task.task_id for task in dag.topological_sort()] == ["look", "prepare", *STAGES]


def test_the_dag_files_of_the_documentation_can_be_parsed(airflow_database):
    page = (ROOT / "docs" / "nightly.md").read_text(encoding="utf-8")
    found = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        names: dict[str, object] = {}
        exec(code, names)
        found |= {dag.dag_id: dag for dag in names.values() if isinstance(dag, DAG)}
    assert len(found) == 5
    assert found["cortex_nightly"].schedule.expression == "30 1 * * *"
    assert found["cortex_nightly"].get_task("look").variable == "cortex"
    assert found["retina_nightly"].params["source"] == "s3://em/retina.zarr"
    assert isinstance(found["on_arrival"].schedule, AssetOrTimeSchedule)


def test_only_nights_with_news_make_a_version(dag, facility, stages, first):
    run, states = night(dag, 2)
    assert run.state == "success"
    assert states.pop("look") == "success"
    assert set(states.values()) == {"skipped"}
    assert (stages, asset_events(run)) == ([], [])
    assert xcom(run, "look", "changes")["new"] == 0

    for z in (2, 3):
        image(facility, z, seed=z)
    run, states = night(dag, 3)
    assert set(states.values()) == {"success"}
    assert xcom(run, "look", "changes") == {
        "base": first.rpartition("/")[2],
        "new": 2, "changed": 0, "removed": 0, "moved": 0, "settings": 0, "code": 0,
    }  # fmt: skip
    assert [stage for stage, _ in stages] == list(STAGES)
    assert asset_events(run) == [{"run_uri": stages[0][1]}]
    update = load(stages[0][1])
    assert update.base.run == first.rpartition("/")[2], "an update of the first version"
    assert update.base.places == {0, 1}
    assert update.config.match.neighbours == 3, "with the first version's settings"

    # An old night, run again: the source is what it is now, so there is nothing to do.
    run, states = night(dag, 1)
    assert states["prepare"] == "skipped"
    assert len(stages) == len(STAGES)


def test_a_misspelt_setting_fails_before_anything_is_written(dag, facility, stages):
    _, states = night(dag, 1, {"settings": {"match.neighbors": 3}})
    assert (states["look"], states["prepare"]) == ("failed", "upstream_failed")
    assert stages == []
    assert not (facility / "out").exists()


# The first task alone


def look(params, run_type="scheduled"):
    """Return what the task hands on, or None if it skips the others."""
    ti = SimpleNamespace(xcom_push=lambda **_: None, map_index=-1)
    context = {"params": params, "ti": ti, "dag_run": SimpleNamespace(run_type=run_type)}
    with DAG("one", schedule=None):
        task = FindChangesOperator(task_id="look")
        task >> PrepareUpdateOperator(task_id="prepare", order=task.output)
    try:
        return task.execute(context)
    except DownstreamTasksSkipped:
        return None


def prepared(order):
    """Freeze the update; return the URI of its run, which the slabs name too."""
    pushed = {}
    ti = SimpleNamespace(xcom_push=pushed.__setitem__)
    slabs = PrepareUpdateOperator(task_id="prepare", order=order).execute({"ti": ti})
    assert {slab["run_uri"] for slab in slabs} == {pushed["run_uri"]}
    return pushed["run_uri"]


def test_settings_stay_those_of_the_published_version_unless_they_are_changed(facility, first):
    assert look({}) is None
    assert look({"settings": {"match.neighbours": 3}}) is None
    order = look({"settings": {"relax.stiffness": 4.0}})
    assert order["settings"] == {"relax": {"stiffness": 4.0}}
    config = load(prepared(order)).config
    assert (config.match.neighbours, config.relax.stiffness) == (3, 4.0)


def test_the_variables_settings_count_too_and_parameters_come_first(
    facility, first, monkeypatch, tmp_path
):
    uri = tmp_path.as_uri()
    described = {"source": f"{uri}/raw", "volume": f"{uri}/out"}
    described["settings"] = {"match.neighbours": 2, "relax.stiffness": 4.0}
    monkeypatch.setenv("AIRFLOW_VAR_PETALIGN_NIGHTLY", json.dumps(described))
    order = look({"settings": {"match.neighbours": 4}})
    assert order["settings"] == {"match": {"neighbours": 4}, "relax": {"stiffness": 4.0}}


def test_newer_code_alone_is_a_reason_only_if_somebody_says_so(facility, first, monkeypatch):
    monkeypatch.setattr(alignment.runs, "stage_code", lambda: dict.fromkeys(STAGES, "newer"))
    assert look({}) is None
    order = look({"code": True})
    assert prepared(order) != first


def test_two_at_once_share_one_run(facility, first):
    image(facility, 0, seed=7)
    orders = [look({}), look({})]
    assert len({prepared(order) for order in orders}) == 1


def test_a_facility_that_set_nothing_sees_the_schedule_pass_by(facility, monkeypatch):
    monkeypatch.setenv("AIRFLOW_VAR_PETALIGN_NIGHTLY", "{}")
    with pytest.raises(AirflowSkipException, match="source and volume not set"):
        look({})
    with pytest.raises(AirflowFailException, match="Airflow Variable 'petalign_nightly'"):
        look({}, run_type="manual")  # who triggers it wants to know


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3://em/raw", "is not JSON"),
        ("[1, 2]", "must be a JSON object"),
        ('{"settings": [1]}', r"settings must be an object .*; petalign_nightly has \[1\]"),
        ('{"settings": {"volume": "s3://em/out"}}', "volume: a place, not a setting"),
        ('{"sauce": "s3://em/raw"}', r"no such key of .*'sauce' \(did you mean 'source'"),
        ('{"source": "file:///etc", "volume": "file:///etc"}', "'file:///etc' is refused"),
    ],
)
def test_a_variable_that_says_nonsense_is_refused_in_words(facility, monkeypatch, text, message):
    monkeypatch.setenv("AIRFLOW_VAR_PETALIGN_NIGHTLY", text)
    with pytest.raises(AirflowFailException, match=message):
        look({})


@pytest.mark.parametrize("settings", ["match.neighbours", [1], {"source": "file:///etc"}])
def test_settings_that_are_none_are_refused(facility, settings):
    with pytest.raises(AirflowFailException, match=r"must be an object|not a setting"):
        look({"settings": settings})
