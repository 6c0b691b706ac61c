"""The supervisor with services that only sleep, driven step by step."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from alignment.platform import supervisor as supervisor_module
from alignment.platform import watch
from alignment.platform.health import NotReady
from alignment.platform.processes import ProcessId, is_alive
from alignment.platform.services import Preparation, Service
from alignment.platform.state import Home, PlatformState, ServiceState, read_state
from alignment.platform.supervisor import Supervisor

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")
FAIL = (sys.executable, "-c", "print('no luck'); raise SystemExit(3)")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def make(name: str, command: tuple[str, ...] = SLEEP, **more: object) -> Service:
    settings: dict[str, object] = {
        "title": name.capitalize(),
        "environment": os.environ,
        "folder": Path("/"),
        "probe": lambda _: None,
    }
    return Service(name=name, command=command, **(settings | more))  # type: ignore[arg-type]


def preparation(home: Home, command: tuple[str, ...] = (sys.executable, "-c", "")) -> Preparation:
    return Preparation(make("first", command), home.folder / "receipt", "1")


@pytest.fixture
def supervise(home, config, monkeypatch) -> Iterator[Callable[..., Supervisor]]:
    monkeypatch.setattr(watch, "BACKOFF_S", (0.0,))
    monkeypatch.setattr(watch, "PROBE_S", 0.0)
    made: list[Supervisor] = []

    def supervise(*services: Service, prepare: Preparation | None = None, **more) -> Supervisor:
        prepare = prepare or preparation(home)
        made.append(Supervisor(home, config, services, prepare, **more))
        return made[-1]

    yield supervise
    for supervisor in made:
        supervisor.stop()
        supervisor.run()


def states(home: Home) -> dict[str, ServiceState]:
    state = read_state(home)
    return {service.name: service for service in state.services} if state else {}


def step_until(supervisor: Supervisor, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    supervisor.step()
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
        supervisor.step()


def kill(process: ProcessId) -> None:
    os.kill(process.pid, signal.SIGKILL)


def test_services_wait_for_those_they_need(home, supervise):
    open_gate: list[bool] = []

    def probe(_: float) -> None:
        if not open_gate:
            raise NotReady("the gate is closed")

    supervisor = supervise(make("gate", probe=probe), make("guest", after=("gate", "first")))
    step_until(supervisor, lambda: states(home)["first"].status == "ready")
    supervisor.step()
    assert states(home)["gate"].status == "starting"
    assert states(home)["gate"].message == "the gate is closed"
    assert states(home)["guest"].status == "waiting"
    open_gate.append(True)
    step_until(supervisor, lambda: states(home)["guest"].status == "ready")


def test_a_killed_service_is_started_again_and_its_dependants_with_it(home, supervise):
    supervisor = supervise(make("head", restart_with=("tail",)), make("tail"), make("other"))
    names = ("head", "tail", "other")
    step_until(supervisor, lambda: all(states(home)[n].status == "ready" for n in names))
    old = states(home)
    kill(old["head"].process)
    step_until(
        supervisor,
        lambda: all(
            states(home)[n].status == "ready" and states(home)[n].restarts == 1
            for n in ("head", "tail")
        ),
    )
    new = states(home)
    assert new["head"].process != old["head"].process
    assert not is_alive(old["tail"].process)
    assert new["other"] == old["other"]


def test_a_service_that_keeps_dying_is_given_up_and_can_be_tried_again(home, supervise):
    supervisor = supervise(make("bad", FAIL))
    step_until(supervisor, lambda: states(home)["bad"].status == "failed")
    given_up = states(home)["bad"]
    assert given_up.message == "died 5 times in a row: exit status 3"
    assert given_up.process is None
    assert home.log("bad").read_text().count("no luck") == watch.MAX_DEATHS
    supervisor.retry()
    step_until(supervisor, lambda: states(home)["bad"].status == "restarting")


def test_a_service_that_was_ready_for_a_while_is_forgiven(home, supervise, monkeypatch):
    monkeypatch.setattr(watch, "STEADY_S", 0.0)
    supervisor = supervise(make("mortal"))
    for life in range(watch.MAX_DEATHS + 2):
        step_until(supervisor, lambda: states(home)["mortal"].status == "ready")
        supervisor.step()
        assert states(home)["mortal"].restarts == life
        kill(states(home)["mortal"].process)
        step_until(supervisor, lambda life=life: states(home)["mortal"].restarts > life)


def test_a_program_that_does_not_exist_is_a_death_like_any_other(home, supervise):
    supervisor = supervise(make("ghost", ("/no/such/program",)))
    step_until(supervisor, lambda: states(home)["ghost"].status == "failed")
    assert "No such file or directory" in states(home)["ghost"].message


def test_preparation_runs_once_for_a_version(home, supervise):
    count = home.folder / "count"
    command = (sys.executable, "-c", f"open({str(count)!r}, 'a').write('x')")
    once = preparation(home, command)
    for prepare, runs in ((once, "x"), (once, "x"), (replace(once, version="2"), "xx")):
        supervisor = supervise(prepare=prepare)
        step_until(supervisor, lambda: states(home)["first"].status == "ready")
        assert count.read_text() == runs


def test_failed_preparation_holds_back_who_needs_it(home, supervise):
    supervisor = supervise(make("guest", after=("first",)), prepare=preparation(home, FAIL))
    step_until(supervisor, lambda: states(home)["first"].status == "failed")
    assert states(home)["guest"].status == "waiting"
    assert not preparation(home).is_done()


def test_the_next_supervisor_takes_over_what_lives(home, config, supervise):
    services = (make("steady"), make("fallen"))
    first = supervise(*services)
    step_until(first, lambda: all(states(home)[n].status == "ready" for n in ("steady", "fallen")))
    old = states(home)
    kill(old["fallen"].process)
    os.waitpid(old["fallen"].process.pid, 0)
    second = supervise(*services, known=read_state(home))
    step_until(second, lambda: states(home)["fallen"].process not in (None, old["fallen"].process))
    step_until(second, lambda: states(home)["steady"].status == "ready")
    assert states(home)["steady"].process == old["steady"].process


def test_all_end_when_the_home_is_deleted(home, supervise):
    supervisor = supervise(make("steady"))
    step_until(supervisor, lambda: states(home)["steady"].status == "ready")
    process = states(home)["steady"].process
    home.folder.rename(home.folder.with_name("elsewhere"))
    supervisor.run()
    assert not is_alive(process)


def test_run_ends_all_services_when_told_to(home, supervise):
    supervisor = supervise(make("user"), make("used", stop_first=False))
    step_until(supervisor, lambda: all(s.status == "ready" for s in states(home).values()))
    processes = [state.process for state in states(home).values() if state.process]
    assert len(processes) == 2
    supervisor.stop()
    supervisor.run()
    assert not any(is_alive(process) for process in processes)
    assert not home.state.exists()


def test_a_log_that_grew_too_long_is_set_aside_while_it_is_written(home, supervise, monkeypatch):
    monkeypatch.setattr(supervisor_module, "MAX_LOG_BYTES", 100)
    chatty = "import time\nwhile True: print('x' * 50, flush=True); time.sleep(0.02)"
    supervisor = supervise(make("chatty", (sys.executable, "-c", chatty)))
    log = home.log("chatty")
    monkeypatch.setattr(supervisor_module, "LOG_CHECK_S", 0.0)
    step_until(supervisor, lambda: log.with_suffix(".log.1").exists())
    written = log.with_suffix(".log.1").read_bytes()
    assert written.startswith(b"\n--- started")
    step_until(supervisor, lambda: log.exists() and log.stat().st_size > 0)
    assert not log.read_bytes().startswith(b"\0")


def test_the_state_file_survives_deletion(home, supervise):
    supervisor = supervise(make("steady"))
    step_until(supervisor, lambda: states(home)["steady"].status == "ready")
    home.state.unlink()
    supervisor.step()
    assert isinstance(read_state(home), PlatformState)


def test_a_full_disk_does_not_end_the_supervisor(home, supervise, monkeypatch):
    supervisor = supervise(make("one"))
    step_until(supervisor, lambda: states(home)["one"].status == "ready")
    before = states(home)["one"].process

    def full(path, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(supervisor_module, "write_private", full)
        kill(before)
        for _ in range(30):
            supervisor.step()
            time.sleep(0.01)
    assert states(home)["one"].process == before  # nothing new could be written
    step_until(supervisor, lambda: states(home)["one"].status == "ready")
    assert is_alive(states(home)["one"].process)
    assert states(home)["one"].process != before


def test_a_service_that_lives_but_does_not_work_any_more_is_started_again(
    home, supervise, monkeypatch
):
    monkeypatch.setattr(watch, "VITAL_S", 0.0)
    monkeypatch.setattr(watch, "UNWELL_S", 0.5)
    ill: list[ProcessId | None] = []

    def vital(_: float) -> None:
        if states(home)["head"].process in ill:
            raise NotReady("no heartbeat")

    head = make("head", vital=vital, restart_with=("tail",))
    supervisor = supervise(head, make("tail"))
    step_until(supervisor, lambda: all(states(home)[n].status == "ready" for n in ("head", "tail")))
    old = states(home)
    ill.append(old["head"].process)
    step_until(supervisor, lambda: states(home)["head"].message == "no heartbeat")
    assert states(home)["head"].process == old["head"].process, "it is not killed at once"
    step_until(supervisor, lambda: states(home)["head"].process not in (None, *ill))
    assert not is_alive(old["head"].process)
    assert states(home)["head"].restarts == 1
    step_until(supervisor, lambda: all(states(home)[n].status == "ready" for n in ("head", "tail")))
    assert states(home)["tail"].process != old["tail"].process


def test_a_service_that_is_unwell_for_a_moment_is_left_alone(home, supervise, monkeypatch):
    monkeypatch.setattr(watch, "VITAL_S", 0.0)
    bad_moments = ["no answer", "no answer"]

    def vital(_: float) -> None:
        if bad_moments:
            raise OSError(bad_moments.pop())

    supervisor = supervise(make("one", vital=vital))
    step_until(supervisor, lambda: states(home)["one"].message == "no answer")
    step_until(supervisor, lambda: not states(home)["one"].message)
    assert (states(home)["one"].status, states(home)["one"].restarts) == ("ready", 0)
