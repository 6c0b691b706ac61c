"""Does a batch of tasks on a cluster: what has a record is not done again.

The driver is a task of the cluster itself. If its worker dies, it runs again elsewhere and goes on;
what Airflow does meanwhile does not matter. Lost workers cost a task another start; programs that
fail are tried again `retries` times, then reported, and the others go on.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from alignment.blockwise import (
    Client,
    Outcome,
    driver_client,
    run_blocks,
    run_together,
    slots,
)
from alignment.errors import ConfigError, StageFailed
from alignment.recipes.errors import GangBroken, GangLost, TaskFailed, TaskLost, TaskStopped
from alignment.recipes.frozen import (
    Batch,
    Frozen,
    find_batch,
    load,
    task_name,
    task_points,
    tasks_of,
)
from alignment.recipes.model import Experiment
from alignment.recipes.progress import Fault, Progress
from alignment.recipes.work import Record, Task, Work
from storage.errors import ConflictError
from storage.ledger import StageState
from storage.store import create_json, exists, join, list_names, read_json, replace_json

log = logging.getLogger(__name__)

STOP = "stop.json"
SLOTS_S = 90.0
"""How long workers that a batch needs may be missing, as after one was lost, before it fails."""
MAX_LOSSES = 10
"""Groups that are started anew for one point because a worker was lost."""
_READERS = 16

Tell = Callable[[StageState], None]


def run(uri: str, label: str, programs: Mapping[str, str]) -> int:
    """Drive one batch from inside a Dask worker; return the number of its finished tasks.

    It never raises for tasks that failed: the ledger says so.
    """
    with driver_client() as client:
        try:
            return run_batch(uri, label, client, programs=programs)
        except StageFailed:
            return 0


def run_batch(
    uri: str,
    label: str,
    client: Client,
    *,
    programs: Mapping[str, str] | None = None,
    tell: Tell | None = None,
) -> int:
    """Do every task of a batch that has no record yet; return the number of finished tasks.

    Parameters
    ----------
    uri : str
        Where `frozen.freeze` laid the recipe.
    label : str
        Of a batch, from `frozen.plan`.
    programs : mapping of str to str
        Programs that are allowed besides python and petalign, and where they are.
    tell : callable, optional
        Receives the state after every finished task, for a progress display.

    Raises
    ------
    StageFailed
        If tasks failed, or the batch was stopped; the others are done, and the ledger says it.
    """
    progress = Progress(uri, label, tell)
    try:
        with progress.beating():
            frozen = load(uri)
            batch = find_batch(frozen, label)
            _check_begin(frozen, batch, client, progress)
            work = Work(uri, batch.experiment, label, progress.epoch, dict(programs or {}))
            faults = list(_faults(_Batch(frozen, batch, work, client, progress)))
            if faults:
                raise StageFailed(progress.fail(faults))
            _close(frozen, batch.experiment)
            progress.settle(status="done")
    except StageFailed:
        raise
    except Exception as error:
        raise StageFailed(_last_words(progress, label, error)) from error
    return progress.state.blocks_done


def _last_words(progress: Progress, label: str, error: Exception) -> str:
    with suppress(ConflictError):
        if not progress.is_stopped:
            return progress.fail([Fault("", error)])
    return f"{label} was stopped, or has another driver"


class _Batch(NamedTuple):
    """What the functions below share."""

    frozen: Frozen
    batch: Batch
    work: Work
    client: Client
    progress: Progress

    @property
    def settings(self) -> Experiment:
        return self.frozen.experiment(self.batch.experiment)


def _check_begin(frozen: Frozen, batch: Batch, client: Client, progress: Progress) -> None:
    """Refuse what cannot be begun: stopped, before its time, or too large for the cluster."""
    settings = frozen.experiment(batch.experiment)
    if exists(join(frozen.uri, STOP)):
        raise TaskStopped(f"recipe {frozen.key} was stopped; go on with `petalign recipe up`")
    for name in settings.depends_on:
        if not exists(join(frozen.uri, "done", f"{name}.json")):
            raise TaskStopped(f"{batch.experiment} depends on {name}, which is not done")
    _await_slots(settings, batch, client, progress)


def _await_slots(settings: Experiment, batch: Batch, client: Client, progress: Progress) -> None:
    """Return when the cluster has room for what must run at a time; refuse if it stays without."""
    needed = settings.workers if settings.gang else 1
    deadline = time.monotonic() + SLOTS_S
    while (found := slots(client, settings.hardware)) < needed:
        if time.monotonic() > deadline:
            tags = ", ".join(f"{tag}={amount:g}" for tag, amount in settings.hardware.items())
            raise ConfigError(
                f"experiment {batch.experiment} needs {needed} workers at a time"
                + (f" that offer {tags}" if tags else "")
                + f", the cluster has {found}: lower `workers`, or start workers"
                + (" with --resources" if tags else "")
            )
        progress.check()
        time.sleep(1.0)


def _faults(b: _Batch) -> Iterator[Fault]:
    """Do the tasks; yield what failed for good."""
    names = list(tasks_of(b.batch))
    done = {n.removesuffix(".json") for n in list_names(_records(b.frozen, b.batch.experiment))}
    todo = [b.batch.start + k for k, name in enumerate(names) if name not in done]
    b.progress.begin(total=len(names), done=len(names) - len(todo))
    if b.settings.gang:
        yield from (fault for index in todo for fault in _do_group(b, index))
        return
    outcomes = run_blocks(
        b.work,
        [Task(index) for index in todo],
        b.client,
        in_flight=b.batch.window,
        resources=b.settings.hardware or None,
        again=partial(_again, b),
    )
    for outcome in outcomes:
        b.progress.check()
        if outcome.error is None:
            b.progress.advance()
            continue
        yield _fault(b, outcome.block, outcome.error)


def _again(b: _Batch, outcome: Outcome[Task, Record]) -> Task | None:
    """Return a task to try once more, None if it is done or has failed for good."""
    b.progress.check()
    task, error = outcome.block, outcome.error
    if error is None or isinstance(error, TaskLost | ConfigError):
        return None
    if isinstance(error, TaskStopped):  # perhaps an echo of an earlier driver: the ledger knows
        b.progress.report()
        return task
    if task.attempt >= b.settings.retries:
        return None
    log.warning("%s/%s is tried again: %s", b.batch.experiment, task_name(task.point), error)
    return task._replace(attempt=task.attempt + 1)


def _fault(b: _Batch, task: Task, error: Exception) -> Fault:
    """Return a task's failure for the ledger; leave it where `ps` looks, if the task could not."""
    name = task_name(task.point)
    if not isinstance(error, TaskFailed):
        uri = join(b.frozen.uri, "failures", b.batch.experiment, f"{name}.json")
        notes = "; ".join(getattr(error, "__notes__", []))
        told = f"{type(error).__name__}: {error}" + (f" ({notes})" if notes else "")
        replace_json(uri, {"start": "", "attempt": task.attempt, "error": told})
    return Fault(f"{b.batch.experiment}/{name}", error)


