"""Bring the platform up, and down."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from alignment.platform.airflow_client import AirflowClient
from alignment.platform.airflow_settings import set_up_airflow
from alignment.platform.config import PlatformConfig, variable_of
from alignment.platform.credentials import Credentials, ensure_credentials, read_credentials
from alignment.platform.environment import environment
from alignment.platform.errors import PlatformError
from alignment.platform.health import warm_up_airflow
from alignment.platform.ports import check_ports
from alignment.platform.processes import (
    ProcessId,
    identify,
    is_alive,
    stop_sessions,
)
from alignment.platform.seaweed import sockets
from alignment.platform.services import module_path, services
from alignment.platform.state import (
    Home,
    PlatformState,
    ServiceState,
    Status,
    last_lines,
    read_state,
    write_private,
)
from alignment.platform.supervisor import RETRY_SIGNAL

Progress = Callable[[str, Status], None]
"""Called with a service's title and its status, whenever the status changes."""

_POLL_S = 0.1
_RETRY_S = 3.0
_STOP_S = 60.0


@dataclass(frozen=True)
class PlatformInfo:
    """A platform that is up."""

    config: PlatformConfig

    @property
    def home(self) -> Path:
        """The folder of its data, credentials and logs."""
        return self.config.home

    @property
    def bucket(self) -> str:
        """The bucket of its S3 server."""
        return self.config.bucket

    @property
    def s3_endpoint(self) -> str:
        """The URL of its S3 server."""
        return self.config.s3_endpoint

    @property
    def dask_address(self) -> str:
        """The address of its Dask scheduler."""
        return self.config.dask_address

    @property
    def dask_dashboard_url(self) -> str:
        """The page of its Dask dashboard."""
        return self.config.dask_dashboard_url

    @property
    def airflow_url(self) -> str:
        """The URL of Airflow's pages."""
        return self.config.airflow_url

    def credentials(self) -> Credentials:
        """Return its secrets, among them user and password of Airflow's pages."""
        return read_credentials(Home(self.home))

    def environment(self) -> dict[str, str]:
        """Return the variables with which an S3 client reads and writes its bucket."""
        return environment(self.config)

    def airflow(self) -> AirflowClient:
        """Return a client of Airflow's REST API; close it, or use it in a ``with`` block."""
        secrets = self.credentials()
        return AirflowClient(self.airflow_url, secrets.airflow_user, secrets.airflow_password)

    def processes(self) -> dict[str, ProcessId]:
        """Return the main process of every service, and of the supervisor, by name."""
        state = read_state(Home(self.home))
        if state is None:
            return {}
        found = {s.name: s.process for s in state.services if s.process is not None}
        return found | ({"supervisor": state.supervisor} if state.supervisor else {})


def up(
    config: PlatformConfig, progress: Progress | None = None, *, timeout_s: float = 300.0
) -> PlatformInfo:
    """Start the platform unless it runs, and return when every service is ready.

    If it cannot be brought up, everything that was started is stopped again. A platform that runs
    is left as it is: services that are missing, or were given up, are started.

    Parameters
    ----------
    progress
        Called with a service's title and status whenever its status changes.
    timeout_s
        How long the services together may take to become ready.

    Raises
    ------
    PlatformError
        If a service cannot be started, with the last lines of its log; or if the platform already
        runs with other settings.
    PortTakenError
        If another process listens on a port; nothing was started.
    """
    home = Home(config.home)
    home.create()
    try:
        with _locked(home.up_lock):
            supervisor, is_fresh = _ensure_supervisor(home, config)
    except OSError as error:
        raise PlatformError(
            f"cannot write below {home.folder}: {error.strerror}; free space there, or set "
            "PETALIGN_HOME to a folder on another disk"
        ) from error
    try:
        _wait_ready(home, supervisor, progress, timeout_s=timeout_s)
    except BaseException:
        if is_fresh:
            with _locked(home.up_lock):
                _stop(home, supervisor)
        raise
    platform = PlatformInfo(config)
    with platform.airflow() as airflow:
        set_up_airflow(airflow, config)
    if is_fresh:
        warm_up_airflow(config)
    return platform


def _ensure_supervisor(home: Home, config: PlatformConfig) -> tuple[ProcessId, bool]:
    """Return the supervisor of a home, and whether nothing ran before."""
    state = read_state(home)
    lives = _anything_lives(state)
    if state is not None and lives and state.config != config:
        raise PlatformError(_other_settings(state.config, config))
    if state is not None and state.supervisor is not None and is_alive(state.supervisor):
        if _has_given_up(state):
            os.kill(state.supervisor.pid, RETRY_SIGNAL)
            deadline = time.monotonic() + _RETRY_S
            while _has_given_up(read_state(home)) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        return state.supervisor, False
    check_ports(config, running=state)
    services(home, config, ensure_credentials(home))  # says what is not installed
    write_private(home.config, config.model_dump_json(indent=1))
    return _start_supervisor(home), not lives


