"""Batches on a cluster in threads: results, retries, stops, groups; programs are real processes."""

import json
import threading
import time
from pathlib import Path

import pytest

from alignment.errors import ConfigError, StageFailed
from alignment.recipes import driver
from alignment.recipes.driver import run_batch
from alignment.recipes.errors import TaskLost
from alignment.recipes.frozen import batches, freeze, load, plan
from alignment.recipes.states import find, go_on, look, read_log, stop, tasks
from alignment.recipes.work import Task, Work
from storage import ledger
from storage.store import exists, join, list_names, read_bytes, read_json
from tests.recipes.test_process import is_gone

SQUARES = """
files: [square.py, total.py]
experiments:
  total: {command: python total.py, depends_on: [square], fetch: [square]}
  square:
    command: python square.py --x={{x}}
    parameters: {x: [1, 2, 3]}
    workers: 2
    retries: 1
"""
SQUARE = """
import json, os, sys
x = int(sys.argv[1].removeprefix("--x="))
print("squaring", x)
open("out/x.txt", "w").write(str(x))
json.dump({"y": x * x}, open("result.json", "w"))
"""
TOTAL = """
import json, pathlib
records = json.load(open("in/square.json"))
files = [path.read_text() for path in sorted(pathlib.Path("in/square").glob("*/x.txt"))]
found = {"total": sum(r["result"]["y"] for r in records), "files": files}
json.dump(found, open("result.json", "w"))
"""


def run_all(frozen, client):
    return [run_batch(frozen.uri, b["batch"], client) for b in plan(frozen.uri)["batches"]]


def one(command, **more):
    """Return a recipe of one experiment with the file task.py."""
    return json.dumps({"files": ["task.py"], "experiments": {"a": {"command": command} | more}})


def test_outputs_and_results_reach_the_experiments_that_depend_on_them(recipe, client):
    frozen = recipe(SQUARES, square=SQUARE, total=TOTAL)
    assert run_all(frozen, client) == [3, 1], "total comes last though it is written first"
    state = look(frozen)
    assert (state.state, state.done, state.total) == ("done", 4, 4)
    assert [(e.name, e.starts) for e in state.experiments] == [("square", 3), ("total", 1)]
    (total,) = tasks(frozen, "total")
    assert total["result"] == {"total": 14, "files": ["1", "2", "3"]}
    record = read_json(join(frozen.uri, "records/square/00002.json"))
    assert read_bytes(record["outputs"]["x.txt"]["uri"]) == b"3"
    assert read_log(frozen, "square", "2") == "squaring 3\n"


def test_the_same_recipe_goes_on_and_another_begins(recipe, client, tmp_path):
    frozen = recipe(SQUARES, square=SQUARE, total=TOTAL)
    run_all(frozen, client)
    again = recipe(SQUARES, square=SQUARE, total=TOTAL)
    assert again.uri == frozen.uri
    run_all(again, client)
    assert sum(e.starts for e in look(again).experiments) == 4, "nothing was started twice"
    assert recipe(SQUARES, square=SQUARE + "#", total=TOTAL).uri != frozen.uri
    anew = freeze(tmp_path / "recipe.yaml", str(tmp_path / "store"), anew=True)
    assert len(anew.rpartition("/")[2]) == 6
    assert look(load(anew)).state == "created"


FLAKY = """
import os, sys
print("attempt", os.environ["PETALIGN_ATTEMPT"])
sys.exit(0 if os.environ["PETALIGN_ATTEMPT"] >= sys.argv[1] else 7)
"""


def test_a_program_that_fails_is_tried_again_then_reported_and_others_go_on(recipe, client):
    text = one("python task.py {{n}}", parameters={"n": [0, 1, 9]}, retries=1)
    frozen = recipe(text, task=FLAKY)
    with pytest.raises(
        StageFailed, match=r"1 of 3 tasks failed: a/00002: exit status 7; .* attempt 1"
    ):
        run_all(frozen, client)
    (state,) = look(frozen).experiments
    assert (state.state, state.done, state.failed, state.starts) == ("failed", 2, 1, 1 + 2 + 2)
    assert ledger.read_state(frozen.uri, "a.000").error_kind == "data", "Airflow need not retry"
    assert [row["state"] for row in tasks(frozen, "a")] == ["done", "done", "failed"]
    assert read_log(frozen, "a", "2") == "attempt 1\n"


