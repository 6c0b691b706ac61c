"""The DAG as Airflow parses it, and whole runs of it with stand-ins for the stages."""

import json
import subprocess
import sys
import time

import psutil
import pytest

import alignment.runs
import alignment.stages
from alignment.config import parse_config
from alignment.driving import slabdriver
from alignment.stages.order import WHOLE
from petalign_airflow.links import DashboardLink, ReportLink
from petalign_airflow.operators import PrepareRunOperator, RunStageOperator
from storage import ledger
from storage.ledger import StageState
from storage.store import create_json
from tests.plugins.airflow_home import ROOT

pytestmark = pytest.mark.filterwarnings(  # Airflow's own use of pathspec
    "ignore:GitWildMatchPattern:DeprecationWarning"
)

HEAVY = ["alignment.stages", "cv2", "dask", "distributed", "numpy", "scipy", "zarr"]


@pytest.fixture(scope="module")
def dags(airflow_database):
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(ROOT / "dags")
    assert bag.import_errors == {}
    return bag.dags


@pytest.fixture(scope="module")
def dag(dags):
    return dags["align_volume"]


def test_the_stages_follow_one_another_in_the_order_of_the_package(dag):
    order = dag.topological_sort()
    assert [task.task_id for task in order] == ["prepare", *alignment.stages.ORDER]
    assert [task.upstream_task_ids for task in order[1:]] == [
        {task.task_id, "prepare"} for task in order[:-1]
    ]
    assert isinstance(order[0], PrepareRunOperator)
    for task in order[1:]:
        if task.task_id in WHOLE:
            assert (type(task), task.stage) == (RunStageOperator, task.task_id)
        else:
            assert task.operator_class is RunStageOperator
            assert task.partial_kwargs["stage"] == task.task_id


def test_only_publishing_updates_the_asset(dag):
    assert [task.task_id for task in dag.tasks if task.outlets] == ["publish"]


def test_parsing_the_dags_imports_nothing_heavy():
    files = sorted(str(path) for path in (ROOT / "dags").glob("*.py"))
    script = (
        "import runpy, sys\n"
        "import airflow.sdk\n"
        "before = set(sys.modules)\n"
        f"for file in {files}: runpy.run_path(file)\n"
        f"print([name for name in {HEAVY} if name in set(sys.modules) - before])"
    )
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], check=True, capture_output=True, text=True
    )
    assert answer.stdout.splitlines()[-1] == "[]"


def test_dag_files_may_not_import_what_computes():
    probe = "".join(f"import {name}\n" for name in ("alignment.stages", "storage", "numpy", "zarr"))
    command = [sys.executable, "-m", "ruff", "check", "--output-format=json", "--select=TID251"]
    command += ["--stdin-filename", str(ROOT / "dags" / "probe.py"), "-"]
    answer = subprocess.run(command, input=probe, capture_output=True, text=True)
    found = [fault["message"] for fault in json.loads(answer.stdout)]
    assert len(found) == 4
    assert all(": " in message for message in found), "each ban gives its reason"


# Whole runs


@pytest.fixture
def conf(tmp_path, connect, scheduler_address):
    connect(scheduler_address, allowed_uris=[f"file://{tmp_path}"])
    return {"source": f"file://{tmp_path}/raw.zarr", "volume": f"file://{tmp_path}/out.zarr"}


@pytest.fixture
def stages(monkeypatch):
    """Stand-ins that do what `alignment` promises, at once; return what was called."""
    called = []

    def prepare(source: str, volume: str, config: dict) -> str:
        called.append(("prepare", parse_config(config)))
        run_uri = f"{volume}/runs/0123"
        create_json(f"{run_uri}/run.json", {"shape": [10, 64, 64], "config": config})
        return run_uri

    def run(stage: str, run_uri: str) -> None:
        called.append((stage, run_uri))
        state = StageState(stage, "done", blocks_done=2, blocks_total=2, heartbeat=time.time())
        ledger.write_state(run_uri, state)

    def run_slab(stage: str, run_uri: str, label: str) -> None:
        run(slabdriver.state_name(stage, label), run_uri)

    monkeypatch.setattr(alignment.runs, "prepare", prepare)
    monkeypatch.setattr(alignment.stages, "run", run)
    monkeypatch.setattr(slabdriver, "run_slab", run_slab)
    return called


def xcom(run, task_id: str, key: str, *, map_index: int = -1) -> object:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        query = XComModel.get_many(
            run_id=run.run_id, task_ids=task_id, key=key, map_indexes=map_index
        )
        (entry,) = session.scalars(query).all()
        return entry.value


