"""One task on a worker: lay out its folder, run its program, keep its log and what it made."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from alignment.recipes import gang
from alignment.recipes.errors import GangBroken, TaskFailed, TaskLost, TaskStopped
from alignment.recipes.frozen import Frozen, load, task_name, task_points
from alignment.recipes.model import Experiment
from alignment.recipes.outputs import keep_outputs, read_result
from alignment.recipes.process import run_program
from alignment.recipes.surroundings import (
    base_environment,
    command_line,
    lay_files,
    lay_inputs,
    scratch,
    without_secrets,
)
from alignment.recipes.template import fill
from storage import ledger
from storage.errors import ConflictError, StorageError
from storage.store import (
    create_bytes,
    create_json,
    delete,
    join,
    list_names,
    read_json,
    read_json_tagged,
    replace_bytes,
    replace_json,
)

log = logging.getLogger(__name__)

TAIL_LINES = 12
LIVE = "live.log"
LIVE_LOG_S = 10.0
"""How often the log of a running task is copied to where `petalign recipe logs` finds it."""

Record = dict[str, Any]


class Task(NamedTuple):
    """One process to run."""

    point: int
    """Number of its point in the experiment."""
    attempt: int = 0
    """How often its program has failed before."""
    rank: int = 0
    group: str = ""
    """The group that it starts with; empty if it works alone."""


@dataclass(frozen=True)
class Work:
    """Does tasks of one batch on workers; what drivers send there."""

    uri: str
    experiment: str
    batch: str
    epoch: int
    """Of the driver: tasks of one that was replaced end."""
    programs: Mapping[str, str] = field(default_factory=dict)
    """Further programs that are allowed, and where they are."""

    @property
    def __name__(self) -> str:
        """What Dask's dashboard calls these tasks."""
        return f"recipe-{self.experiment}"

    def __call__(self, task: Task) -> Record:
        """Run a task and return its record, which exists from then on.

        Raises
        ------
        TaskFailed, TaskStopped, GangBroken
            As their names say; the log is kept.
        """
        return _Start(self, task).run()