def test_what_depends_on_a_failure_does_not_begin(recipe, client):
    frozen = recipe(SQUARES, square="raise SystemExit(1)", total=TOTAL)
    with pytest.raises(StageFailed, match="tasks failed"):
        run_batch(frozen.uri, "square.000", client)
    with pytest.raises(StageFailed, match="total depends on square, which is not done"):
        run_batch(frozen.uri, "total.000", client)


SLEEP = "import os, time; print(os.getpid(), flush=True); open('out/pid', 'w'); time.sleep(120)"


def test_a_stopped_recipe_ends_its_processes_within_seconds(recipe, client, monkeypatch):
    monkeypatch.setattr("alignment.recipes.work.LIVE_LOG_S", 0.0)
    frozen = recipe(one("python task.py", parameters={"n": [1, 2, 3]}, workers=2), task=SLEEP)
    labels = [b["batch"] for b in plan(frozen.uri)["batches"]]
    ends = []

    def drive():
        try:
            run_batch(frozen.uri, labels[0], client)
        except StageFailed as error:
            ends.append(str(error))

    thread = threading.Thread(target=drive)
    thread.start()
    live = join(frozen.uri, "logs/a/00000/live.log")
    deadline = time.monotonic() + 60
    while not exists(live) and time.monotonic() < deadline:
        time.sleep(0.1)
    pid = int(read_log(frozen, "a", "0"))  # what it has printed so far
    assert Path(f"/proc/{pid}").exists()
    begun = time.monotonic()
    assert stop(frozen) == [labels[0]]
    assert is_gone(pid, patience_s=20)
    thread.join(30)
    assert time.monotonic() - begun < 30
    assert "was stopped" in ends[0]
    assert look(frozen).state == "stopped"
    with pytest.raises(StageFailed, match="was stopped; go on with"):
        run_batch(frozen.uri, labels[0], client)
    go_on(frozen)
    assert look(frozen).state == "created"


def test_tasks_of_a_driver_that_was_replaced_end(recipe, client):
    frozen = recipe(one("python task.py"), task=SLEEP)
    ledger.take(frozen.uri, "a.000")
    work = Work(frozen.uri, "a", "a.000", epoch=0)  # an older driver's
    future = client.submit(work, Task(0), pure=False)
    assert "TaskStopped" in repr(future.exception(timeout=60))


def test_a_task_whose_worker_was_lost_before_it_could_say_is_not_done_twice(recipe, client):
    frozen = recipe(one("python task.py"), task="")
    run_all(frozen, client)
    record = client.submit(Work(frozen.uri, "a", "a.000", 1), Task(0), pure=False).result()
    assert record["task"] == "00000"
    assert look(frozen).experiments[0].starts == 1


def test_without_recovery_a_lost_task_is_not_started_again(recipe, client):
    frozen = recipe(one("python task.py", recovery=False), task=FLAKY)
    ledger.take(frozen.uri, "a.000")
    work = Work(frozen.uri, "a", "a.000", epoch=1)
    with pytest.raises(Exception, match="exit status 1"):  # it lacks its argument
        work(Task(0))
    with pytest.raises(TaskLost, match="forbids a second start"):
        work(Task(0))  # as Dask does when the worker of the first is lost


def test_hardware_is_taken_from_workers_that_offer_it_or_asked_for(recipe, client, monkeypatch):
    frozen = recipe(one("python task.py", hardware={"gpu": 1}), task="")
    assert run_all(frozen, client) == [1]
    monkeypatch.setattr(driver, "SLOTS_S", 0.0)
    frozen = recipe(one("python task.py", hardware={"tpu": 1}), task="")
    with pytest.raises(
        StageFailed, match="needs 1 workers at a time that offer tpu=1, the cluster"
    ):
        run_all(frozen, client)
    assert ledger.read_state(frozen.uri, "a.000").error_kind == "config"


PEERS = """
import json, os
names = ["RANK", "WORLD", "CHIEF", "PEERS"]
print({name: os.environ["PETALIGN_" + name] for name in names})
cluster = json.loads(os.environ["TF_CONFIG"])
assert cluster["task"]["index"] == int(os.environ["PETALIGN_RANK"])
assert cluster["cluster"]["worker"] == os.environ["PETALIGN_PEERS"].split(",")
"""


def test_the_processes_of_a_group_know_one_another(recipe, client):
    frozen = recipe(one("python task.py", gang=True, workers=2), task=PEERS)
    assert run_all(frozen, client) == [1]
    first, second = (
        eval(line) for line in read_log(frozen, "a", "0").splitlines() if line.startswith("{")
    )
    assert (first["RANK"], second["RANK"]) == ("0", "1")
    assert first["PEERS"] == second["PEERS"]
    assert first["CHIEF"] == first["PEERS"].split(",")[0]
    assert first["WORLD"] == "2"


