"""Train a network on one worker, in a process of its own that ends with the worker.

Of its own, because TensorFlow is set up once in a process: training asks for determinism and all
threads of the worker, predictions for one thread, and what a training has taken is given back when
its process ends. The folder in the store has all that is needed to go on elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alignment.blockwise import Client, own_threads
from alignment.errands.progress import Progress, Stopped
from alignment.errors import AlignmentError, ConfigError, DataError
from alignment.learning.config import LearnConfig, parse_learn_config
from alignment.learning.remote import read_trained
from alignment.recipes.errors import TaskStopped
from alignment.recipes.process import run_program
from alignment.recipes.surroundings import scratch
from storage.errors import StorageError
from storage.store import normalise_uri

PROGRAM = "alignment.errands.learner"
ORDER, OUTCOME, LOG = "order.json", "outcome.json", "log"
WITHOUT_TELLING = 20
"""Lines of a program that failed without a word that are shown."""

_LINE = re.compile(r"(?:step +(?P<step>[\d,]+)|[\d,]+ pairs) .*")
"""What `petalign train nccnet` says of its progress."""


def train_nccnet(
    arguments: Mapping[str, Any], _client: Client | None, progress: Progress
) -> dict[str, Any]:
    """Train an NCCNet, or go on; return where the best network is, and how good.

    Parameters
    ----------
    arguments : mapping
        ``stack`` and ``folder``, URIs; ``config``, as of `alignment.learning.config.LearnConfig`.

    Raises
    ------
    ConfigError, DataError, StorageError
        As the training itself raises them.
    """
    stack, folder = (normalise_uri(arguments[name]) for name in ("stack", "folder"))
    config = parse_learn_config(arguments["config"])
    if find_spec("tensorflow") is None:
        raise ConfigError(
            f"the Dask worker on {os.uname().nodename} has no TensorFlow, which trains networks; "
            "install it where workers run: pip install 'petalign[train]'"
        )
    order = {"stack": stack, "folder": folder, "config": config.model_dump(mode="json")}
    progress.tell(0, config.training.steps, "looking for pairs")
    with scratch() as base:
        (base / ORDER).write_text(json.dumps(order))
        told = _Lines(base / LOG, progress, config)
        try:
            status = run_program(
                [sys.executable, "-P", "-m", PROGRAM, str(base / ORDER), str(base / OUTCOME)],
                environment=_environment(base / "work", own_threads()),
                folder=base / "work",
                log=base / LOG,
                timeout_s=float("inf"),
                watch=told,
            )
            told()
        except TaskStopped as error:
            raise Stopped(str(error)) from None
        if status != 0:
            raise _error_of(base, status)
    return read_trained(folder)


class _Lines:
    """Tells what the program has said since the last call."""

    def __init__(self, log: Path, progress: Progress, config: LearnConfig) -> None:
        log.touch()
        self._log, self._at = log, 0
        self._progress = progress
        self._done, self._steps = 0, config.training.steps

    def __call__(self) -> None:
        with self._log.open("rb") as file:
            file.seek(self._at)
            *lines, _ = file.read().split(b"\n")  # the last one is not complete yet
        self._at += sum(len(line) + 1 for line in lines)
        matches = [_LINE.fullmatch(line.decode(errors="replace").rstrip()) for line in lines]
        said = [match for match in matches if match]
        for match in said:
            self._done = int((match["step"] or "0").replace(",", ""))
        phase = said[-1][0] if said else ""
        try:
            self._progress.tell(self._done, self._steps, phase)
        except Stopped as error:  # what lets `run_program` ask the program to end
            raise TaskStopped(str(error)) from None


def _environment(folder: Path, threads: int) -> dict[str, str]:
    """Return the worker's own environment, with threads and a temporary folder of its own."""
    many = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), str(threads)
    )
    return {
        **os.environ,
        **many,
        "TF_NUM_INTEROP_THREADS": "1",
        "TMPDIR": str(folder / "tmp"),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *_own_path()]),
        "PYTHONUNBUFFERED": "1",
    }


def _own_path() -> list[str]:
    return list(filter(None, [os.environ.get("PYTHONPATH")]))


def _error_of(base: Path, status: int) -> Exception:
    """Return the error with which the program ended, in its own words if it had any."""
    try:
        told = json.loads((base / OUTCOME).read_text())
    except FileNotFoundError:
        told = {}
    kinds: dict[str, type[Exception]] = {
        "config": ConfigError, "data": DataError, "storage": StorageError,
    }  # fmt: skip
    if told:
        return kinds.get(told["kind"], AlignmentError)(told["error"])
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    hint = ": the machine's memory may be full; lower training.batch" if status == -9 else ""
    lines = (base / LOG).read_text(errors="replace").splitlines()[-WITHOUT_TELLING:]
    return AlignmentError(f"training ended by {how}{hint}. Its last lines: " + " | ".join(lines))
