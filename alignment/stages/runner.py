"""The one runner: does what is not done, leaves records, keeps the ledger's heartbeat."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any

from alignment.blockwise import Client, driver_client, run_blocks
from alignment.errors import AlignmentError, ConfigError, DataError
from alignment.runs import Run, load
from alignment.stages.order import ORDER
from alignment.stages.units import Phase, Unit
from storage import ledger
from storage.errors import AccessError, SourceError, StorageError, UriError

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
MAX_FAULTS_TOLD = 5


class StageFailed(AlignmentError):
    """Some units of a stage failed; what is finished is kept and a later run goes on from there."""


@dataclass(frozen=True)
class _Fault:
    unit: str
    error: Exception


def run(stage: str, run_uri: str) -> int:
    """Drive one stage from inside a Dask worker; return the number of its finished units.

    The driver is itself a task: if its worker dies, Dask runs it again elsewhere, and what has a
    record is not done twice. It never raises for a stage that failed: the ledger says so.
    """
    with driver_client() as client:
        try:
            return run_stage(stage, run_uri, client)
        except StageFailed:
            return ledger.read_state(run_uri, stage).blocks_done


def run_stage(
    stage: str,
    run_uri: str,
    client: Client,
    *,
    tell: Callable[[ledger.StageState], None] | None = None,
) -> int:
    """Do every unit of `stage` that has no record yet; return the number of finished units.

    Parameters
    ----------
    stage : str
        A name in `ORDER`.
    run_uri : str
        Where `alignment.runs.prepare` froze the run.
    client : Client
        Of the cluster whose workers do the units.
    tell : callable, optional
        Receives the stage's state after every finished unit, for a progress display.

    Raises
    ------
    ConfigError
        If there is no such stage.
    StageFailed
        If units failed; the others are done, and the ledger holds the same message.
    """
    if stage not in ORDER:
        raise ConfigError(f"no stage {stage!r}; there are {', '.join(ORDER)}")
    progress = _Progress(run_uri, stage, tell)
    with progress.beating():
        try:
            faults = _run_phases(stage, load(run_uri), client, progress)
        except StageFailed:
            raise
        except Exception as error:
            progress.fail([_Fault("the stage itself", error)])
            raise StageFailed(f"stage {stage!r}: {error}") from error
        if faults:
            raise StageFailed(progress.fail(faults))
        progress.settle(status="done")
    return progress.state.blocks_done


def _run_phases(stage: str, run: Run, client: Client, progress: _Progress) -> list[_Fault]:
    """Run the phases in order; a phase with faults is finished but the next is not begun."""
    for phase in import_module(f"alignment.stages.{stage}").phases(run):
        done = set() if phase.always else ledger.recorded(run.uri, stage, phase.name)
        todo = [unit for unit in phase.units if unit.label not in done]
        progress.begin(phase, skipped=len(phase.units) - len(todo))
        work = partial(_run_unit, stage=stage, phase=phase.name, work=phase.work, run_uri=run.uri)
        faults = []
        for outcome in run_blocks(work, todo, client):
            if progress.is_stopped:
                raise StageFailed("stopped from outside; the rest was not begun")
            if outcome.error is None:
                progress.advance(outcome.value or {})
            else:
                log.error("stage %s, %s: %s", stage, outcome.block.label, outcome.error)
                faults.append(_Fault(outcome.block.label, outcome.error))
        if faults:
            return faults
    return []


def _run_unit(unit: Unit, *, stage: str, phase: str, work: Any, run_uri: str) -> dict[str, Any]:
    """Do one unit on a worker and leave its record, after its outputs are in place."""
    record: dict[str, Any] = work(unit, run_uri=run_uri)
    ledger.record(run_uri, stage, phase, unit.label, record)
    return record


class _Progress:
    """The stage's state in the ledger, rewritten every few seconds while the driver lives."""

    def __init__(
        self, run_uri: str, stage: str, tell: Callable[[ledger.StageState], None] | None
    ) -> None:
        self._run_uri = run_uri
        self._tell = tell or (lambda _: None)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._stopped_outside = threading.Event()
        earlier = ledger.read_state(run_uri, stage)
        self._started = time.monotonic() - earlier.seconds
        self.state = replace(
            earlier,
            status="running",
            phase="",
            blocks_done=0,
            blocks_total=0,
            error=None,
            error_kind=None,
        )

    @property
    def is_stopped(self) -> bool:
        """Whether somebody else has settled the stage, such as a user who marked it as failed."""
        return self._stopped_outside.is_set()

    def begin(self, phase: Phase, *, skipped: int) -> None:
        """Enter a phase of which `skipped` units were done by an earlier driver."""
        self._change(
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
                bytes_read=self.state.bytes_read + int(record.get("bytes_read", 0)),
                bytes_written=self.state.bytes_written + int(record.get("bytes_written", 0)),
            )
        self._tell(self.state)

    def fail(self, faults: list[_Fault]) -> str:
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
            self._stop.set()
            thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                if ledger.read_state(self._run_uri, self.state.stage).is_settled:
                    self._stopped_outside.set()
                    return
                with self._lock:
                    if not self._stop.is_set():
                        self._write()
            except StorageError as error:  # a late heartbeat harms less than none ever after
                log.warning("no heartbeat of stage %s: %s", self.state.stage, error)

    def _change(self, **changes: Any) -> None:
        with self._lock:
            self.state = replace(self.state, **changes)
            self._write()
        self._tell(self.state)

    def _write(self) -> None:
        self.state = replace(
            self.state, heartbeat=time.time(), seconds=time.monotonic() - self._started
        )
        ledger.write_state(self._run_uri, self.state)


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