def asset_events(run) -> list[dict]:
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        query = select(AssetEvent).where(AssetEvent.source_run_id == run.run_id)
        return [event.extra for event in session.scalars(query)]


def test_a_run_passes_through_every_stage_once(dag, conf, stages):
    run = dag.test(run_conf=conf | {"match.neighbours": 3})
    assert run.state == "success"
    assert [name for name, _ in stages] == ["prepare", *alignment.stages.ORDER]
    assert stages[0][1].match.neighbours == 3
    run_uri = f"{conf['volume']}/runs/0123"
    assert {uri for _, uri in stages[1:]} == {run_uri}
    assert xcom(run, "publish", "return_value") == 2
    assert xcom(run, "publish", ReportLink().xcom_key) == f"{run_uri}/report.html"
    assert asset_events(run) == [{"run_uri": run_uri}]


@pytest.mark.slow
def test_a_thick_volume_is_mapped_over_slabs_with_names(dag, conf, stages):
    cut = {"volume.slab_sections": 4, "volume.aligned_shard": [4, 2048, 2048]}
    run = dag.test(run_conf=conf | cut | {"volume.aligned_chunk": [4, 128, 128]})
    assert run.state == "success"
    found = {}
    for task in run.get_task_instances():
        found.setdefault(task.task_id, []).append((task.map_index, task.rendered_map_index))
    slabs = [(0, "sections 0-3"), (1, "sections 4-7"), (2, "sections 8-9")]
    for stage in alignment.stages.ORDER:
        assert sorted(found[stage]) == ([(-1, None)] if stage in WHOLE else slabs), stage
    called = [name for name, _ in stages[1:]]
    masks = {"masks.z000000", "masks.z000004", "masks.z000008"}
    assert set(called[3:6]) == masks, "a stage begins when all slabs of the one before are done"
    assert len(called) == 9 * 3 + 2
    assert xcom(run, "qc", DashboardLink().xcom_key, map_index=2).endswith("/status")
    run_uri = f"{conf['volume']}/runs/0123"
    assert xcom(run, "qc", ReportLink().xcom_key, map_index=1) == f"{run_uri}/report.html"


def test_a_misspelt_setting_fails_the_run_before_anything_is_started(dag, conf, stages, tmp_path):
    run = dag.test(run_conf=conf | {"match.neighbors": 3})
    states = {ti.task_id: (ti.state, ti.try_number) for ti in run.get_task_instances()}
    assert states["prepare"] == ("failed", 1), "no retry"
    assert states["ingest"] == ("upstream_failed", 0)
    assert stages == []
    assert list(tmp_path.iterdir()) == []


# A cluster of the run's own


@pytest.fixture
def dag_with_cluster(monkeypatch, airflow_database):
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("PETALIGN_CLUSTER", "local")
    bag = DagBag(ROOT / "dags" / "align_volume.py")
    assert bag.import_errors == {}
    return bag.dags["align_volume"]


def test_by_default_no_task_is_added_for_a_cluster(dag):
    assert not {"start_cluster", "stop_cluster"} & set(dag.task_dict)


def test_a_cluster_of_the_run_is_around_all_its_tasks(dag_with_cluster):
    start, stop = (dag_with_cluster.get_task(f"{verb}_cluster") for verb in ("start", "stop"))
    assert (start.is_setup, stop.is_teardown) == (True, True)
    inside = {"prepare", *alignment.stages.ORDER}
    assert start.get_flat_relative_ids(upstream=False) == inside | {"stop_cluster"}
    assert stop.get_flat_relative_ids(upstream=True) == inside | {"start_cluster"}


@pytest.mark.slow
def test_the_cluster_ends_after_a_failure_too(dag_with_cluster, tmp_path, connect):
    cluster = {"workers": 1, "memory_gib": 1, "folder": str(tmp_path), "start_timeout_s": 60}
    connect("127.0.0.1:1", allowed_uris=[f"file://{tmp_path}"], cluster=cluster)
    conf = {"source": f"file://{tmp_path}/none.zarr", "volume": f"file://{tmp_path}/out.zarr"}
    run = dag_with_cluster.test(run_conf=conf)
    states = {ti.task_id: ti.state for ti in run.get_task_instances()}
    assert run.state == "failed"
    assert states["prepare"] == "failed", "on the run's own cluster; the connection has none"
    assert (states["start_cluster"], states["stop_cluster"]) == ("success", "success")
    (folder,) = tmp_path.glob("petalign-*")
    assert not (folder / "processes.json").exists()
    alive = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"]]
    assert not [line for line in alive if str(folder) in " ".join(line)]
