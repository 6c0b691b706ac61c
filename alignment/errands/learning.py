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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alignment.blockwise import Client, own_threads
from alignment.config import Config
from alignment.errands.progress import Progress, Stopped
from alignment.errors import AlignmentError, ConfigError, DataError
from alignment.learning.config import parse_learn_config
from alignment.learning.remote import read_trained
from alignment.learning.segmentation.config import SegmentConfig, parse_segment_config
from alignment.learning.segmentation.outcome import read_trained as read_trained_unet
from alignment.recipes.errors import TaskStopped
from alignment.recipes.process import run_program
from alignment.recipes.surroundings import scratch
from storage.errors import StorageError
from storage.store import normalise_uri

PROGRAM = "alignment.errands.learner"
ORDER, OUTCOME, LOG = "order.json", "outcome.json", "log"
WITHOUT_TELLING = 20
"""Lines of a program that failed without a word that are shown."""

_LINE = re.compile(
    r"(?:epoch +\d+ +)?step +(?P<step>[\d,]+) .*|[\d,]+ pairs .*|.+ was lost; the others go on"
)
"""What `petalign train` says of its progress."""


@dataclass(frozen=True)
class _Kind:
    """What one kind of training has of its own."""

    source: str
    """Argument with the URI of what is learned from."""
    begins: str
    """What it does before the first step."""
    parse: Callable[[dict[str, Any]], Config]
    steps: Callable[[Any], int]
    """Of a configuration: how many there are at most."""
    found: Callable[[str], dict[str, Any]]
    """What came of a training in a folder."""
    environment: Mapping[str, str]


def _steps_of(config: SegmentConfig) -> int:
    return config.training.epochs * config.training.steps_per_epoch


_NCCNET = _Kind(
    "stack", "looking for pairs", parse_learn_config, lambda config: config.training.steps,
    read_trained, {"TF_NUM_INTEROP_THREADS": "1"},
)  # fmt: skip
# Several processes wait for one another inside of operations: one thread for these would not do.
_UNET = _Kind("data", "starting", parse_segment_config, _steps_of, read_trained_unet, {})


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
    return _train("train_nccnet", _NCCNET, arguments, {}, progress, own_threads())


def train_unet(
    arguments: Mapping[str, Any], _client: Client | None, progress: Progress
) -> dict[str, Any]:
    """Train a network to segment, or go on; return where the best network is, and how good.

    All its processes run beside this worker, and share its threads.

    Parameters
    ----------
    arguments : mapping
        ``data`` and ``folder``, URIs; ``mode`` and ``workers``, as of `petalign train unet`;
        ``config``, as of `alignment.learning.segmentation.config.SegmentConfig`.

    Raises
    ------
    ConfigError, DataError, StorageError
        As the training itself raises them.
    WorkerLostError
        As an `AlignmentError`: another try goes on from the last checkpoint.
    """
    how = {"mode": arguments["mode"], "workers": int(arguments["workers"])}
    processes = how["workers"] if how["mode"] in ("sync", "async") else 1
    threads = max(own_threads() // processes, 1)
    return _train("train_unet", _UNET, arguments, how, progress, threads)


def _train(
    errand: str,
    kind: _Kind,
    arguments: Mapping[str, Any],
    how: Mapping[str, Any],
    progress: Progress,
    threads: int,
) -> dict[str, Any]:
    """Let the program of this errand train; tell its progress, or raise its error."""
    source, folder = (normalise_uri(arguments[name]) for name in (kind.source, "folder"))
    config = kind.parse(arguments["config"])
    if find_spec("tensorflow") is None:
        raise ConfigError(
            f"the Dask worker on {os.uname().nodename} has no TensorFlow, which trains networks; "
            "install it where workers run: pip install 'petalign[train]'"
        )
    values = config.model_dump(mode="json")
    order = {"errand": errand, kind.source: source, "folder": folder, "config": values, **how}
    steps = kind.steps(config)
    progress.tell(0, steps, kind.begins)
    with scratch() as base:
        (base / ORDER).write_text(json.dumps(order))
        told = _Lines(base / LOG, progress, steps)
        try:
            status = run_program(
                [sys.executable, "-P", "-m", PROGRAM, str(base / ORDER), str(base / OUTCOME)],
                environment={**_environment(base / "work", threads), **kind.environment},
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
    return kind.found(folder)


class _Lines:
    """Tells what the program has said since the last call."""

    def __init__(self, log: Path, progress: Progress, steps: int) -> None:
        log.touch()
        self._log, self._at = log, 0
        self._progress = progress
        self._done, self._steps = 0, steps

    def __call__(self) -> None:
        with self._log.open("rb") as file:
            file.seek(self._at)
            *lines, _ = file.read().split(b"\n")  # the last one is not complete yet
        self._at += sum(len(line) + 1 for line in lines)
        matches = [_LINE.fullmatch(line.decode(errors="replace").rstrip()) for line in lines]
        said = [match for match in matches if match]
        for match in said:
            if match["step"]:
                self._done = int(match["step"].replace(",", ""))
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