def down(config: PlatformConfig) -> list[str]:
    """Stop every service, and the supervisor; data and logs stay.

    Returns
    -------
    list of str
        The titles of the services that ran; empty if none did.
    """
    home = Home(config.home)
    if not home.folder.exists():
        return []
    with _locked(home.up_lock):
        state = read_state(home)
        if state is None:
            return []
        stopped = [service.title for service in state.services if is_alive(service.process)]
        _stop(home, state.supervisor)
        return stopped


def info(config: PlatformConfig) -> PlatformInfo | None:
    """Return the platform of a home if its supervisor runs; its own settings count."""
    state = read_state(Home(config.home))
    return PlatformInfo(state.config) if state and is_alive(state.supervisor) else None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file; a second `up` or `down` waits here."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _start_supervisor(home: Home) -> ProcessId:
    command = (sys.executable, "-P", "-m", "alignment.platform.supervisor", str(home.folder))
    # In the root folder, so that no folder is kept in use that someone may want to delete.
    result = subprocess.run(
        command,
        cwd="/",
        env=os.environ | module_path(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    with suppress(ValueError, psutil.NoSuchProcess):
        return identify(int(result.stdout))
    raise PlatformError(
        f"the supervisor could not be started:\n{result.stderr.strip()}\n"
        f"{last_lines(home.log('supervisor'))}"
    )


def _wait_ready(
    home: Home, supervisor: ProcessId, progress: Progress | None, *, timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    told: dict[str, Status] = {}
    while True:
        alive = is_alive(supervisor)
        state = read_state(home)
        parts = state.services if state and state.supervisor == supervisor else ()
        for part in parts:
            if told.get(part.name) != part.status:
                told[part.name] = part.status
                if progress is not None:
                    progress(part.title, part.status)
        if parts and all(part.status == "ready" for part in parts):
            return
        if failed := [part for part in parts if part.status == "failed"]:
            raise PlatformError("\n".join(_complaint(home, part) for part in failed))
        if not alive:
            log = home.log("supervisor")
            raise PlatformError(f"the supervisor has ended; its log {log}:\n{_indented(log)}")
        if time.monotonic() > deadline:
            late = [part for part in parts if part.status != "ready"]
            raise PlatformError(
                f"not ready after {timeout_s:.0f} s:\n"
                + "\n".join(_complaint(home, part) for part in late)
            )
        time.sleep(_POLL_S)


def _complaint(home: Home, part: ServiceState) -> str:
    log = home.log(part.name)
    what = part.message or part.status
    return f"{part.title}: {what}. The end of {log}:\n{_indented(log)}"


def _indented(log: Path) -> str:
    return "\n".join(f"    {line}" for line in last_lines(log).splitlines())


def _stop(home: Home, supervisor: ProcessId | None) -> None:
    """Let the supervisor stop everything; if it is gone or fails to, do so here."""
    if supervisor is not None and is_alive(supervisor):
        with suppress(ProcessLookupError):
            os.kill(supervisor.pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        while is_alive(supervisor) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if is_alive(supervisor):
            os.kill(supervisor.pid, signal.SIGKILL)
    state = read_state(home)
    if state is not None and not is_alive(state.supervisor):  # else it is a new platform
        stop_sessions({s.process: 5.0 for s in state.services if s.process is not None})
        for file in sockets(state.config):
            file.unlink(missing_ok=True)
        home.state.unlink(missing_ok=True)


def _anything_lives(state: PlatformState | None) -> bool:
    return state is not None and (
        is_alive(state.supervisor) or any(is_alive(s.process) for s in state.services)
    )


def _has_given_up(state: PlatformState | None) -> bool:
    return state is not None and any(service.status == "failed" for service in state.services)


def _other_settings(old: PlatformConfig, new: PlatformConfig) -> str:
    changes = [
        f"{variable_of(name)}: runs with {getattr(old, name)}, asked for {getattr(new, name)}"
        for name in PlatformConfig.model_fields
        if getattr(old, name) != getattr(new, name)
    ]
    return (
        "the platform runs with other settings; stop it first (`petalign down`), or undo:\n"
        + "\n".join(changes)
    )
