"""A recipe through real Airflow, Dask and S3, by the command line, with a worker killed in it."""

import json
import shutil
import threading
import time

import pytest
from typer.testing import CliRunner

from alignment.cli import app
from alignment.commands import recipe as commands
from alignment.commands.recipe import DAG_ID
from alignment.platform.config import VARIABLES
from alignment.recipes.states import known_ids
from storage.store import join, list_names, read_json
from tests.recipes.workloads import FOLDER, kill_one

pytestmark = [pytest.mark.platform, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def petalign(platform, monkeypatch):
    """The command line of a user of this platform."""
    for variable, name in VARIABLES.items():
        value = getattr(platform.config, name)
        monkeypatch.setenv(variable, ",".join(value) if isinstance(value, tuple) else str(value))
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)
    runner = CliRunner()
    return lambda *words: runner.invoke(app, ["recipe", *map(str, words)])


def test_a_recipe_runs_through_airflow_although_a_worker_is_killed(platform, petalign, tmp_path):
    shutil.copytree(FOLDER / "documents", tmp_path / "documents")
    file = tmp_path / "documents" / "recipe.yaml"
    frozen = commands.prepare(file, None, anew=False)
    killed, over = [], threading.Event()
    thread = threading.Thread(target=kill_one, args=(frozen, "tokenise", killed, over))
    thread.start()
    done = petalign("up", file, "--follow", "--json")
    over.set()
    thread.join()
    assert done.exit_code == 0, done.output
    state = json.loads(done.stdout)
    assert (state["state"], state["done"], state["total"]) == ("done", 33, 33)
    assert len(killed) == 1
    assert sum(one["starts"] for one in state["experiments"]) > 33

    run = read_json(join(frozen.uri, "dag_run.json"))
    with platform.airflow() as airflow:
        states = {
            (t.task_id, t.map_index): t.state for t in airflow.task_states(DAG_ID, run["run_id"])
        }
    assert states == {("prepare", -1): "success"} | {("run", k): "success" for k in range(3)}

    assert known_ids(f"s3://{platform.bucket}/recipes") == [state["id"]]
    listed = json.loads(petalign("ps", "--json").stdout)
    assert [(one["id"], one["state"]) for one in listed] == [(state["id"], "done")]
    assert "100 documents" in petalign("logs", f"{state['id']}/tokenise/3").stdout
    wrong = petalign("ps", "zzzzzz")
    assert wrong.exit_code == 2
    assert state["id"] in wrong.stderr


def test_down_stops_a_recipe_on_the_platform(platform, petalign, tmp_path):
    (tmp_path / "wait.py").write_text("import time; print('waits', flush=True); time.sleep(300)")
    file = tmp_path / "recipe.yaml"
    file.write_text("files: [wait.py]\nexperiments: {wait: {command: python wait.py}}")
    key = petalign("up", file).stdout.split()[-1]
    frozen = commands.find_recipe(None, key)
    deadline = time.monotonic() + 120
    while not list_names(join(frozen.uri, "starts/wait/00000")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "wait.000" in petalign("down", key).stdout
    run = read_json(join(frozen.uri, "dag_run.json"))
    with platform.airflow() as airflow:
        while (
            airflow.state(DAG_ID, run["run_id"]) != "failed" and time.monotonic() < deadline + 120
        ):
            time.sleep(0.5)
        assert airflow.state(DAG_ID, run["run_id"]) == "failed"
        tries = {t.task_id: t.try_number for t in airflow.task_states(DAG_ID, run["run_id"])}
    assert tries["run"] == 1, "what a user stopped is not tried again"
    assert list_names(join(frozen.uri, "logs/wait/00000"))[0].endswith(".log"), "its process ended"
    assert json.loads(petalign("ps", key, "--json").stdout)["state"] == "stopped"
