"""The DAG `align_volume` through real Airflow, Dask and S3, with parts killed meanwhile."""

import os
import signal

import pytest
from distributed import Client

from alignment.commands.follow import DAG_ID, DagRun, flat_settings, follow_dag_run
from alignment.commands.sample import write_phantom
from alignment.config import parse_config
from alignment.phantom import PhantomConfig
from alignment.platform.errors import RequestRefused
from alignment.runs import load, prepare
from alignment.stages import ORDER, run_stage, runner
from storage.commit import records
from storage.store import exists

pytestmark = [pytest.mark.platform, pytest.mark.timeout(600)]

CONFIG = {"volume": {"aligned_shard": [4, 256, 256], "aligned_chunk": [4, 64, 64]}}


@pytest.fixture
def bucket(platform, monkeypatch):
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{platform.bucket}"


def recorded(run_uri):
    return {
        (stage, phase.name): records.read_records(run_uri, stage, phase.name)
        for stage in ORDER
        for phase in runner.import_module(f"alignment.stages.{stage}").phases(load(run_uri))
        if stage != "publish"
    }


def test_a_bad_parameter_is_refused_by_name_before_anything_is_written(platform, bucket):
    conf = {"source": f"{bucket}/raw", "volume": f"{bucket}/refused", "relax.stiffness": -1}
    with platform.airflow() as airflow:
        airflow.wait_for_dag(DAG_ID)
        with pytest.raises(RequestRefused, match=r"relax\.stiffness"):
            airflow.trigger(DAG_ID, conf)
    assert not exists(f"{bucket}/refused/LATEST.json")


def test_a_killed_worker_and_a_killed_scheduler_do_not_change_a_voxel(platform, bucket, tmp_path):
    config = parse_config(CONFIG)
    source, volume = f"{bucket}/dag/raw", f"{bucket}/dag/aligned"
    defects = {"fold_section": 4, "blank_section": 2, "corner_section": None}
    write_phantom(source, PhantomConfig(sections=6, height=320, width=320, seed=5, **defects))
    with platform.airflow() as airflow:
        airflow.wait_for_dag(DAG_ID)
        conf = {"source": source, "volume": volume, **flat_settings(config)}
        run_id = airflow.trigger(DAG_ID, conf)
    killed = []

    def kill(state):
        if state.stage == "masks" and state.status == "done" and not killed:
            with Client(platform.dask_address) as client:
                killed.append(min(client.run(os.getpid).values()))
            os.kill(killed[0], signal.SIGKILL)
        if state.stage == "coarse" and state.status == "done" and len(killed) == 1:
            killed.append(platform.processes()["airflow-scheduler"].pid)
            os.kill(killed[1], signal.SIGKILL)

    run_uri = follow_dag_run(DagRun(platform, run_id, ""), tell=kill)
    assert len(killed) == 2
    undisturbed = prepare(source, tmp_path.as_uri(), CONFIG)
    with Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0") as here:
        for stage in ORDER:
            run_stage(stage, undisturbed, here)
    assert recorded(run_uri) == recorded(undisturbed)
