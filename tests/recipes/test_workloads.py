"""The four recipes of docs/recipes give right results, small here, and with a killed worker."""

import json
import os
import signal
import time
from collections import Counter

import pytest

from alignment.blockwise import local_client
from alignment.recipes import driver
from alignment.recipes.states import look, read_log
from storage.store import join, list_names, read_bytes, read_json
from tests.recipes.workloads import PAUSE, VICTIMS, run_workload

SMALL = {
    "documents": {"range: 0-15": "range: 0-1"},
    "search": {"samples: 4096": "samples: 12"},
}
STEPS = {"steps: 300": "steps: 60"}
KILLED = {
    "documents": {"documents: 100": "documents: 2000"},  # else a task is over before it is killed
    "training": PAUSE["training"],
    "search": {"samples: 4096": "samples: 384", "workers: 8": "workers: 2"},
    "inference": {"range: 0-31": "range: 0-7", "(2, 256, 256)": "(1, 256, 128)"},
}


def check_documents(ran):
    written, counted = ran.results("write"), ran.results("count")[0]
    assert counted["documents"] == sum(w["documents"] for w in written)
    assert counted["tokens"] == sum(w["words"] for w in written), "no word was lost"


def check_training(ran):
    (result,) = ran.results("train")
    assert result["processes"] == 2
    assert result["loss"] < 0.35


def check_search(ran):
    tasks = read_json(join(ran.frozen.uri, "done/search.json"))
    (best,) = ran.results("best")
    assert best["points"] == len(tasks)
    assert best["error"] == min(task["result"]["error"] for task in tasks)
    seen = Counter(json.dumps(task["parameters"], sort_keys=True) for task in tasks)
    assert set(seen.values()) == {1}, "of 4,096 combinations none was tried twice"
    assert "best of" in read_log(ran.frozen, "best", "0")


def check_inference(ran):
    (result,) = ran.results("check")
    assert result["differing"] == 0
    assert result["voxels"] == 64 * 64 * len(ran.results("infer"))


CHECKS = {
    "documents": check_documents,
    "training": check_training,
    "search": check_search,
    "inference": check_inference,
}


def weights(ran):
    record = read_json(join(ran.frozen.uri, "records/train/00000.json"))
    return read_bytes(record["outputs"]["weights.npy"]["uri"])


@pytest.mark.parametrize("name", SMALL)
def test_a_workload_gives_the_right_result(name, tmp_path, client):
    ran = run_workload(name, tmp_path, client=client, kill=False, changes=SMALL[name])
    CHECKS[name](ran)
    assert ran.starts == ran.planned_starts


def test_training_by_two_processes_gives_the_weights_of_one(tmp_path, client):
    runs = []
    for k, changes in enumerate([STEPS | {"workers: 2": "workers: 1"}, STEPS]):
        folder = tmp_path / str(k)
        folder.mkdir()
        ran = run_workload("training", folder, client=client, kill=False, changes=changes)
        runs.append(ran)
    one, two = runs
    check_training(two)
    assert one.results("train")[0]["processes"] == 1
    assert weights(one) == weights(two)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", VICTIMS)
def test_a_killed_worker_costs_a_start_and_no_result(name, tmp_path, client):
    ran = run_workload(name, tmp_path, changes=KILLED[name])
    assert ran.killed == 1
    assert ran.starts > ran.planned_starts
    CHECKS[name](ran)
    if name == "training":
        assert ran.results("train")[0]["first_step"] > 0, "it went on from its checkpoint"
        (tmp_path / "again").mkdir()
        calm = run_workload(name, tmp_path / "again", client=client, kill=False)
        assert weights(calm) == weights(ran)


@pytest.mark.slow
def test_a_driver_whose_worker_is_killed_goes_on_elsewhere(recipe):
    text = """
files: [task.py]
experiments:
  a: {command: python task.py, parameters: {n: {range: 1-12, sampling: discrete}}, workers: 2}
"""
    frozen = recipe(text, task="import time; time.sleep(1)")
    with local_client(3) as cluster:
        future = cluster.submit(driver.run, frozen.uri, "a.000", {}, key="driver", priority=100)
        while len(list_names(join(frozen.uri, "records/a"))) < 2:
            time.sleep(0.1)
        (address,) = [w for w, keys in cluster.processing().items() if "driver" in keys]
        pid = cluster.run(os.getpid, workers=[address])[address]
        before = set(list_names(join(frozen.uri, "records/a")))
        os.kill(pid, signal.SIGKILL)
        assert future.result(timeout=300) == 12
    state = look(frozen)
    assert state.state == "done"
    assert read_json(join(frozen.uri, "state/a.000.json"))["epoch"] == 2
    assert state.experiments[0].starts <= 12 + 4, "only what ran was started again"
    assert all(len(list_names(join(frozen.uri, "starts/a", n[:5]))) == 1 for n in before)