HALF = """
import os, sys, time
if os.environ["PETALIGN_RANK"] == "1" and os.environ["PETALIGN_ATTEMPT"] == "0":
    sys.exit(5)
time.sleep(60 * (os.environ["PETALIGN_ATTEMPT"] == "0"))
"""


def test_a_group_starts_again_as_a_whole_when_one_process_fails(recipe, client):
    frozen = recipe(one("python task.py", gang=True, workers=2, retries=1), task=HALF)
    begun = time.monotonic()
    assert run_all(frozen, client) == [1]
    assert time.monotonic() - begun < 45, "the other did not wait to its end"
    assert look(frozen).experiments[0].starts == 4


def test_a_group_that_does_not_fit_the_cluster_is_refused(recipe, client, monkeypatch):
    monkeypatch.setattr(driver, "SLOTS_S", 0.0)
    frozen = recipe(one("python task.py", gang=True, workers=3), task="")
    with pytest.raises(StageFailed, match="needs 3 workers at a time, the cluster has 2"):
        run_all(frozen, client)


SPY = """
import os
print(os.environ.get("AWS_SECRET_ACCESS_KEY", "nothing"), "hunter2" + "hunter2")
"""


def test_secrets_are_lent_only_when_asked_for_and_never_kept(recipe, client, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    frozen = recipe(one("python task.py"), task=SPY)
    run_all(frozen, client)
    assert read_log(frozen, "a", "0") == "nothing ***\n"
    frozen = recipe(one("python task.py", credentials=True), task=SPY + "raise SystemExit(1)")
    with pytest.raises(StageFailed) as failure:
        run_all(frozen, client)
    assert read_log(frozen, "a", "0") == "*** ***\n"
    assert "hunter2" not in str(failure.value)
    stored = [
        path for path in Path(frozen.uri.removeprefix("file://")).rglob("*") if path.is_file()
    ]
    assert not [path for path in stored if b"hunter2hunter2" in path.read_bytes()]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os.symlink('/etc/passwd', 'out/x')", "is a link or a device"),
        ("import os; os.mkfifo('out/x')", "is a link or a device"),
        ("open('out/a\\nb', 'w')", "cannot be kept"),
        ("open('result.json', 'w').write('[1]')", "must hold an object"),
        ("open('result.json', 'w').write('{')", "is not JSON"),
        ("open('result.json', 'w').write('{\"a\": NaN}')", "NaN is not a number of JSON"),
        ("open('result.json', 'w').write('1' * 9999)", "may have 4096 bytes"),
    ],
)
def test_what_cannot_be_kept_fails_the_task(recipe, client, program, reason):
    frozen = recipe(one("python task.py", retries=0), task=program)
    with pytest.raises(StageFailed, match=reason):
        run_all(frozen, client)
    assert list_names(join(frozen.uri, "records/a")) == []


def test_a_file_that_was_changed_in_the_store_is_not_run(recipe, client):
    frozen = recipe(one("python task.py", retries=0), task="print('as it was')")
    Path(frozen.uri.removeprefix("file://"), "files/task.py").write_text("print('changed')")
    with pytest.raises(StageFailed, match="its digest is not"):
        run_all(frozen, client)


def test_no_scratch_folder_stays_behind(recipe, client, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    run_all(recipe(one("python task.py"), task="open('big', 'w')"), client)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_an_unknown_id_is_answered_with_those_that_exist(recipe, tmp_path):
    frozen = recipe(one("python task.py"), task="")
    with pytest.raises(ConfigError, match=f"no recipe 'zzzzzz' in .*; there are {frozen.key}"):
        find(f"file://{tmp_path}/store", "zzzzzz")
    with pytest.raises(ConfigError, match="there are none yet"):
        find(f"file://{tmp_path}/other", "zzzzzz")


def test_a_large_search_is_a_few_batches_whose_windows_together_are_its_workers(recipe):
    many = {"n": {"range": "1-4096", "sampling": "discrete"}}
    text = one("python task.py --n={{n}}", parameters=many, workers=30)
    frozen = recipe(text, task="")
    parts = batches(frozen)
    assert len(parts) == 8
    assert sum(b.window for b in parts) == 30
    assert [parts[0].start, *(b.stop for b in parts)] == list(range(0, 4097, 512))
    assert parts[1].title == "a 00512-01023"
