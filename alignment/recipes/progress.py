"""The state of a batch in the ledger, rewritten every two seconds while its driver lives."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from alignment.errors import ConfigError
from alignment.recipes.errors import TaskFailed, TaskStopped
from storage import ledger
from storage.errors import ConflictError, StorageError

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
MAX_FAULTS_TOLD = 5


class Stopped(TaskStopped):
    """The batch is no longer this driver's."""


class Fault(NamedTuple):
    """A task that failed for good, or, without a name, the batch itself."""

    task: str
    error: Exception


class Progress:
    """A driver's hold on its batch."""

    def __init__(
        self, uri: str, label: str, tell: Callable[[ledger.StageState], None] | None
    ) -> None:
        self._tell = tell or (lambda _: None)
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._lost = threading.Event()
        self._lease = ledger.take(uri, label)
        earlier = self._lease.state
        self._begun = time.monotonic() - earlier.seconds
        self.state = replace(
            earlier, status="running", phase="", blocks_done=0, blocks_total=0,
            error=None, error_kind=None,
        )  # fmt: skip

    @property
    def epoch(self) -> int:
        """How often the batch was taken, this time included."""
        return self._lease.state.epoch

    @property
    def is_stopped(self) -> bool:
        """Whether a user stopped the batch, or another driver has it."""
        return self._lost.is_set()

    def check(self) -> None:
        """Raise Stopped if the batch is no longer this driver's."""
        if self.is_stopped:
            raise Stopped("stopped by a user, or taken over by another driver")

    def report(self) -> None:
        """Write the state now, and so learn whether the batch is still this driver's."""
        try:
            self._change()
        except ConflictError:
            self.check()
            raise

    def begin(self, *, total: int, done: int) -> None:
        """Say how many tasks there are, and how many an earlier driver did."""
        self._change(phase="tasks", blocks_total=total, blocks_done=done)

    def advance(self) -> None:
        """Count one finished task; written with the next heartbeat."""
        with self._lock:
            self.state = replace(self.state, blocks_done=self.state.blocks_done + 1)
        self._tell(self.state)

    def fail(self, faults: Sequence[Fault]) -> str:
        """Settle as failed and return the message that the ledger keeps."""
        message, kind = _message(faults, self.state.blocks_total), _kind_of(faults)
        self.settle(status="failed", error=message, error_kind=kind)
        return message

    def settle(self, **changes: Any) -> None:
        """End the heartbeat first, so that it cannot overwrite the verdict."""
        self._end.set()
        self._change(**changes)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Rewrite the state every `HEARTBEAT_S` until it is settled or the driver goes."""
        self._change()
        thread = threading.Thread(target=self._beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _beat(self) -> None:
        while not self._end.wait(HEARTBEAT_S):
            try:
                with self._lock:
                    if not self._end.is_set():
                        self._write()
            except ConflictError:
                return
            except StorageError as error:  # a late heartbeat harms less than none ever after
                log.warning("no heartbeat of %s: %s", self.state.stage, error)

    def _change(self, **changes: Any) -> None:
        with self._lock:
            self.state = replace(self.state, **changes)
            self._write()
        self._tell(self.state)

    def _write(self) -> None:
        seconds = time.monotonic() - self._begun
        self.state = replace(self.state, heartbeat=time.time(), seconds=seconds)
        try:
            self._lease.report(self.state)
        except ConflictError:
            self._lost.set()
            raise


def _message(faults: Sequence[Fault], total: int) -> str:
    if len(faults) == 1 and not faults[0].task:  # the batch itself, none of its tasks
        return str(faults[0].error)
    told = [f"{fault.task}: {fault.error}" for fault in faults[:MAX_FAULTS_TOLD]]
    if len(faults) > MAX_FAULTS_TOLD:
        told.append(f"and {len(faults) - MAX_FAULTS_TOLD} more")
    return f"{len(faults)} of {total} tasks failed: " + "; ".join(told)


def _kind_of(faults: Sequence[Fault]) -> ledger.ErrorKind:
    """Return what a retry can do: nothing for programs that failed so often already."""
    kinds = {_kind(fault.error) for fault in faults}
    return kinds.pop() if len(kinds) == 1 else "other"


def _kind(error: Exception) -> ledger.ErrorKind:
    if isinstance(error, ConfigError):
        return "config"
    if isinstance(error, TaskFailed):
        return "data"
    return "storage" if isinstance(error, StorageError) else "other"
