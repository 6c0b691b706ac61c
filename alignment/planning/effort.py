"""What units take of the process that does them: processor time and memory.

Neither is part of a record, which is equal from every attempt; both go to the driver, which sums
them up in the ledger.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass
class Effort:
    """What one unit took; known when it is done."""

    busy_s: float = 0.0
    """Processor time of all threads, those of libraries too."""
    peak_bytes: int = 0
    """Most memory that the process held meanwhile, resident."""


class Clock:
    """Shares the process's time out among the units that run in it side by side.

    Parameters
    ----------
    now : callable
        Processor time of the whole process, seconds.
    """

    def __init__(self, now: Callable[[], float] = time.process_time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._at_work: list[Effort] = []
        self._last = 0.0

    @contextmanager
    def measured(self) -> Iterator[Effort]:
        """Measure what is done in the block."""
        effort = Effort()
        with self._lock:
            self._share()
            if not self._at_work:
                _forget_peak()
            self._at_work.append(effort)
        try:
            yield effort
        finally:
            with self._lock:
                self._share()
                # By identity: efforts that took the same are equal.
                self._at_work = [other for other in self._at_work if other is not effort]
            effort.peak_bytes = _peak_bytes()

    def _share(self) -> None:
        now = self._now()
        for effort in self._at_work:
            effort.busy_s += (now - self._last) / len(self._at_work)
        self._last = now


CLOCK = Clock()
"""Of this process."""


def _forget_peak() -> None:
    """Let the peak begin anew, where the system can; elsewhere it is that of the process so far."""
    try:
        _RESET.write_text("5")
    except OSError:
        return


def _peak_bytes() -> int:
    try:
        status = _STATUS.read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