class _Start:
    """One start of one task."""

    def __init__(self, work: Work, task: Task) -> None:
        self._work = work
        self._task = task
        self._frozen: Frozen = load(work.uri)
        self._settings: Experiment = self._frozen.experiment(work.experiment)
        self._place = (work.experiment, task_name(task.point))
        milliseconds = int(time.time() * 1000)
        self._name = (
            f"{milliseconds:013d}-{task.attempt:02d}-{task.rank:03d}-{uuid.uuid4().hex[:6]}"
        )
        self._live_at = time.monotonic()
        self._has_live_log = False

    def _uri(self, kind: str, *names: str) -> str:
        return join(self._work.uri, kind, *self._place, *names)

    @cached_property
    def _record_uri(self) -> str:
        return join(self._work.uri, "records", self._place[0], f"{self._place[1]}.json")

    def run(self) -> Record:
        """Run the task; see `Work`."""
        if not self._task.group:
            record: Record | None = read_json_tagged(self._record_uri)[0]
            if record is not None:  # it was finished on a worker that was lost before it could say
                return record
        self._sign()
        try:
            return self._run()
        except (GangBroken, TaskStopped):
            raise
        except Exception as error:
            gang.tell_broken(self._work.uri, self._place, self._task.group, str(error))
            self._note_failure(error)
            raise

    def _sign(self) -> None:
        """Leave a sign that the task was started here."""
        if not self._settings.recovery:
            earlier = [n.split("-")[1] for n in list_names(self._uri("starts"))]
            if f"{self._task.attempt:02d}" in earlier:
                raise TaskLost("its worker was lost, and `recovery: false` forbids a second start")
        sign = {"host": os.uname().nodename, "pid": os.getpid()}
        create_json(self._uri("starts", f"{self._name}.json"), sign)

    def _run(self) -> Record:
        begun = time.monotonic()
        point = task_points(self._work.uri, self._work.experiment)[self._task.point]
        with scratch() as base:
            folder, printed = base / "work", base / "log"
            printed.touch()
            variables = self._variables(folder) | self._group_variables()
            lay_files(self._frozen, folder)
            fetched = fill(self._settings.fetch, point)
            lay_inputs(self._frozen, self._settings.depends_on, fetched, folder)
            argv = command_line(fill(self._settings.command, point), self._work.programs)
            try:
                status = run_program(
                    argv,
                    environment=variables,
                    folder=folder,
                    log=printed,
                    timeout_s=self._settings.timeout_s,
                    watch=lambda: self._watch(printed),
                )
            finally:
                self._keep_log(printed)
            if status != 0:
                raise TaskFailed(_words(status, printed))
            record = {
                "task": self._place[1],
                "parameters": point,
                "start": self._name,
                "seconds": round(time.monotonic() - begun, 3),
                "result": read_result(folder),
                "outputs": keep_outputs(folder / "out", self._uri("out", self._name)),
            }
        return record if self._task.group else self.record(record)

    def record(self, record: Record) -> Record:
        """Leave the record; of two starts that both succeed, one counts."""
        try:
            create_json(self._record_uri, record)
        except ConflictError:
            record = read_json(self._record_uri)
        return record

    def _variables(self, folder: Path) -> dict[str, str]:
        return (
            base_environment(folder, credentials=self._settings.credentials)
            | self._settings.environment
            | {
                "PETALIGN_RECIPE": self._frozen.key,
                "PETALIGN_EXPERIMENT": self._place[0],
                "PETALIGN_TASK": self._place[1],
                "PETALIGN_ATTEMPT": str(self._task.attempt),
                "PETALIGN_OUTPUT": self._uri("out", self._name),
                "PETALIGN_SHARED": join(self._work.uri, "shared", self._place[0]),
            }
        )

    def _group_variables(self) -> dict[str, str]:
        """Wait for the others of the group, if there is one."""
        if not self._task.group:
            return {"PETALIGN_RANK": "0", "PETALIGN_WORLD": "1"}
        peers = gang.join_group(
            self._work.uri,
            self._place,
            self._task.group,
            self._task.rank,
            self._settings.workers,
            self._check_wanted,
        )
        return gang.variables(self._task.rank, peers)

    def _watch(self, printed: Path) -> None:
        self._check_wanted()
        gang.check_whole(self._work.uri, self._place, self._task.group)
        if time.monotonic() - self._live_at > LIVE_LOG_S and printed.stat().st_size:
            self._live_at = time.monotonic()
            self._has_live_log = True
            replace_bytes(self._uri("logs", LIVE), without_secrets(printed.read_bytes()))

    def _check_wanted(self) -> None:
        """Raise TaskStopped if the batch was stopped, or has another driver."""
        try:
            state = ledger.read_state(self._work.uri, self._work.batch)
        except StorageError as error:  # no news is no reason to throw work away
            log.warning("cannot read the state of %s: %s", self._work.batch, error)
            return
        if state.is_settled or state.epoch != self._work.epoch:
            raise TaskStopped("stopped by a user, or taken over by another driver")

    def _keep_log(self, printed: Path) -> None:
        create_bytes(self._uri("logs", f"{self._name}.log"), without_secrets(printed.read_bytes()))
        if self._has_live_log:
            delete(self._uri("logs", LIVE))

    def _note_failure(self, error: Exception) -> None:
        uri = join(self._work.uri, "failures", self._place[0], f"{self._place[1]}.json")
        told = without_secrets(f"{type(error).__name__}: {error}".encode()).decode()
        try:
            replace_json(uri, {"start": self._name, "attempt": self._task.attempt, "error": told})
        except StorageError as second:
            log.warning("cannot note the failure of %s: %s", uri, second)


def _words(status: int, printed: Path) -> str:
    """Return how a program ended and its last lines."""
    how = f"exit status {status}" if status > 0 else f"ended by signal {-status}"
    with printed.open("rb") as file:
        file.seek(max(printed.stat().st_size - 4096, 0))
        text = without_secrets(file.read()).decode(errors="replace")
    lines = text.splitlines()[-TAIL_LINES:]
    return f"{how}; its last lines: " + " | ".join(lines) if lines else f"{how}; it printed nothing"
