"""One volume, relaxed in 1 to 8 slabs by 1 and 2 workers, killed and resumed: how far apart?

``python -m tests.benchmarks.relax.slabs`` aligns a phantom up to its trusted matches and lets the
real stage relax them, on a Dask cluster of processes, once for every case. What is compared is what
the solver found, before it is rounded to 1/32 px; the answer of one solve in memory is the measure.
``--write`` puts the table into docs/relaxation.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alignment.blockwise import local_client
from alignment.commands.sample import write_phantom
from alignment.energy import Vector
from alignment.match import grid_spacing_px
from alignment.phantom import PhantomConfig
from alignment.relax import relax_stack
from alignment.runs import load, prepare
from alignment.schwarz import history
from alignment.stages import ORDER, inputs, run_stage
from alignment.stages.slabstate import decomposition, painted, trusted
from alignment.stages.torn import torn_section
from storage.commit import records
from storage.volume import open_array
from tests.pages import write_table

PAGE, NAME = "relaxation.md", "slabs"
SECTIONS, SIDE_PX = 32, 640
KILLED_AT = "sweep-2-0"
CASES = ((1, 1), (2, 1), (2, 2), (4, 2), (8, 1), (8, 2))
"""Slabs and workers."""
SHARDS = {"volume": {"aligned_shard": [32, 512, 512], "aligned_chunk": [32, 64, 64]}}


class Row(NamedTuple):
    """One case."""

    slabs: int
    workers: int
    is_killed: bool
    sweeps: int
    seconds: float
    apart_px: float
    rounded: float
    """Share of the published displacements that differ at all."""


def measure(folder: Path) -> list[Row]:
    """Relax one volume in all cases."""
    source, volume = ((folder / name).as_uri() for name in ("raw.zarr", "out.zarr"))
    write_phantom(source, PhantomConfig(sections=SECTIONS, height=SIDE_PX, width=SIDE_PX, seed=5))
    before = ORDER[: ORDER.index("relax")]
    base = prepare(source, volume, SHARDS)
    with local_client(2) as client:
        for stage in ORDER:
            run_stage(stage, base, client)
    expected, fields = _at_once(base)
    rows = []
    killed = [(slabs, workers, False) for slabs, workers in CASES] + [(4, 2, True)]
    for slabs, workers, is_killed in killed:
        # A setting that means nothing makes it a run of its own.
        settings = {"slab_sections": SECTIONS // slabs, "max_sweeps": 40 + len(rows)}
        run_uri = prepare(source, volume, {**SHARDS, "relax": settings})
        with local_client(2) as client:
            for stage in before:
                run_stage(stage, run_uri, client)
        begin = time.perf_counter()
        if is_killed:
            _kill_midway(run_uri, workers)
        _relax(run_uri, workers).wait()
        seconds = time.perf_counter() - begin
        u, found = _solution(run_uri) if slabs > 1 else _at_once(run_uri)
        sweeps = sum(name.startswith("gather") for name in _phases(run_uri)) - 1
        apart = float(np.abs(u - expected).max())
        share = float((found != fields).mean())
        rows.append(Row(slabs, workers, is_killed, max(sweeps, 0), seconds, apart, share))
        print(rows[-1], flush=True)
    return rows


def markdown(rows: list[Row]) -> str:
    """Return the results as a table."""
    lines = [
        "| slabs | workers | | sweeps | s | largest difference, px | published values unlike |",
        "|--:|--:|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {r.slabs} | {r.workers} | {'killed, resumed' if r.is_killed else ''} | {r.sweeps} "
        f"| {r.seconds:.0f} | {r.apart_px:.1e} | {r.rounded:.4%} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def _at_once(run_uri: str) -> tuple[Vector, np.ndarray]:
    run = load(run_uri)
    relaxed = relax_stack(
        [trusted(run, z, d) for z, d in inputs.trusted_pairs(run)],
        run.shape[0],
        inputs.coarse(run_uri).canvas,
        grid_spacing_px(run.config.match),
        run.config.relax,
        missing=inputs.missing(run_uri),
        stiffness_map=np.stack([torn_section(run, z) for z in range(run.shape[0])]),
    )
    return relaxed.minimum.u, inputs.read_all(open_array(run_uri, "fields"))


def _solution(run_uri: str) -> tuple[Vector, np.ndarray]:
    cut = decomposition(run_uri)
    last = max(int(name.split("-")[1]) for name in _phases(run_uri) if name.startswith("sweep"))
    u = painted(load(run_uri), cut.whole, history(last, cut.colours, cut.colours))
    return u, inputs.read_all(open_array(run_uri, "fields"))


def _phases(run_uri: str) -> list[str]:
    names = [f"gather-{i}-{r}" for i in range(50) for r in range(4)]
    names += [f"sweep-{i}-{c}" for i in range(50) for c in range(8)]
    return [name for name in names if records.recorded(run_uri, "relax", name)]


def _relax(run_uri: str, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.benchmarks.relax.slabs", "--stage", run_uri]
    return subprocess.Popen([*command, str(workers)], start_new_session=True)


def _kill_midway(run_uri: str, workers: int) -> None:
    """Kill the driver and its workers as soon as the second round has begun."""
    process = _relax(run_uri, workers)
    while process.poll() is None and not records.recorded(run_uri, "relax", KILLED_AT):
        time.sleep(0.05)
    if process.poll() is not None:
        raise AssertionError("the stage ended before it could be killed")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main() -> None:
    """Relax, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--stage", nargs=2, metavar=("RUN", "WORKERS"))
    arguments = parser.parse_args()
    if arguments.stage:
        run_uri, workers = arguments.stage
        with local_client(int(workers)) as client:
            run_stage("relax", run_uri, client)
        return
    with tempfile.TemporaryDirectory() as folder:
        table = markdown(measure(Path(folder)))
    print(table)
    if arguments.write:
        write_table(PAGE, NAME, table)


if __name__ == "__main__":
    main()
