"""What a worker takes before it has computed anything: the stage, the network's file, one patch.

``python -m tests.benchmarks.predict.start`` loads one small network in fresh processes, by the
engine and by Keras in turn. ``--write`` puts the table into docs/prediction.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.predict.table import CASES, write_model
from tests.pages import write_table

PAGE, TABLE = "prediction.md", "start-of-a-worker"
ROUNDS = 3

# Not `ru_maxrss`: it begins with what the parent had. Pages of shared libraries count too.
WORKER = """
import json, sys, time
from pathlib import Path
import numpy as np
import psutil
import alignment.stages.predict
from inference.backends.files import load_network, on_engine

data = Path(sys.argv[2]).read_bytes()
idle_s, idle = time.process_time(), psutil.Process().memory_info().rss
network = (on_engine if sys.argv[1] == "engine" else load_network)(data)
read_s = time.process_time()
network(np.zeros((1, 24, 96, 96, 1), np.float32))
used = time.process_time()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = 1024 * int(status["VmHWM"].split()[0])
print(json.dumps([idle_s, read_s - idle_s, used - read_s, idle, peak]))
"""


def measure(backend: str, model: Path) -> list[float]:
    """Return CPU-s of imports, of reading the file and of a patch, and bytes before and after."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER, backend, str(model)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return list(json.loads(done.stdout.splitlines()[-1]))


def row(backend: str, rounds: list[list[float]]) -> str:
    """Return a line of the table: medians."""
    idle_s, read_s, first_s, idle, peak = (statistics.median(n) for n in zip(*rounds, strict=True))
    cells = (
        backend,
        f"{idle_s:.1f}",
        f"{read_s:.2f}",
        f"{first_s:.2f}",
        f"{idle / 2**20:.0f}",
        f"{peak / 2**20:.0f}",
    )
    return "| " + " | ".join(cells) + " |"


HEAD = """\
| by | CPU-s: imports of the stage | the network's file | first patch of 24 x 96 x 96 \
| resident MiB: with the stage | highest |
|---|--:|--:|--:|--:|--:|"""


def main() -> None:
    """Measure both; print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    is_kept = parser.parse_args().write
    found: dict[str, list[list[float]]] = {"engine": [], "keras": []}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.keras"
        write_model(model, CASES[0])
        for _ in range(ROUNDS):
            for backend, rounds in found.items():
                rounds.append(measure(backend, model))
    table = "\n".join([HEAD, *(row(backend, rounds) for backend, rounds in found.items())])
    print(table)
    if is_kept:
        write_table(PAGE, TABLE, table)


if __name__ == "__main__":
    main()
