"""The one runner: does what is not done, leaves records, keeps the ledger's heartbeat."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from alignment.blockwise import Client, driver_client, run_blocks
from alignment.errors import ConfigError, DataError, StageFailed
from alignment.runs import Run, check_kept, load
from alignment.stages.order import ORDER
from alignment.stages.units import Phase
from alignment.stages.work import BUSY_S, PEAK_BYTES, REUSED, Work
from storage import ledger
from storage.commit import manifest, records
from storage.errors import AccessError, ConflictError, SourceError, StorageError, UriError
from storage.journal import Journal, journal
from storage.publish import read_pointer
from storage.store import join

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
MAX_FAULTS_TOLD = 5
STOPPED = "stopped from outside, by a user or a second driver; the rest was not begun"


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
    reuse: bool = True,
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
    reuse : bool
        Take units whose key is the same over from the run that is published now, instead of
        computing them: what a changed section or setting does not touch is not done again.

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
    try:
        with progress.beating():
            run = load(run_uri)
            check_kept(run.volume_uri, run.key)
            base_uri = _published_run(run) if reuse else ""
            faults = _run_phases(stage, run, client, progress, base_uri)
            if faults:
                raise StageFailed(progress.fail(faults))
            progress.settle(status="done")
    except StageFailed:
        raise
    except Exception as error:
        if progress.is_stopped:
            raise StageFailed(STOPPED) from error
        progress.fail([_Fault("the stage itself", error)])
        raise StageFailed(f"stage {stage!r}: {error}") from error
    return progress.state.blocks_done


def _published_run(run: Run) -> str:
    """Return the URI of the run that readers see, empty if there is no other than this one."""
    pointer = read_pointer(run.volume_uri)
    if pointer is None or pointer.run == run.key:
        return ""
    return join(run.volume_uri, "runs", pointer.run)


def _run_phases(
    stage: str, run: Run, client: Client, progress: _Progress, base_uri: str
) -> list[_Fault]:
    """Run the phases in order; a phase with faults is finished but the next is not begun.

    When all units of all phases have records, the stage is sealed by its manifest.
    """
    units: dict[str, list[str]] = {}
    metadata = Journal()
    is_sealed = True
    for phase in noted_phases(stage, run, metadata):
        done = set() if phase.always else records.recorded(run.uri, stage, phase.name)
        todo = [unit for unit in phase.units if unit.label not in done]
        progress.begin(phase, skipped=len(phase.units) - len(todo))
        faults = []
        work = Work.of(stage, phase, run, base_uri=base_uri)
        for outcome in run_blocks(work, todo, client):
            if progress.is_stopped:
                raise StageFailed(STOPPED)
            if outcome.error is None:
                progress.advance(outcome.value or {})
            else:
                log.error("stage %s, %s: %s", stage, outcome.block.label, outcome.error)
                faults.append(_Fault(outcome.block.label, outcome.error))
        if faults:
            return faults
        is_sealed = not phase.always or bool(units)
        if not phase.always:
            units[phase.name] = [unit.label for unit in phase.units]
    if is_sealed:
        objects = records.objects_of(metadata.written, run.uri)
        manifest.seal(run.uri, stage, units, objects)
    return []


def noted_phases(stage: str, run: Run, noted: Journal) -> Iterator[Phase]:
    """Yield a stage's phases; what it writes meanwhile, its arrays' metadata, is noted."""
    phases = iter(import_module(f"alignment.stages.{stage}").phases(run))
    while True:
        with journal() as now:
            phase = next(phases, None)
        noted.written += now.written
        if phase is None:
            return
        yield phase


class _Progress:
    """The stage's state in the ledger, rewritten every few seconds while the driver lives."""

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
        )

    @property
    def is_stopped(self) -> bool:
        """Whether the stage is another's: a user stopped it, or a second driver took it over."""
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
                blocks_reused=self.state.blocks_reused + int(record.get(REUSED, 0)),
                bytes_read=self.state.bytes_read + int(record.get("bytes_read", 0)),
                bytes_written=self.state.bytes_written + int(record.get("bytes_written", 0)),
                busy_s=self.state.busy_s + float(record.get(BUSY_S, 0.0)),
                peak_bytes=max(self.state.peak_bytes, int(record.get(PEAK_BYTES, 0))),
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
                with self._lock:
                    if not self._stop.is_set():
                        self._write()
            except ConflictError:
                return
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
