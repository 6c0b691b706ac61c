"""A process that computes one network in one way, when it is told to.

``python -m tests.benchmarks.engine.peers.worker WAY FOLDER THREADS`` computes once, and writes a
line of JSON: the version of the library and how far the output is from the expected one; or why it
cannot. Then every line "run" of its input is answered by what one more computation took; "quit"
ends it.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.engine.peers import exchange

Compute = Callable[[], Any]
"""Computes the network once; a module says how its result becomes an array."""

MODULES = {
    "engine": "by_engine",
    "TensorFlow": "by_tensorflow",
    "PyTorch": "by_torch",
    "ONNX Runtime": "by_onnxruntime",
    "OpenVINO": "by_openvino",
}
"""By the first words of a way; the rest, behind a comma, is told to the module."""


def main() -> None:
    """Get ready, then answer."""
    way, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print isn't an answer
    try:
        network = exchange.load(folder)
        library, _, variant = way.partition(", ")
        module = importlib.import_module(f"tests.benchmarks.engine.peers.{MODULES[library]}")
        version, compute, output = module.prepare(network, variant, threads)
        error = _error(output(compute()), network.array("expected"))
    except Exception as failure:  # whatever keeps a peer from running is a row of the table
        answers.write(json.dumps({"failure": f"{type(failure).__name__}: {failure}"[:300]}) + "\n")
        return
    answers.write(json.dumps({"version": version, "error": error}) + "\n")
    for line in sys.stdin:
        if line.strip() == "quit":
            break
        answers.write(json.dumps(_timed(compute)) + "\n")


def _timed(compute: Compute) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    made = compute()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    del made
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"wall_s": wall, "cpu_s": cpu, "peak_bytes": peak}


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference."""
    if found.shape != expected.shape:
        raise ValueError(f"the output is {found.shape}, not {expected.shape}")
    return float(abs(found.astype(np.float32) - expected).max())


if __name__ == "__main__":
    main()
