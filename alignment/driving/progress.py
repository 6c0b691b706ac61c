"""What a driver says of itself: a heartbeat and counts in the ledger, then how it ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from alignment.errors import ConfigError, DataError, StageFailed
from alignment.stages.units import Phase
from alignment.stages.work import BUSY_S, PEAK_BYTES, REUSED
from storage import ledger
from storage.errors import AccessError, ConflictError, SourceError, StorageError, UriError

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
MAX_FAULTS_TOLD = 5
STOPPED = "stopped from outside, by a user or a second driver; the rest was not begun"


@dataclass(frozen=True)
class Fault:
    """A unit that failed."""

    unit: str
    error: Exception


class Progress:
    """The state of a stage, or of a slab of it, in the ledger while its driver lives."""

    def __init__(
        self, run_uri: str, stage: str, tell: Callable[[ledger.StageState], None] | None
    ) -> None:
        self._tell = tell or (lambda _: None)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._stopped_outside = threading.Event()
        self._lease = ledger.take(run_uri, stage)
        earlier = self._lease.state
        self._started = time.monotonic() - earlier.seconds
        self.state = replace(
            earlier,
            status="running",
            phase="",
            blocks_done=0,
            blocks_total=0,
            error=None,
            error_kind=None,
            units_done=False,
        )

    @property
    def is_stopped(self) -> bool:
        """Whether the stage is another's: a user stopped it, or a second driver took it over."""
        return self._stopped_outside.is_set()

    def begin(self, phase: Phase, *, skipped: int) -> None:
        """Enter a phase of which `skipped` units were done by an earlier driver."""
        self.change(
            phase=phase.name,
            blocks_done=self.state.blocks_done + skipped,
            blocks_total=self.state.blocks_total + len(phase.units),
        )

    def advance(self, record: dict[str, Any]) -> None:
        """Count one finished unit; written with the next heartbeat."""
        with self._lock:
            self.state = replace(
                self.state,
                blocks_done=self.state.blocks_done + 1,
                blocks_reused=self.state.blocks_reused + int(record.get(REUSED, 0)),
                bytes_read=self.state.bytes_read + int(record.get("bytes_read", 0)),
                bytes_written=self.state.bytes_written + int(record.get("bytes_written", 0)),
                busy_s=self.state.busy_s + float(record.get(BUSY_S, 0.0)),
                peak_bytes=max(self.state.peak_bytes, int(record.get(PEAK_BYTES, 0))),
            )
        self._tell(self.state)

    def fail(self, faults: list[Fault]) -> str:
        """Settle as failed and return the message that the ledger keeps."""
        told = [f"{fault.unit}: {_describe(fault.error)}" for fault in faults[:MAX_FAULTS_TOLD]]
        if len(faults) > MAX_FAULTS_TOLD:
            told.append(f"and {len(faults) - MAX_FAULTS_TOLD} more")
        message = f"{len(faults)} of {self.state.blocks_total} units failed: " + "; ".join(told)
        self.settle(status="failed", error=message, error_kind=_kind(faults[0].error))
        return message

    def settle(self, **changes: Any) -> None:
        """End the heartbeat first, so that it cannot overwrite the verdict."""
        self._stop.set()
        self.change(**changes)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Rewrite the state every `HEARTBEAT_S` until it is settled or the driver goes."""
        self.change()
        thread = threading.Thread(target=self._beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                with self._lock:
                    if not self._stop.is_set():
                        self._write()
            except ConflictError:
                return
            except StorageError as error:  # a late heartbeat harms less than none ever after
                log.warning("no heartbeat of stage %s: %s", self.state.stage, error)

    def change(self, **changes: Any) -> None:
        """Change the state and report it now."""
        with self._lock:
            self.state = replace(self.state, **changes)
            self._write()
        self._tell(self.state)

    def _write(self) -> None:
        self.state = replace(
            self.state, heartbeat=time.time(), seconds=time.monotonic() - self._started
        )
        try:
            self._lease.report(self.state)
        except ConflictError:
            self._stopped_outside.set()
            raise


def _describe(error: Exception) -> str:
    notes = "; ".join(getattr(error, "__notes__", []))
    return f"{type(error).__name__}: {error}" + (f" ({notes})" if notes else "")


def _kind(error: Exception) -> str:
    if isinstance(error, AccessError | ConfigError | UriError):
        return "config"
    if isinstance(error, DataError | SourceError):
        return "data"
    if isinstance(error, StorageError):
        return "storage"
    return "other"


@contextmanager
def driving(progress: Progress) -> Iterator[None]:
    """Report while the block lasts; whatever ends it, the ledger says how.

    Raises
    ------
    StageFailed
        In place of every error.
    """
    try:
        with progress.beating():
            yield
    except StageFailed:
        raise
    except Exception as error:
        if progress.is_stopped:
            raise StageFailed(STOPPED) from error
        progress.fail([Fault("the stage itself", error)])
        raise StageFailed(f"stage {progress.state.stage!r}: {error}") from error
