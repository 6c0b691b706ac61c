"""Programs on a worker: how they end, and that they never outlive it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignment.recipes import process
from alignment.recipes.errors import TaskFailed, TaskStopped
from alignment.recipes.process import run_program

DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
    os._exit(0)
time.sleep(0.3)
"""


@pytest.fixture(autouse=True)
def _no_keepers_are_left():
    yield
    process.end_idle()


@pytest.fixture
def run(tmp_path):
    log = tmp_path / "log"
    log.touch()

    def run(code, *, timeout_s=30.0, watch=lambda: None):
        return run_program(
            [sys.executable, "-c", code],
            environment={"ONLY": "this"},
            folder=tmp_path,
            log=log,
            timeout_s=timeout_s,
            watch=watch,
        )

    run.log = log
    return run


def is_gone(pid, patience_s=10.0):
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "ZX":
            return True
        time.sleep(0.05)
    return False


def test_a_program_gives_its_status_and_its_log(run):
    assert run("import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)") == 3
    assert set(run.log.read_text().split()) == {"one", "two"}
    assert run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)") == -signal.SIGSEGV


def test_a_program_sees_only_the_environment_that_it_was_given(run):
    run("import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))")
    assert run.log.read_text() == "['ONLY']\n"


def test_what_a_program_leaves_running_in_the_background_is_ended(run):
    assert run(DAEMON) == 0
    assert is_gone(int(run.log.read_text()))


def test_a_program_that_runs_too_long_is_ended_even_if_it_does_not_listen(run):
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    begun = time.monotonic()
    with pytest.raises(TaskFailed, match="longer than timeout_s"):
        run(code, timeout_s=0.5)
    assert time.monotonic() - begun < 15


def test_a_program_that_is_no_longer_wanted_is_ended_by_its_id(run):
    def watch():
        if run.log.read_text():
            raise TaskStopped("by a user")

    with pytest.raises(TaskStopped):
        run("import os, time; print(os.getpid(), flush=True); time.sleep(60)", watch=watch)
    assert is_gone(int(run.log.read_text()))


def test_a_program_that_prints_without_end_is_ended(run, monkeypatch):
    monkeypatch.setattr(process, "MAX_LOG_BYTES", 1000)
    with pytest.raises(TaskFailed, match="printed more than 1000 bytes"):
        run("import time\nprint('x' * 2000, flush=True)\ntime.sleep(60)")


def test_a_program_that_ends_before_anyone_looks_is_not_waited_for(tmp_path):
    keeper = process.Keeper()
    log = str(tmp_path / "log")
    keeper.send(json.dumps({"argv": ["/bin/true"], "env": {}, "cwd": "/", "log": log}))
    time.sleep(1.0)  # both answers are there
    assert "pid" in keeper.receive(5.0)
    assert keeper.receive(5.0) == {"status": 0}
    keeper.close()


def test_a_program_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(TaskFailed, match=r"cannot be started: .*No such file"):
        run_program(
            ["/nowhere/program"],
            environment={},
            folder=tmp_path,
            log=tmp_path / "log",
            timeout_s=1,
            watch=lambda: None,
        )


WORKER = """
import sys
from pathlib import Path
from alignment.recipes.process import run_program
folder = Path(sys.argv[1])
code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
run_program([sys.executable, "-c", code], environment={}, folder=folder, log=folder / "log",
            timeout_s=60, watch=lambda: None)
"""


@pytest.mark.parametrize("victim", ["worker", "keeper"])
def test_a_program_does_not_outlive_a_killed_worker_or_keeper(tmp_path, victim):
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )
    log, deadline = tmp_path / "log", time.monotonic() + 30
    while not (log.exists() and log.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    program = int(log.read_text())
    keeper = int(Path(f"/proc/{program}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker.pid if victim == "worker" else keeper, signal.SIGKILL)
    assert is_gone(program)
    assert is_gone(keeper)
    assert worker.wait(30) != 0
