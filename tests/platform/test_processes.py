import os
import subprocess
import sys
import time

import psutil
import pytest

from alignment.platform.processes import (
    identify,
    is_alive,
    kill_session,
    session_of,
    start,
    stop_sessions,
)

FAMILY = """
import os, sys, time
if os.fork() == 0:
    os.setpgid(0, 0)      # as Airflow's tasks do
    time.sleep(60)
print("ready", flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def spawn(tmp_path):
    """Return a function that starts a Python program and waits until it says it is ready."""
    children = []

    def spawn(program: str) -> subprocess.Popen[bytes]:
        log = tmp_path / f"{len(children)}.log"
        command = (sys.executable, "-c", program)
        child = start(command, environment=os.environ, folder=tmp_path, log=log)
        children.append((child, identify(child.pid)))
        while b"ready" not in log.read_bytes():
            time.sleep(0.01)
        return child

    yield spawn
    for child, process in children:
        kill_session(process)
        child.wait()


def test_a_pid_that_was_used_again_is_another_process():
    here = identify(os.getpid())
    assert is_alive(here)
    assert not is_alive(here.model_copy(update={"birth": here.birth + "1"}))
    assert session_of(here.model_copy(update={"birth": here.birth + "1"})) == []


def test_a_zombie_is_dead(spawn):
    child = spawn("print('ready')")
    process = identify(child.pid)
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not is_alive(process)
    child.wait()
    assert not is_alive(process)


def test_nobody_is_not_alive():
    assert not is_alive(None)


def test_the_children_of_a_killed_leader_are_found_and_killed(spawn):
    child = spawn(FAMILY)
    process = identify(child.pid)
    assert len(session_of(process)) == 2
    child.kill()
    child.wait()
    (orphan,) = session_of(process)
    assert os.getpgid(orphan.pid) != child.pid
    kill_session(process)
    assert session_of(process) == []
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_nothing_is_killed_for_a_process_of_before_the_machine_was_restarted(spawn):
    child = spawn(FAMILY)
    process = identify(child.pid)
    child.kill()
    child.wait()
    stale = process.model_copy(update={"birth": "another-boot:" + process.birth})
    kill_session(stale)
    assert len(session_of(process)) == 1


def test_who_does_not_end_in_time_is_killed(spawn):
    willing, stubborn = (identify(spawn(program).pid) for program in (FAMILY, STUBBORN))
    start_s = time.monotonic()
    stop_sessions({willing: 30.0, stubborn: 0.3})
    assert 0.3 <= time.monotonic() - start_s < 10
    assert session_of(willing) == session_of(stubborn) == []


def test_output_is_added_to_the_log_below_a_line_with_the_time(spawn, tmp_path):
    spawn("print('ready')")
    lines = (tmp_path / "0.log").read_text().splitlines()
    assert lines[1].startswith("--- started 20")
    assert lines[2] == "ready"
