"""The training of a U-Net by two processes through real Airflow, Dask and S3."""

import time
from importlib.util import find_spec

import pytest

from alignment.learning.segmentation.outcome import read_trained
from inference.training.files import MODEL
from storage.store import exists, join
from tests.alignment.learning.labelled_volume import voxels, write_zarr

pytestmark = [
    pytest.mark.platform,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed"),
]

DAG_ID = "train_unet"
SETTINGS = {
    "training.network": {
        "architecture": "unet", "layers": 2, "features_root": 2, "padding": "same",
        "head": "sigmoid",
    },
    "training.patch_px": [1, 32, 32],
    "training.epochs": 3,
    "training.steps_per_epoch": 4,
    "training.held_out": 2,
}  # fmt: skip


def test_a_training_by_two_processes_runs_through_airflow(platform, monkeypatch):
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)
    data, folder = (f"s3://{platform.bucket}/segment/{name}" for name in ("data", "network"))
    write_zarr(data, *voxels())
    conf = {"data": data, "folder": folder, "mode": "sync", "workers": 2, **SETTINGS}
    with platform.airflow() as airflow:
        airflow.wait_for_dag(DAG_ID)
        run_id = airflow.trigger(DAG_ID, conf)
        deadline = time.monotonic() + 600
        while (state := airflow.state(DAG_ID, run_id)) in ("queued", "running"):
            assert time.monotonic() < deadline, f"it is {state}"
            time.sleep(1)
        assert state == "success", airflow.task_states(DAG_ID, run_id)
        found = airflow.returned(DAG_ID, run_id, "train")
    assert found == read_trained(folder)
    assert (found["steps"], found["samples"], found["has_ended"]) == (12, 24, True)
    assert exists(join(folder, MODEL))