def _do_group(b: _Batch, index: int) -> Iterator[Fault]:
    """Let a group of processes do one point, as often as it takes; yield its failure if it has."""
    attempt = losses = 0
    while True:
        # Else some would wait for others that nobody can run.
        _await_slots(b.settings, b.batch, b.client, b.progress)
        group = f"{attempt:02d}-{losses:02d}-{uuid.uuid4().hex[:6]}"
        tasks = [Task(index, attempt, rank, group) for rank in range(b.settings.workers)]
        records: dict[int, Record] = {}
        errors: list[tuple[Task, Exception]] = []
        resources = b.settings.hardware or None
        for outcome in run_together(b.work, tasks, b.client, resources=resources):
            b.progress.check()
            if outcome.error is None:
                records[outcome.block.rank] = outcome.value or {}
            else:
                errors.append((outcome.block, outcome.error))
        if not errors:
            _record_group(b, index, records[0])
            b.progress.advance()
            return
        if b.settings.recovery and _was_lost(errors) and losses < MAX_LOSSES:
            losses += 1
        elif attempt < b.settings.retries and not _was_lost(errors):
            attempt += 1
        else:
            told = [pair for pair in errors if not isinstance(pair[1], GangBroken)] or errors
            yield _fault(b, *told[0])
            return
        log.warning("%s/%s starts again: %s", b.batch.experiment, index, errors[0][1])


def _was_lost(errors: list[tuple[Task, Exception]]) -> bool:
    """Return whether a group ended because of a worker, rather than of its program."""
    return any(isinstance(error, GangLost | TaskStopped) for _, error in errors)


def _record_group(b: _Batch, index: int, record: Record) -> None:
    name = f"{task_name(index)}.json"
    with suppress(ConflictError):  # the driver before this one was faster
        create_json(join(_records(b.frozen, b.batch.experiment), name), record)


def _records(frozen: Frozen, experiment: str) -> str:
    return join(frozen.uri, "records", experiment)


def _close(frozen: Frozen, experiment: str) -> None:
    """When all tasks of all its batches have records, tell who depends on the experiment."""
    folder = _records(frozen, experiment)
    names = list_names(folder)
    total = len(task_points(frozen.uri, experiment))
    uri = join(frozen.uri, "done", f"{experiment}.json")
    if len(names) < total or exists(uri):
        return
    with ThreadPoolExecutor(_READERS) as readers:
        records: list[dict[str, Any]] = list(
            readers.map(lambda name: read_json(join(folder, name)), names)
        )
    create_json(uri, records)
