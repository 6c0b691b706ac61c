"""What `up` and `down` say and do, with processes that only sleep in place of the supervisor."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from alignment.platform.credentials import ensure_credentials
from alignment.platform.errors import PlatformError
from alignment.platform.lifecycle import down, info, up
from alignment.platform.processes import ProcessId, identify, is_alive, kill_session, start
from alignment.platform.state import Home, PlatformState, ServiceState, read_state, write_private

SLEEP = """
import signal, time
signal.signal(signal.SIGHUP, lambda *_: print("retry", flush=True))
print("ready", flush=True)
while True: time.sleep(60)
"""


@pytest.fixture
def home(config) -> Home:
    home = Home(config.home)
    home.create()
    return home


@pytest.fixture
def sleeper(home) -> Iterator[Callable[[], ProcessId]]:
    """Return a function that starts a process, which prints when it is asked to try again."""
    children = []

    def sleeper() -> ProcessId:
        log = home.log(f"sleeper-{len(children)}")
        command = (sys.executable, "-c", SLEEP)
        child = start(command, environment=os.environ, folder=home.folder, log=log)
        children.append((child, identify(child.pid)))
        while b"ready" not in log.read_bytes():
            time.sleep(0.01)
        return children[-1][1]

    yield sleeper
    for child, process in children:
        kill_session(process)
        child.wait()


def pretend(home: Home, config, supervisor: ProcessId | None, *services: ServiceState) -> None:
    state = PlatformState(config=config, supervisor=supervisor, services=services)
    write_private(home.state, state.model_dump_json())


def test_up_returns_at_once_when_all_is_ready(home, config, sleeper, monkeypatch):
    pretend(home, config, sleeper(), ServiceState(name="x", title="X", status="ready"))
    ensure_credentials(home)
    set_up = []
    monkeypatch.setattr(
        "alignment.platform.lifecycle.set_up_airflow", lambda _, config: set_up.append(config)
    )
    seen: list[tuple[str, str]] = []
    platform = up(config, lambda title, status: seen.append((title, status)))
    assert platform.config == config
    assert seen == [("X", "ready")]
    assert set_up == [config], "what a user deleted from Airflow's database is there again"


def test_up_quotes_the_log_of_what_was_given_up_and_asks_to_try_again(
    home, config, sleeper, monkeypatch
):
    monkeypatch.setattr("alignment.platform.lifecycle._RETRY_S", 0.0)
    failed = ServiceState(name="x", title="X", status="failed", message="exit status 3")
    pretend(home, config, sleeper(), failed)
    home.log("x").write_text("\n--- started now ---\nno such table: dag\n")
    with pytest.raises(PlatformError) as error:
        up(config)
    assert str(error.value).startswith("X: exit status 3. The end of ")
    assert str(home.log("x")) in str(error.value)
    assert str(error.value).endswith("    no such table: dag")
    deadline = time.monotonic() + 10
    while b"retry" not in home.log("sleeper-0").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_up_does_not_wait_for_ever(home, config, sleeper):
    slow = ServiceState(name="x", title="X", status="starting", message="1 of 2 workers")
    done = ServiceState(name="y", title="Y", status="ready")
    supervisor = sleeper()
    pretend(home, config, supervisor, slow, done)
    with pytest.raises(PlatformError, match=r"not ready after 0 s:\nX: 1 of 2 workers") as error:
        up(config, timeout_s=0.0)
    assert "Y" not in str(error.value)
    assert is_alive(supervisor)  # it ran before, so it is left as it was


def test_up_says_when_the_supervisor_dies_meanwhile(home, config, sleeper):
    supervisor = sleeper()
    pretend(home, config, supervisor, ServiceState(name="x", title="X", status="starting"))
    home.log("supervisor").write_text("\n--- started now ---\nno space left\n")
    with pytest.raises(PlatformError, match=r"the supervisor has ended.*\n    no space left"):
        up(config, lambda *_: kill_session(supervisor))


def test_down_stops_what_a_dead_supervisor_left(home, config, sleeper):
    first, second = sleeper(), sleeper()
    dead = first.model_copy(update={"birth": "another"})
    pretend(
        home,
        config,
        dead,
        ServiceState(name="x", title="X", status="ready", process=first),
        ServiceState(name="y", title="Y", status="ready", process=second),
        ServiceState(name="z", title="Z", status="waiting"),
    )
    assert info(config) is None
    assert down(config) == ["X", "Y"]
    assert not is_alive(first)
    assert not is_alive(second)
    assert read_state(home) is None


def test_a_process_with_a_pid_that_was_used_again_is_left_alone(home, config, sleeper):
    stranger = sleeper()
    stale = stranger.model_copy(update={"birth": "another"})
    pretend(home, config, stale, ServiceState(name="x", title="X", process=stale))
    assert down(config) == []
    assert is_alive(stranger)


def test_a_supervisor_that_cannot_start_is_quoted_and_nothing_is_left(home, config, monkeypatch):
    def refuse(*_: object) -> None:
        raise PlatformError("the supervisor could not be started")

    monkeypatch.setattr("alignment.platform.lifecycle._start_supervisor", refuse)
    monkeypatch.setattr("alignment.platform.lifecycle.services", lambda *_: [])
    with pytest.raises(PlatformError, match="could not be started"):
        up(config)
    assert read_state(home) is None
