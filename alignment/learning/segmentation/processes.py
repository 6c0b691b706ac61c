"""The processes of a training on this machine: started, watched, and ended together.

Synchronous workers wait for each other, for ever if one is gone: if one dies, all are ended, and
the next start goes on from the last checkpoint. Of asynchronous workers the others go on, as long
as there is one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from alignment.learning.segmentation.order import WorkerLostError, error_of
from inference.training.cluster import Cluster, Place

PROGRAM = "alignment.learning.segmentation.program"
POLL_S = 0.1
GRACE_S = 5.0
"""A process that was asked to end gets before it is killed."""
LAST_LINES = 5


@dataclass
class Running:
    """One process."""

    place: Place
    process: subprocess.Popen[bytes]
    log: Path
    outcome: Path

    def why(self) -> Exception:
        """Return why it ended."""
        if self.outcome.exists():
            return error_of(json.loads(self.outcome.read_text()))
        status = self.process.returncode
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        hint = " (if nobody sent it, memory was full: lower training.batch)" * (status == -9)
        lines = self.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return WorkerLostError(
            f"{self.place} was lost: it ended by {how}{hint}. Its last lines: {' | '.join(lines)}"
        )


class Processes:
    """The processes of a cluster on this machine; a context manager, which ends them.

    Parameters
    ----------
    order : Path
        What they are told.
    logs : Path
        Folder that gets what each prints, ``worker-0.log`` and so on.
    environment : mapping
        Of all of them, but for ``TF_CONFIG``.
    places : sequence of Place
        Which of the cluster run here.
    """

    def __init__(
        self,
        cluster: Cluster,
        order: Path,
        logs: Path,
        environment: Mapping[str, str],
        places: Sequence[Place],
    ) -> None:
        self.cluster, self._places = cluster, places
        self.lost: list[Place] = []
        """Workers that died and that others went on without."""
        self._order, self._logs, self._environment = order, logs, environment
        self.running: list[Running] = []

    def __enter__(self) -> Self:
        """Start them."""
        self._logs.mkdir(parents=True, exist_ok=True)
        for place in self._places:
            self.running.append(self._start(place))
        return self

    def _start(self, place: Place) -> Running:
        log, outcome = (
            self._logs / f"{place.role}-{place.index}.{suffix}" for suffix in ("log", "json")
        )
        outcome.unlink(missing_ok=True)
        config = self.cluster.tf_config(place)
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", PROGRAM, str(self._order), str(outcome)],
                env={**self._environment, **({"TF_CONFIG": config} if config else {})},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        return Running(place, process, log, outcome)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what still runs."""
        for each in self.running:
            if each.process.poll() is None:
                each.process.terminate()
        deadline = time.monotonic() + GRACE_S
        for each in self.running:
            try:
                each.process.wait(max(deadline - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                each.process.kill()
                each.process.wait()

    def attend(self, watch: Callable[[], bool]) -> None:
        """Wait for the end of the training.

        Parameters
        ----------
        watch : callable
            Called again and again; returns whether the first step was taken. What it raises ends
            the training.

        Raises
        ------
        WorkerLostError
            If a process died without which the others cannot go on.
        Exception
            As a process left it.
        """
        first, *others = self.running
        while first.process.poll() is None:
            has_begun = watch()
            for each in others:
                self._look_at(each, has_begun=has_begun)
            time.sleep(POLL_S)
        watch()
        if first.process.returncode != 0:
            raise first.why()
        # The others have nothing to lose: all is written.

    def _look_at(self, each: Running, *, has_begun: bool) -> None:
        """Decide whether the others can go on without a process."""
        status = each.process.poll()
        if status is None or each.place in self.lost:
            return
        is_sync = self.cluster.mode == "sync"
        if is_sync and status == 0:
            return
        # An error of its own would be that of any other, too; before the first step all are needed.
        is_needed = is_sync or each.place.role != "worker" or status > 0 or not has_begun
        if is_needed:
            raise each.why()
        self.lost.append(each.place)
        if len(self.lost) == self.cluster.workers:
            raise each.why()
