"""One service under watch: started, asked whether it is ready, buried, started again."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Any

import psutil

from alignment.platform.processes import identify, is_alive, kill_session, start
from alignment.platform.services import Service
from alignment.platform.state import Home, PlatformState, ServiceState

MAX_DEATHS = 5
"""A service that dies so often without having been ready for `STEADY_S` is given up."""
STEADY_S = 10.0
BACKOFF_S = (0.2, 1.0, 3.0, 8.0)
"""Waits before the first, second, ... start again."""
PROBE_S = 0.3
VITAL_S, UNWELL_S = 10.0, 60.0
"""Between two looks at a service that is ready, and how long it may be unwell before it is killed.

Airflow says that a part is unwell 20 s after its last heartbeat. A busy machine is no reason.
"""

_log = logging.getLogger("petalign.supervisor")


@dataclass
class Watched:
    """A service and how it is doing."""

    service: Service
    state: ServiceState
    child: subprocess.Popen[bytes] | None = None
    """Its process, unless an earlier supervisor started it."""
    deaths: int = 0
    due: float = 0.0
    """When it may be started again; this and the next two are s of the monotonic clock."""
    probe_due: float = 0.0
    ready_since: float = 0.0
    well_at: float = 0.0
    """When it was last seen to do its work."""
    vital_due: float = 0.0

    @classmethod
    def of(cls, service: Service, known: PlatformState | None = None) -> Watched:
        """Watch a service, which is taken over if `known` names a process of it that lives."""
        state = known.service(service.name) if known else None
        if state is None or not is_alive(state.process):
            return cls(service, ServiceState(name=service.name, title=service.title))
        _log.info("%s taken over", service.name)
        changes = {"status": "starting", "message": "", "title": service.title}
        return cls(service, state.model_copy(update=changes))

    def set(self, **changes: Any) -> None:
        """Change the state."""
        self.state = self.state.model_copy(update=changes)

    def is_due(self) -> bool:
        """Return whether it is to be started now, as far as it alone is concerned."""
        waits = self.state.status in ("waiting", "restarting")
        return waits and time.monotonic() >= self.due

    def lives(self) -> bool:
        """Return whether its process runs; a dead child is reaped."""
        if self.child is not None:
            return self.child.poll() is None
        return is_alive(self.state.process)

    def start(self, home: Home) -> None:
        """Start its process."""
        service, started = self.service, time.time()
        try:
            self.child = start(
                service.command,
                environment=service.environment,
                folder=service.folder,
                log=home.log(service.name),
            )
            process = identify(self.child.pid)
        except (OSError, psutil.NoSuchProcess) as error:
            self.bury(f"cannot be started: {error}")
            return
        _log.info("%s started, pid %d", service.name, process.pid)
        self.set(status="starting", process=process, started=started, message="")
        self.probe_due = 0.0

    def probe(self) -> None:
        """Ask whether it is ready, if it was not asked just now."""
        if time.monotonic() < self.probe_due or self.state.process is None:
            return
        try:
            self.service.probe(self.state.started)
        except Exception as error:  # whatever it is, the service is not ready, and this says why
            self.set(message=_first_line(error))
            self.probe_due = time.monotonic() + PROBE_S
        else:
            _log.info("%s is ready", self.service.name)
            self.ready_since = self.well_at = time.monotonic()
            self.vital_due = self.ready_since + VITAL_S
            self.set(status="ready", message="")

    def examine(self) -> str:
        """Ask whether it still does its work; return why not once that has lasted too long."""
        if self.service.vital is None or time.monotonic() < self.vital_due:
            return ""
        self.vital_due = time.monotonic() + VITAL_S
        try:
            self.service.vital(self.state.started)
        except Exception as error:  # as in `probe`
            message = _first_line(error)
        else:
            message, self.well_at = "", time.monotonic()
        if self.state.message != message:
            self.set(message=message)
        return message if time.monotonic() - self.well_at > UNWELL_S else ""

    def forgive(self) -> None:
        """Forget earlier deaths once it has been ready for a while."""
        if self.deaths and time.monotonic() - self.ready_since > STEADY_S:
            self.deaths = 0

    def bury(self, ended: str | None = None, *, max_deaths: int = MAX_DEATHS) -> None:
        """Clear away what a dead process left, and decide whether it is started again."""
        ended = ended or _how_it_ended(self.child)
        self.clear()
        self.deaths += 1
        if self.deaths >= max_deaths:
            times = f"died {self.deaths} times in a row: " if self.deaths > 1 else ""
            self.set(status="failed", message=f"{times}{ended}")
        else:
            self.due = time.monotonic() + BACKOFF_S[min(self.deaths, len(BACKOFF_S)) - 1]
            self._set_restarting(ended)
        _log.warning("%s died (%s), now %s", self.service.name, ended, self.state.status)

    def restart(self, *, because: str) -> None:
        """Kill its process, which is of no use any more, and start another."""
        if self.state.status in ("starting", "ready"):
            self.clear()
            self.due = time.monotonic()
            self._set_restarting(f"started again with the {because}")

    def resume(self) -> None:
        """Give it another chance after it was given up."""
        if self.state.status == "failed":
            self.deaths = 0
            self.set(status="waiting", message="")

    def clear(self) -> None:
        """Kill every process of its session, whose leader may be dead, and delete its leftovers."""
        if self.state.process is not None:
            kill_session(self.state.process)
        if self.child is not None:
            self.child.wait()
            self.child = None
        for file in self.service.leftovers:
            file.unlink(missing_ok=True)
        self.set(process=None)

    def _set_restarting(self, message: str) -> None:
        self.set(status="restarting", restarts=self.state.restarts + 1, message=message)


def _how_it_ended(child: subprocess.Popen[bytes] | None) -> str:
    if child is None or child.returncode is None:
        return "it ended"
    if child.returncode < 0:
        return f"ended by {signal.Signals(-child.returncode).name}"
    return f"exit status {child.returncode}"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
