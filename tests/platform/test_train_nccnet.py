"""A training through real Airflow, Dask and S3, with its worker killed in it."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
import yaml
from distributed import Client

from alignment.errands import learning
from alignment.learning.remote import POINTER
from storage.store import join, list_names, read_json_tagged, replace_bytes
from tests.alignment.learning.hard_stack import SETTINGS, write_hard_stack

pytestmark = [
    pytest.mark.platform,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed"),
]

DAG_ID = "train_nccnet"


def flat(values: dict, prefix: str = "") -> dict:
    found = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


@pytest.fixture
def bucket(platform, monkeypatch):
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{platform.bucket}/train"


def test_a_training_runs_through_airflow_although_its_worker_is_killed(platform, bucket, tmp_path):
    stack, folder = f"{bucket}/raw/stack.tif", f"{bucket}/network"
    write_hard_stack(tmp_path / "raw.tif")
    replace_bytes(stack, (tmp_path / "raw.tif").read_bytes())
    killed = []
    with platform.airflow() as airflow:
        airflow.wait_for_dag(DAG_ID)
        run_id = airflow.trigger(DAG_ID, {"stack": stack, "folder": folder, **flat(SETTINGS)})
        deadline = time.monotonic() + 600
        while (state := airflow.state(DAG_ID, run_id)) in ("queued", "running"):
            assert time.monotonic() < deadline, f"it is {state}"
            pointer, _ = read_json_tagged(join(folder, POINTER))
            if not killed and pointer and pointer["progress"]["step"] >= 4:
                killed.append(worker_of_the_training(platform.dask_address))
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.1)
        assert state == "success", airflow.task_states(DAG_ID, run_id)
        found = airflow.returned(DAG_ID, run_id, "train")
    assert killed

    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(SETTINGS))
    words = ["train", "nccnet", tmp_path / "raw.tif", tmp_path / "here", "--config", config]
    here = subprocess.run(
        [sys.executable, "-m", "alignment.cli", *map(str, words), "--json"],
        # As the workers of the platform: with more threads, sums are rounded in another order.
        env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1"),
        check=True,
        capture_output=True,
        text=True,
    )
    expected = json.loads(here.stdout) | {"model": join(folder, "nccnet.safetensors")}
    assert found == expected | {"has_ended": True}
    assert len(list_names(join(folder, "parts"))) == 2


def worker_of_the_training(address: str) -> int:
    """Return the process of the worker below which the program runs."""

    def runs_it(program: str) -> bool:
        import psutil

        below = psutil.Process().children(recursive=True)
        return any(program in process.cmdline() for process in below)

    with Client(address) as client:
        pids = client.run(os.getpid)
        (worker,) = [who for who, it in client.run(runs_it, learning.PROGRAM).items() if it]
    return pids[worker]
