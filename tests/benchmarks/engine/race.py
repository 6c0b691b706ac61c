"""Hold a race: every way computes a network in a process of its own, one at a time, in rounds.

Each process is started, computes once, and is compared with Keras. Then every way has one turn a
round, in an order that changes; it is timed inside its process, on the clock and by processor time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from inference.operations import gflop
from tests.benchmarks.engine.export import read_graph
from tests.benchmarks.engine.networks import GOALS, find
from tests.benchmarks.engine.peak.measure import peak_gflop_s
from tests.benchmarks.engine.peers import exchange
from tests.benchmarks.engine.results import ROOT, Entrant, Race, sources
from tests.benchmarks.machine import machine

WAYS = (
    "engine",
    "engine, tiles of 6",
    "OpenVINO, float32",
    "TensorFlow",
    "PyTorch, channels last",
    "PyTorch, compiled",
    "PyTorch, eager",
    "ONNX Runtime",
    "OpenVINO, int8",
)
FEW = WAYS[:5]
"""The engine, and the fastest of each library in float32 as far as that was found."""
OURS = ("engine", "engine, tiles of 6", "TensorFlow")
"""They run in petalign's own environment."""
PEERS_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
PATIENCE_S = 1200.0
"""For one answer: a peer that takes longer is stopped, and its row says so."""


def ways_for(key: str) -> tuple[str, ...]:
    """Return who takes part by default: all, for the networks that goals are set for."""
    return WAYS if key in GOALS else FEW


def hold(
    key: str,
    threads: int,
    rounds: int,
    ways: Sequence[str],
    peers_python: Path = PEERS_PYTHON,
) -> Race:
    """Race a network; who fails has a row that says why."""
    with tempfile.TemporaryDirectory(prefix="petalign-bench-") as name:
        _export(key, Path(name))
        return hold_in(Path(name), find(key).title, threads, rounds, ways, peers_python)


def hold_in(
    folder: Path,
    title: str,
    threads: int,
    rounds: int,
    ways: Sequence[str],
    peers_python: Path = PEERS_PYTHON,
) -> Race:
    """Race the network that a folder holds."""
    network = exchange.load(folder)
    entered = [Entrant(way) for way in ways]
    peaks = [peak_gflop_s(threads)]
    with ExitStack() as stack:
        workers = {}
        for one in entered:
            worker = stack.enter_context(Worker(one.way, folder, threads, peers_python))
            if _entered(one, worker):
                workers[one.way] = worker
        ready = [one for one in entered if one.way in workers]
        for round_ in range(rounds):
            shift = round_ % max(len(ready), 1)
            for one in ready[shift:] + ready[:shift]:
                _turn(one, workers[one.way])
    peaks.append(peak_gflop_s(threads))
    batch, _, *size = network.array("expected").shape
    return Race(
        network.key,
        title,
        threads,
        gflop(read_graph(network)) * batch,
        batch * int(np.prod(size)),
        max((rate for rate in peaks if rate), default=None),
        machine("numpy"),
        sources(),
        entered,
    )


def _export(key: str, folder: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.engine.export", key, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=_environment(os.cpu_count() or 1, folder),
                          capture_output=True, text=True, check=False)  # fmt: skip
    if not (folder / "done").exists():
        raise RuntimeError(f"network {key} could not be written for peers:\n{done.stderr[-2000:]}")


def _entered(one: Entrant, worker: Worker) -> bool:
    answer = worker.answer()
    one.failure = answer.get("failure", "")
    one.version, one.error = answer.get("version", ""), answer.get("error", 0.0)
    return not one.failure


def _turn(one: Entrant, worker: Worker) -> None:
    if one.failure:
        return
    answer = worker.ask("run")
    if "failure" in answer:
        one.failure, one.wall_s, one.cpu_s = answer["failure"], [], []
        return
    one.wall_s.append(answer["wall_s"])
    one.cpu_s.append(answer["cpu_s"])
    one.peak_bytes = answer["peak_bytes"]


class Worker:
    """A process of `peers.worker`; it ends with the context."""

    def __init__(self, way: str, folder: Path, threads: int, peers_python: Path) -> None:
        is_ours = way.partition(",")[0] in OURS or not peers_python.exists()
        self._log = (folder / f"{way}.log").open("w+b")
        command = [
            sys.executable if is_ours else str(peers_python),
            "-m", "tests.benchmarks.engine.peers.worker", way, str(folder), str(threads),
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_environment(threads, folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
        )

    def ask(self, line: str) -> dict[str, Any]:
        """Return the answer to a line."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
        except BrokenPipeError:
            return {"failure": self._last_words()}
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Return the next answer; a process that is silent or gone has failed."""
        assert self._process.stdout is not None
        patience = threading.Timer(PATIENCE_S, self._process.kill)
        patience.start()
        line = self._process.stdout.readline()
        is_late = not patience.is_alive()
        patience.cancel()
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
        late = f"no answer within {PATIENCE_S:.0f} s; " if is_late else ""
        return {"failure": f"{late}{self._last_words()}"}

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"ended with {code}: {lines[-1][:200] if lines else 'without a word'}"

    def __enter__(self) -> Worker:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()


def _environment(threads: int, folder: Path) -> dict[str, str]:
    """Return the environment of a process that computes; only what it loads itself is on its path.

    PyTorch compiles within its process, so that nothing runs beside the race, and leaves no files;
    NNCF sends no statistics.
    """
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled"),
        "NNCF_CI": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
