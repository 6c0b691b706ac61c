"""The process that keeps the services alive: ``python -m alignment.platform.supervisor HOME``.

It starts each service in a session of its own, asks it whether it is ready, starts it again when
it dies, and writes what it knows to ``platform.json`` after every change. Killing it leaves the
services running; the next supervisor finds them in that file and takes them over.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from alignment.platform.config import PlatformConfig
from alignment.platform.credentials import ensure_credentials
from alignment.platform.errors import PlatformError
from alignment.platform.processes import identify, kill_session, stop_sessions
from alignment.platform.services import Preparation, Service, preparation, services
from alignment.platform.state import Home, PlatformState, ServiceState, read_state, write_private
from alignment.platform.watch import Watched

TICK_S = 0.1
LOG_CHECK_S = 30.0
MAX_LOG_BYTES = 20_000_000
RETRY_SIGNAL = signal.SIGHUP
"""Asks the supervisor to start again what it has given up."""

_log = logging.getLogger("petalign.supervisor")


class Supervisor:
    """Keeps the services of one home alive until it is told to stop.

    Parameters
    ----------
    known
        What the supervisor before this one knew; services that still run are taken over.
    """

    def __init__(
        self,
        home: Home,
        config: PlatformConfig,
        services: Iterable[Service],
        prepare: Preparation,
        *,
        known: PlatformState | None = None,
    ) -> None:
        self._home = home
        self._config = config
        self._preparation = prepare
        self._prepared = Watched.of(prepare.service)
        self._watched = [Watched.of(service, known) for service in services]
        self._known = known
        self._stopping = False
        self._retry = False
        self._log_check_due = 0.0
        self._is_unwritten = False

    def stop(self, *_: int | FrameType | None) -> None:
        """Let `run` end the services and return; also the handler of SIGTERM and SIGINT."""
        self._stopping = True

    def retry(self, *_: int | FrameType | None) -> None:
        """Start again what was given up; also the handler of `RETRY_SIGNAL`."""
        self._retry = True

    def run(self) -> None:
        """Watch the services until `stop` is called or the home folder is deleted."""
        self._kill_strays()
        self._write()
        while not self._stopping:
            if not self._home.folder.exists():
                _log.error("%s is gone: stopping all services", self._home.folder)
                break
            self.step()
            time.sleep(TICK_S)
        self._end()

    def step(self) -> None:
        """Look at every service once."""
        before = self._states()
        if self._retry:
            self._retry = False
            for watched in self._all():
                watched.resume()
        self._step_preparation()
        for watched in self._watched:
            self._step_service(watched)
        if self._states() != before or self._is_unwritten or not self._home.state.exists():
            self._write()
        if time.monotonic() >= self._log_check_due:
            self._log_check_due = time.monotonic() + LOG_CHECK_S
            _cut_logs(self._home)

    def _step_preparation(self) -> None:
        watched = self._prepared
        if watched.is_due():
            if self._preparation.is_done():
                watched.set(status="ready", message="")
            else:
                self._start(watched)
        elif watched.state.status == "starting" and not watched.lives():
            if watched.child is not None and watched.child.returncode == 0:
                self._preparation.sign()
                watched.clear()
                watched.set(status="ready", message="")
            else:
                watched.bury(max_deaths=1)  # it would fail in the same way again

    def _step_service(self, watched: Watched) -> None:
        if watched.is_due():
            ready = {other.service.name for other in self._all() if other.state.status == "ready"}
            if ready.issuperset(watched.service.after):
                self._start(watched)
        elif watched.state.status in ("starting", "ready"):
            if not watched.lives():
                self._bury(watched)
            elif watched.state.status == "starting":
                watched.probe()
            elif trouble := watched.examine():
                self._bury(watched, f"killed, since it did not work any more: {trouble}")
            else:
                watched.forgive()

    def _bury(self, watched: Watched, ended: str | None = None) -> None:
        watched.bury(ended)
        for other in self._watched:
            if other.service.name in watched.service.restart_with:
                other.restart(because=watched.service.title)

    def _start(self, watched: Watched) -> None:
        watched.start(self._home)
        self._write()  # at once: a supervisor killed now must not leave an unknown process

    def _kill_strays(self) -> None:
        """Kill what is left of services that died while there was no supervisor."""
        taken_over = {watched.state.process for watched in self._watched}
        for state in self._known.services if self._known else ():
            if state.process is not None and state.process not in taken_over:
                kill_session(state.process)

    def _end(self) -> None:
        """Stop all services: first those that use others."""
        for stop_first in (True, False):
            group = [w for w in self._all() if w.service.stop_first is stop_first]
            stop_sessions(
                {w.state.process: w.service.grace_s for w in group if w.state.process is not None}
            )
            for watched in group:
                watched.clear()
        self._home.state.unlink(missing_ok=True)
        _log.info("all services have stopped")

    def _all(self) -> list[Watched]:
        return [self._prepared, *self._watched]

    def _states(self) -> tuple[ServiceState, ...]:
        return tuple(watched.state for watched in self._all())

    def _write(self) -> None:
        state = PlatformState(
            config=self._config, supervisor=identify(os.getpid()), services=self._states()
        )
        try:
            write_private(self._home.state, state.model_dump_json(indent=1))
        except FileNotFoundError:
            return  # the home was deleted: `run` ends at its next look
        except OSError as error:  # a full disk: the services need their supervisor all the more
            if not self._is_unwritten:
                _log.warning("cannot write %s, trying on: %s", self._home.state, error)
            self._is_unwritten = True
        else:
            self._is_unwritten = False


def _cut_logs(home: Home) -> None:
    """Set aside logs that grew too long; the services go on appending to the emptied file."""
    for log in home.logs.glob("*.log"):
        if log.stat().st_size > MAX_LOG_BYTES:
            log.with_suffix(".log.1").write_bytes(log.read_bytes())
            os.truncate(log, 0)


def main(arguments: list[str]) -> None:
    """Detach from the caller, to whom the pid is printed, and supervise the home given."""
    home = Home(Path(arguments[0]))
    _detach(home.log("supervisor"))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    _log.setLevel(logging.INFO)
    with home.supervisor_lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.error("another supervisor looks after %s", home.folder)
            sys.exit(1)
        config = PlatformConfig.model_validate_json(home.config.read_text())
        credentials = ensure_credentials(home)
        known = None
        with suppress(PlatformError):
            known = read_state(home)
        supervisor = Supervisor(
            home,
            config,
            services(home, config, credentials),
            preparation(home, config, credentials),
            known=known,
        )
        signal.signal(signal.SIGTERM, supervisor.stop)
        signal.signal(signal.SIGINT, supervisor.stop)
        signal.signal(RETRY_SIGNAL, supervisor.retry)
        supervisor.run()


def _detach(log: Path) -> None:
    """Become a process that belongs to no terminal and whose parent need not wait for it."""
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream, descriptor in ((0, null), (1, output), (2, output)):
        os.dup2(descriptor, stream)


if __name__ == "__main__":
    main(sys.argv[1:])
