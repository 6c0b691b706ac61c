"""What became of a recipe: told from the store alone, so it does not matter what still runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from alignment.errors import ConfigError
from alignment.recipes.driver import STOP
from alignment.recipes.frozen import Batch, Frozen, batches, load, task_name, task_points
from alignment.recipes.work import LIVE
from storage import ledger
from storage.store import (
    delete,
    exists,
    join,
    list_names,
    read_bytes,
    read_json,
    replace_json,
    walk,
)

State = Literal["created", "waiting", "running", "done", "failed", "stopped"]

STOPPED = "stopped by a user"


@dataclass(frozen=True)
class ExperimentState:
    """Progress of one experiment."""

    name: str
    state: State
    done: int
    failed: int
    """Tasks whose last start failed and that have no record."""
    total: int
    starts: int
    """Processes that were started, all attempts."""
    seconds: float
    """Wall time of its slowest batch."""
    error: str = ""


@dataclass(frozen=True)
class RecipeState:
    """Progress of a recipe."""

    id: str
    name: str
    state: State
    experiments: tuple[ExperimentState, ...]

    @property
    def done(self) -> int:
        """Tasks that have succeeded."""
        return sum(one.done for one in self.experiments)

    @property
    def total(self) -> int:
        """Tasks in all."""
        return sum(one.total for one in self.experiments)


def known_ids(store: str) -> list[str]:
    """Return the ids of all recipes in a store, sorted."""
    return [name for name in list_names(store) if exists(join(store, name, "recipe.json"))]


def find(store: str, key: str) -> Frozen:
    """Return the recipe of an id.

    Raises
    ------
    ConfigError
        If there is none; names those that there are.
    """
    ids = known_ids(store)
    if key in ids:
        return load(join(store, key))
    known = f"there are {', '.join(ids)}" if ids else "there are none yet: petalign recipe up FILE"
    raise ConfigError(f"no recipe {key!r} in {store}; {known}")


def look(frozen: Frozen, *, starts: bool = True) -> RecipeState:
    """Return the state of a recipe; without `starts` it takes fewer requests."""
    is_stopped = exists(join(frozen.uri, STOP))
    parts = batches(frozen)
    found = [
        _experiment(frozen, name, [b for b in parts if b.experiment == name], is_stopped, starts)
        for name in frozen.recipe.order()
    ]
    states = {one.state for one in found}
    state: State = "running"
    if states == {"done"}:
        state = "done"
    elif is_stopped:
        state = "stopped"
    elif "failed" in states and "running" not in states:
        state = "failed"
    elif states == {"waiting"}:
        state = "created"
    return RecipeState(frozen.key, frozen.recipe.name, state, tuple(found))


def _experiment(
    frozen: Frozen, name: str, parts: list[Batch], is_stopped: bool, starts: bool
) -> ExperimentState:
    states = [ledger.read_state(frozen.uri, batch.label) for batch in parts]
    done = set(list_names(join(frozen.uri, "records", name)))
    failed = set(list_names(join(frozen.uri, "failures", name))) - done
    total = len(task_points(frozen.uri, name))
    state: State = "waiting"
    if len(done) == total and all(one.status == "done" for one in states):
        state = "done"
    elif any(one.status == "running" for one in states):
        state = "running"
    elif is_stopped:
        state = "stopped"
    elif any(one.status == "failed" for one in states):
        state = "failed"
    elif any(one.status == "done" for one in states):
        state = "running"
    return ExperimentState(
        name,
        state,
        done=len(done),
        failed=len(failed),
        total=total,
        starts=sum(1 for _ in walk(join(frozen.uri, "starts", name))) if starts else 0,
        seconds=max(one.seconds for one in states),
        error="; ".join(one.error for one in states if one.error and one.status == "failed"),
    )


def tasks(frozen: Frozen, experiment: str) -> list[dict[str, Any]]:
    """Return name, state, parameters and, where there is one, result or error of every task."""
    records, failures = (
        set(list_names(join(frozen.uri, kind, experiment))) for kind in ("records", "failures")
    )
    begun = set(list_names(join(frozen.uri, "starts", experiment)))
    done = join(frozen.uri, "done", f"{experiment}.json")
    read = {one["task"]: one for one in read_json(done)} if exists(done) else {}
    found = []
    for index, point in enumerate(task_points(frozen.uri, experiment)):
        name = task_name(index)
        row: dict[str, Any] = {"task": f"{frozen.key}/{experiment}/{name}", "parameters": point}
        if f"{name}.json" in records:
            place = join(frozen.uri, "records", experiment, f"{name}.json")
            record = read.get(name) or read_json(place)
            row |= {"state": "done", "seconds": record["seconds"], "result": record["result"]}
        elif f"{name}.json" in failures:
            failure = read_json(join(frozen.uri, "failures", experiment, f"{name}.json"))
            row |= {"state": "failed", "error": failure["error"]}
        else:
            row |= {"state": "running" if name in begun else "waiting"}
        found.append(row)
    return found


def read_log(frozen: Frozen, experiment: str, task: str) -> str:
    """Return what a task printed at its last start; of a group, what each process printed.

    Raises
    ------
    ConfigError
        If there is no such task, or it has not printed anything yet.
    """
    frozen.experiment(experiment)  # says so if there is none
    total = len(task_points(frozen.uri, experiment))
    if not task.isdecimal() or len(task) > 6 or int(task) >= total:
        raise ConfigError(
            f"{frozen.key}/{experiment} has the tasks {task_name(0)} to {task_name(total - 1)}, "
            f"got {task!r}"
        )
    folder = join(frozen.uri, "logs", experiment, task_name(int(task)))
    names = list_names(folder)
    if not names:
        raise ConfigError(f"{frozen.key}/{experiment}/{task} has not been started yet")
    if LIVE in names:
        return read_bytes(join(folder, LIVE)).decode(errors="replace")
    latest: dict[str, str] = {}
    for name in names:  # sorted by time, so the last of each rank stays
        latest[name.split("-")[2]] = name
    texts = [
        (rank, read_bytes(join(folder, name)).decode(errors="replace"))
        for rank, name in sorted(latest.items())
    ]
    if len(texts) == 1:
        return texts[0][1]
    return "".join(f"--- process {int(rank)} ---\n{text}" for rank, text in texts)


def stop(frozen: Frozen) -> list[str]:
    """Stop a recipe: nothing new begins, and running processes end within seconds.

    Returns the labels of the batches that were under way.
    """
    replace_json(join(frozen.uri, STOP), {"reason": STOPPED})
    running = []
    for batch in batches(frozen):
        state = ledger.read_state(frozen.uri, batch.label)
        if state.status == "running":
            running.append(batch.label)
            ledger.stop(frozen.uri, batch.label, STOPPED)
    return running


def go_on(frozen: Frozen) -> None:
    """Let a recipe that was stopped or has failed be started again."""
    delete(join(frozen.uri, STOP))
    for batch in batches(frozen):
        if ledger.read_state(frozen.uri, batch.label).status == "failed":
            # Else those that depend on it would give up before it is taken up.
            ledger.write_state(frozen.uri, ledger.StageState(batch.label))


def is_stopped(uri: str) -> bool:
    """Return whether a user has stopped a recipe."""
    return exists(join(uri, STOP))
