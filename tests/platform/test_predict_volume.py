"""A prediction through real Airflow, Dask and S3, with a worker killed in it."""

import os
import signal
import time

import pytest
from distributed import Client

from alignment.predicting.driver import run_prediction
from alignment.predicting.runs import prepare
from storage import open_prediction
from storage.commit import manifest, records
from storage.commit.verify import verify_volume
from storage.store import join, replace_bytes
from tests.networks import model_file
from tests.published import publish_aligned, texture

pytestmark = [pytest.mark.platform, pytest.mark.slow, pytest.mark.timeout(900)]

DAG_ID = "predict_volume"
SETTINGS = {
    "patches": {"patch_px": [10, 38, 38], "margin_px": [3, 3, 3]},
    "volume": {"shard": [8, 32, 32], "chunk": [8, 32, 32]},
}
FLAT = {f"{part}.{name}": v for part, values in SETTINGS.items() for name, v in values.items()}


@pytest.fixture
def bucket(platform, monkeypatch):
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{platform.bucket}/predict"


def test_a_prediction_runs_through_airflow_although_a_worker_is_killed(platform, bucket):
    volume, model = f"{bucket}/aligned", f"{bucket}/model.keras"
    publish_aligned(volume, texture((8, 512, 512)))
    replace_bytes(model, model_file())
    calm = prepare(volume, model, f"{bucket}/calm", SETTINGS)
    conf = {"volume": volume, "model": model, "prediction": f"{bucket}/predicted", **FLAT}
    run_uri = join(conf["prediction"], "runs", calm.run_uri.rpartition("/")[2])
    killed = []
    with platform.airflow() as airflow:
        airflow.wait_for_dag(DAG_ID)
        run_id = airflow.trigger(DAG_ID, conf)
        deadline = time.monotonic() + 600
        while (state := airflow.state(DAG_ID, run_id)) in ("queued", "running"):
            assert time.monotonic() < deadline, f"it is {state}"
            if not killed and len(records.recorded(run_uri, "predict", "shards")) >= 2:
                with Client(platform.dask_address) as client:
                    killed.append(min(client.run(os.getpid).values()))
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.1)
        assert state == "success", airflow.task_states(DAG_ID, run_id)
        assert airflow.returned(DAG_ID, run_id, "prepare") == run_uri
        assert airflow.returned(DAG_ID, run_id, "predict") == calm.figures.units + 1
    assert killed
    assert verify_volume(conf["prediction"], full=True).is_clean

    with Client(platform.dask_address) as client:
        run_prediction(calm.run_uri, client)
    assert manifest.run_root(calm.run_uri) == manifest.run_root(run_uri)
    found = open_prediction(conf["prediction"])
    assert found.shape == (2, 8, 512, 512)
    assert join(conf["prediction"], "runs", found.attrs["run"]) == run_uri
