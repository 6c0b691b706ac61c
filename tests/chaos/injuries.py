"""How each kind of fault is done, and undone."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from alignment.platform.lifecycle import PlatformInfo
from alignment.platform.processes import ProcessId, identify, is_alive
from tests.chaos.gate import Gate
from tests.chaos.parts import processes_of
from tests.chaos.plan import S3_TIMES, Planned
from tests.faults.fault import Fault

WORKER_TTL_S = 15.0
"""Dask gives up a worker that was silent for so long; its default is 5 minutes."""
FREEZE_S = {"worker": WORKER_TTL_S + 8, "airflow-scheduler": 28.0, "airflow-triggerer": 28.0}
"""Longer than anybody's patience: Airflow's is 20 s."""
FREEZE_OTHERS_S = 12.0
S3_S, FULL_S = 8.0, 10.0
"""A fault of S3 is lifted after so long, if it has not struck as often as it should."""
MAGNITUDE = 64 * 1024


@dataclass
class Injury:
    """A fault that was done."""

    at: float
    """s since 1970."""
    kind: str
    what: str
    volumes: tuple[str, ...]
    """Whose runs were under way."""
    fault: Fault | None = None

    @property
    def struck(self) -> bool:
        """Whether anything came of it: a fault of S3 waits for a request."""
        return self.fault is None or bool(self.fault.struck)


@dataclass
class Hand:
    """Does the faults."""

    gate: Gate
    disks: dict[str, Path]
    """Where each disk that may be filled is mounted."""
    undo: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def strike(self, planned: Planned, platform: PlatformInfo, volumes: tuple[str, ...]) -> Injury:
        """Do a fault; `LookupError` if there is nothing to strike now."""
        verb, _, part = planned.kind.partition(" ")
        injury = Injury(time.time(), planned.kind, "", volumes)
        if verb == "S3:":
            injury.fault = Fault(part, times=S3_TIMES[part], seed=math.floor(planned.draw * 1e6))
            self.gate.install(injury.fault)
            self._later(S3_S, lambda: self._lift(injury.fault))
        elif verb == "full":
            injury.what = self._fill(part.removeprefix("disk: "))
        else:
            injury.what = self._signal(verb, part, planned.draw, platform)
        return injury

    def _signal(self, verb: str, part: str, draw: float, platform: PlatformInfo) -> str:
        victims = processes_of(platform, part)
        if not victims:
            raise LookupError(f"no {part} runs now")
        victim = identify(victims[int(draw * len(victims))].pid)
        if verb == "kill":
            os.kill(victim.pid, signal.SIGKILL)
        else:
            os.kill(victim.pid, signal.SIGSTOP)
            self._later(FREEZE_S.get(part, FREEZE_OTHERS_S), lambda: _thaw(victim))
        return f"pid {victim.pid}"

    def _fill(self, name: str) -> str:
        if name not in self.disks:
            raise LookupError(f"no disk of its own for {name}: mounting needs root")
        file = self.disks[name] / "filler"
        free = os.statvfs(file.parent)
        size = free.f_bavail * free.f_frsize
        self._later(FULL_S, lambda: file.unlink(missing_ok=True))
        filler = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            with suppress(OSError):
                os.posix_fallocate(filler, 0, max(size - MAGNITUDE, 1))
            with suppress(OSError):
                while True:
                    os.write(filler, bytes(4096))
        finally:
            os.close(filler)
        return f"{size / 2**20:.0f} MiB were free"

    def _lift(self, fault: Fault | None) -> None:
        if self.gate.fault is fault:
            self.gate.install(None)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self.undo.append((time.monotonic() + seconds, act))

    def tick(self, *, everything: bool = False) -> None:
        """Undo what is due; all that is left if asked to."""
        due = [item for item in self.undo if everything or item[0] <= time.monotonic()]
        self.undo = [item for item in self.undo if item not in due]
        for _, act in due:
            act()


def _thaw(victim: ProcessId) -> None:
    if is_alive(victim):
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGCONT)
