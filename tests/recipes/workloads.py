"""The four recipes of docs/recipes on a cluster of processes, of which one is killed meanwhile.

``python -m tests.recipes.workloads`` runs them at full size (about ten minutes on two free cores)
and writes what it measured into docs/recipes.md; names run only these, without writing.
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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.blockwise import local_client
from alignment.recipes.driver import run_batch
from alignment.recipes.frozen import Frozen, freeze, load, plan
from alignment.recipes.states import look
from storage.store import join, list_names, read_json
from tests.pages import DOCS, write_table

FOLDER = DOCS / "recipes"
VICTIMS = {"documents": "tokenise", "training": "train", "search": "search", "inference": "infer"}
"""The experiment of each workload in which a worker is killed."""
PAUSE = {"training": {"pause: 0": "pause: 0.02"}}
"""A second of training would be over before a worker can be killed in it."""
WAIT_S = 300.0


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
    workers: int = 2,
    kill: bool = True,
    changes: Mapping[str, str] | None = None,
) -> Ran:
    """Run a workload in `folder`; `changes` replaces parts of the recipe's text."""
    shutil.copytree(FOLDER / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    recipe = folder / name / "recipe.yaml"
    text = recipe.read_text()
    for old, new in (changes or {}).items():
        if old not in text:
            raise ValueError(f"{recipe} does not say {old!r}")
        text = text.replace(old, new)
    recipe.write_text(text)
    frozen = load(freeze(recipe, f"{folder}/store"))
    killed: list[int] = []
    over = threading.Event()
    with local_client(workers) as client:
        thread = threading.Thread(target=_kill_one, args=(frozen, VICTIMS[name], killed, over))
        if kill:
            thread.start()
        begun = time.monotonic()
        try:
            for batch in plan(frozen.uri)["batches"]:
                run_batch(frozen.uri, batch["batch"], client)
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


def _kill_one(frozen: Frozen, experiment: str, killed: list[int], over: threading.Event) -> None:
    """Kill, by its id, a worker that runs a task of an experiment of which some are done."""
    deadline = time.monotonic() + WAIT_S
    is_group = frozen.experiment(experiment).gang
    while time.monotonic() < deadline and not over.wait(0.02):
        records = {
            n.removesuffix(".json") for n in list_names(_place(frozen, "records", experiment))
        }
        shared = list_names(_place(frozen, "shared", experiment))
        if not (shared if is_group else records):
            continue
        for task in reversed(list_names(_place(frozen, "starts", experiment))):
            if task in records:
                continue
            sign = list_names(_place(frozen, "starts", experiment, task))[-1]
            pid = read_json(_place(frozen, "starts", experiment, task, sign))["pid"]
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return


def _place(frozen: Frozen, *names: str) -> str:
    return join(frozen.uri, *names)


def main() -> None:
    """Run the workloads and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.recipes.workloads")
    parser.add_argument("names", nargs="*", default=[], help=", ".join(VICTIMS))
    given = parser.parse_args()
    rows = [
        "| recipe | tasks | seconds | processes started | of them again | workers killed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in given.names or VICTIMS:
        with tempfile.TemporaryDirectory() as folder:
            ran = run_workload(name, Path(folder), changes=PAUSE.get(name))
        rows.append(
            f"| {name} | {ran.tasks} | {ran.seconds:.0f} | {ran.starts} | "
            f"{ran.starts - ran.planned_starts} | {ran.killed} |"
        )
        print(rows[-1], flush=True)
    if not given.names:
        write_table("recipes.md", "workloads", "\n".join(rows))


if __name__ == "__main__":
    main()
