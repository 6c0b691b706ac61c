"""The one runner: does what is not done, leaves records, keeps the ledger's heartbeat."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module

from alignment.blockwise import Client, driver_client, run_blocks
from alignment.driving.progress import STOPPED, Fault, Progress, driving
from alignment.errors import ConfigError, StageFailed
from alignment.runs import check_kept, load
from alignment.stages.order import ORDER
from alignment.stages.units import Phase
from alignment.stages.work import Driven, Work
from storage import ledger
from storage.commit import manifest, records
from storage.journal import Journal, journal
from storage.publish import read_pointer
from storage.store import join

log = logging.getLogger(__name__)


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
    check_stage(stage)
    progress = Progress(run_uri, stage, tell)
    with driving(progress):
        do_stage(stage, load(run_uri), client, progress, reuse=reuse)
        progress.settle(status="done")
    return progress.state.blocks_done


def do_stage(
    stage: str, run: Driven, client: Client, progress: Progress, *, reuse: bool = True
) -> None:
    """Do what has no record of a stage, of a run of any kind, and seal it."""
    check_kept(run.volume_uri, run.key)
    metadata = Journal()
    phases = noted_phases(stage, run, metadata)
    done = run_phases(stage, run, client, progress, phases, reuse=reuse)
    if done.is_sealed:
        objects = records.objects_of(metadata.written, run.uri)
        manifest.seal(run.uri, stage, done.units, objects)


def check_stage(stage: str) -> None:
    """Refuse a name that is no stage's."""
    if stage not in ORDER:
        raise ConfigError(f"no stage {stage!r}; there are {', '.join(ORDER)}")


def _published_run(run: Driven) -> str:
    """Return the URI of the run that readers see, empty if there is no other than this one."""
    pointer = read_pointer(run.volume_uri)
    if pointer is None or pointer.run == run.key:
        return ""
    return join(run.volume_uri, "runs", pointer.run)


@dataclass
class Finished:
    """Phases without a fault."""

    units: dict[str, list[str]] = field(default_factory=dict)
    """All units by phase, but for those that are done again each time."""
    is_sealed: bool = True
    """Whether records vouch for what was done, so that a manifest can sum them up."""


def run_phases(
    stage: str,
    run: Driven,
    client: Client,
    progress: Progress,
    phases: Iterable[Phase],
    *,
    reuse: bool = True,
) -> Finished:
    """Do what has no record of phases, one after the other.

    Raises
    ------
    StageFailed
        If units of a phase failed; the others of it are done, and the next is not begun.
    """
    base_uri = _published_run(run) if reuse else ""
    finished = Finished()
    for phase in phases:
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
                faults.append(Fault(outcome.block.label, outcome.error))
        if faults:
            raise StageFailed(progress.fail(faults))
        finished.is_sealed = not phase.always or bool(finished.units)
        if not phase.always:
            finished.units[phase.name] = [unit.label for unit in phase.units]
    return finished


def noted_phases(stage: str, run: Driven, noted: Journal) -> Iterator[Phase]:
    """Yield a stage's phases; what it writes meanwhile, its arrays' metadata, is noted."""
    phases = iter(import_module(f"alignment.stages.{stage}").phases(run))
    while True:
        with journal() as now:
            phase = next(phases, None)
        noted.written += now.written
        if phase is None:
            return
        yield phase
