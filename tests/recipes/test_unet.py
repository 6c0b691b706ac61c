"""The recipe of docs/recipes that trains a U-Net by processes which are Dask tasks."""

import os
import signal
import threading
import time
from importlib.util import find_spec

import numpy as np
import pytest
from distributed import Client

from alignment.commands.train_unet import read_segment_config
from alignment.learning.remote import POINTER, training_folder
from alignment.learning.segmentation.order import CONTENTS
from alignment.learning.segmentation.outcome import read_trained
from alignment.learning.segmentation.train import train_segmentation
from alignment.recipes import process
from inference.training.files import CHECKPOINT
from storage.store import join, list_names, read_json, read_json_tagged
from tests.alignment.learning.labelled_volume import voxels, write_zarr
from tests.recipes.workloads import run_workload

SMALL = ("training.network.layers=2", "training.network.features_root=2",
         "training.patch_px=[1,32,32]", "training.held_out=2", "training.batch=2")  # fmt: skip


def weights(uri):
    with training_folder(uri, CONTENTS) as folder, np.load(folder.path / CHECKPOINT) as found:
        return {name: found[name] for name in found.files if name.startswith("weights")}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_processes_on_workers_of_their_own_learn_what_local_ones_do(tmp_path, monkeypatch):
    data, folder, local = (f"{tmp_path.as_uri()}/{name}" for name in ("data", "out", "local"))
    write_zarr(data, *voxels())
    changes = {
        "s3://em/labelled": data,
        "s3://em/networks/membranes": folder,
        "epochs: 100": "epochs: 2",
        "steps: 20": "steps: 3",
        "--join": " ".join(["--join", *(f"--set={each}" for each in SMALL)]),
    }
    with Client(
        processes=False, n_workers=2, threads_per_worker=1, resources={"trainer": 1},
        dashboard_address=":0",
    ) as client:  # fmt: skip
        ran = run_workload("unet", tmp_path, client=client, kill=False, changes=changes)
    process.end_idle()
    assert ran.starts == 2
    found = read_trained(folder)
    assert (found["steps"], found["samples"], found["has_ended"]) == (6, 24, True)

    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    named = [*SMALL, "training.epochs=2", "training.steps_per_epoch=3"]
    config = read_segment_config(None, named)
    train_segmentation(data, local, config, mode="sync", workers=2)
    ours, theirs = weights(folder), weights(local)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_a_lost_worker_lets_all_go_on_from_the_last_epoch(tmp_path):
    data, folder = (f"{tmp_path.as_uri()}/{name}" for name in ("data", "out"))
    write_zarr(data, *voxels())
    changes = {
        "s3://em/labelled": data,
        "s3://em/networks/membranes": folder,
        "epochs: 100": "epochs: 40",
        "steps: 20": "steps: 3",
        "hardware: {trainer: 1}": "hardware: {}",
        "--join": " ".join(["--join", *(f"--set={each}" for each in SMALL)]),
    }
    killed = []

    def kill() -> None:
        deadline = time.monotonic() + 300
        while not (pointer := read_json_tagged(join(folder, POINTER))[0]) or (
            pointer["progress"]["epoch"] < 2
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (signs,) = (path.as_uri() for path in (tmp_path / "store").glob("**/starts/train/00000"))
        os.kill(read_json(join(signs, list_names(signs)[-1]))["pid"], signal.SIGKILL)
        killed.append(pointer["progress"]["epoch"])

    thread = threading.Thread(target=kill)
    thread.start()
    ran = run_workload("unet", tmp_path, workers=3, kill=False, changes=changes)
    thread.join()
    (epoch,) = killed
    assert epoch < 40
    assert ran.starts >= 4
    found = read_trained(folder)
    assert (found["epochs"], found["steps"], found["has_ended"]) == (40, 120, True)
