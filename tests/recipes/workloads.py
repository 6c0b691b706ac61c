"""The four recipes of docs/recipes on a cluster of processes, of which one is killed meanwhile.

``python -m tests.recipes.workloads`` runs them at full size (about ten minutes on two free cores)
and writes what it measured into docs/recipes.md; names run only these.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.blockwise import Client, local_client
from alignment.recipes.frozen import Frozen, freeze, load
from alignment.recipes.local import run_recipe
from alignment.recipes.states import look
from storage.store import join, list_names, read_json
from tests.pages import DOCS, write_table

FOLDER = DOCS / "recipes"
VICTIMS = {"documents": "tokenise", "training": "train", "inference": "infer", "search": "search"}
"""The experiment of each workload in which a worker is killed."""
PAUSE = {"training": {"pause: 0": "pause: 0.02"}}
"""A second of training would be over before a worker can be killed in it."""
WAIT_S = 300.0
HEAD = (
    "| recipe | tasks | seconds | processes started | of them again | workers killed |",
    "| --- | --- | --- | --- | --- | --- |",
)


@dataclass(frozen=True)
class Ran:
    """What became of a workload."""

    frozen: Frozen
    tasks: int
    starts: int
    planned_starts: int
    """As many as there would have been without a killed worker."""
    seconds: float
    killed: int
    """Workers that were ended by signal 9."""

    def results(self, experiment: str) -> list[dict[str, Any]]:
        """Return the results of an experiment's tasks, in order."""
        folder = join(self.frozen.uri, "records", experiment)
        return [read_json(join(folder, name))["result"] for name in list_names(folder)]


def run_workload(
    name: str,
    folder: Path,
    *,
    workers: int = 4,
    kill: bool = True,
    client: Client | None = None,
    changes: Mapping[str, str] | None = None,
) -> Ran:
    """Run a workload in `folder`, on `client` or new workers; `changes` replaces text in it."""
    shutil.copytree(FOLDER / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for old, new in (changes or {}).items():
        _replace(folder / name, old, new)
    recipe = folder / name / "recipe.yaml"
    frozen = load(freeze(recipe, f"{folder}/store"))
    killed: list[int] = []
    over = threading.Event()
    with nullcontext(client) if client else local_client(workers) as client:
        thread = threading.Thread(
            target=kill_one, args=(frozen, VICTIMS.get(name, ""), killed, over)
        )
        if kill:
            thread.start()
        begun = time.monotonic()
        try:
            run_recipe(frozen, client)
        finally:
            seconds = time.monotonic() - begun
            over.set()
            if kill:
                thread.join()
    state = look(frozen)
    group = {n: e.workers if e.gang else 1 for n, e in frozen.recipe.experiments.items()}
    return Ran(
        frozen,
        tasks=state.total,
        starts=sum(one.starts for one in state.experiments),
        planned_starts=sum(one.total * group[one.name] for one in state.experiments),
        seconds=seconds,
        killed=len(killed),
    )


def _replace(folder: Path, old: str, new: str) -> None:
    found = [path for path in folder.iterdir() if old in path.read_text()]
    if not found:
        raise ValueError(f"nothing in {folder} says {old!r}")
    for path in found:
        path.write_text(path.read_text().replace(old, new))


def kill_one(frozen: Frozen, experiment: str, killed: list[int], over: threading.Event) -> None:
    """Kill, by its id, a worker that runs a task of an experiment of which some are done.

    Of a group, which is one task, a worker is killed once it has saved something.
    """
    deadline = time.monotonic() + WAIT_S
    begun = "shared" if frozen.experiment(experiment).gang else "records"
    while time.monotonic() < deadline and not over.wait(0.02):
        if not list_names(join(frozen.uri, begun, experiment)):
            continue
        pid = _busy_worker(frozen, experiment)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return


def _busy_worker(frozen: Frozen, experiment: str) -> int | None:
    """Return the process of a worker that has a task which was begun and has no record."""
    signs = join(frozen.uri, "starts", experiment)
    tasks = list_names(signs)
    done = list_names(join(frozen.uri, "records", experiment))
    for task in reversed([task for task in tasks if f"{task}.json" not in done]):
        if names := list_names(join(signs, task)):
            return int(read_json(join(signs, task, names[-1]))["pid"])
    return None


def main() -> None:
    """Run the workloads and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.recipes.workloads")
    parser.add_argument("names", nargs="*", default=[], help=", ".join(VICTIMS))
    given = parser.parse_args()
    for name in given.names or VICTIMS:
        with tempfile.TemporaryDirectory() as folder:
            ran = run_workload(name, Path(folder), changes=PAUSE.get(name))
        row = (
            f"| {name} | {ran.tasks} | {ran.seconds:.0f} | {ran.starts} | "
            f"{ran.starts - ran.planned_starts} | {ran.killed} |"
        )
        print(row, flush=True)
        write_table("recipes.md", "workloads", with_row((DOCS / "recipes.md").read_text(), row))


def with_row(page: str, row: str) -> str:
    """Return the table of a page with one row replaced or added, in the order of `VICTIMS`."""
    table = page.partition("<!-- workloads -->")[2].partition("<!-- /workloads -->")[0]
    found = [*table.splitlines(), row]
    rows = {line.split("|")[1].strip(): line for line in found if line.startswith("|")}
    return "\n".join([*HEAD, *(rows[name] for name in VICTIMS if name in rows)])


if __name__ == "__main__":
    main()
