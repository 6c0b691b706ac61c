"""One measurement of the runner: ``python -m tests.benchmarks.runner.measure UNITS`` prints it.

In a process of its own, because memory that was used once does not go down again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

from alignment.blockwise import Client
from alignment.commands.sample import write_phantom
from alignment.phantom import PhantomConfig
from alignment.runs import prepare
from alignment.stages import runner
from tests.benchmarks.runner.cluster import Peak, cluster
from tests.benchmarks.runner.noop import STAGE, phase

WORKERS = 2
FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Records are files in memory: on a disk, two fsync a record would be all that is measured."""


@dataclass(frozen=True)
class Measured:
    """What so many units cost."""

    units: int
    us_per_unit: float
    """Wall time from the first unit to the seal of the stage."""
    cpu_us: float
    """Time of processors that driver, scheduler and workers took together, µs a unit."""
    sealing_us: float
    """The part of it in which the stage is sealed, after the last unit, µs a unit."""
    resume_us: float
    """Another driver that finds everything done: listing, comparing, sealing, µs a unit."""
    scheduler_mib: float
    """Largest resident memory of the scheduler above what it had before."""
    driver_mib: float


def prepared(folder: Path) -> str:
    """Return the URI of a run over a small source, with its records in files."""
    source = (folder / "raw").as_uri()
    write_phantom(source, PhantomConfig(sections=2, height=64, width=64, seed=1))
    return prepare(source, (folder / "volume").as_uri())


def drive(run_uri: str, units: int, client: Client) -> tuple[float, float]:
    """Run so many units as a stage; return the seconds, and those of sealing."""
    made = phase(units)
    sealing = [0.0]
    seal: Any = runner.manifest.seal

    def timed(*args: Any) -> Any:
        begun = time.perf_counter()
        try:
            return seal(*args)
        finally:
            sealing[0] = time.perf_counter() - begun

    before = runner.import_module
    runner.import_module = lambda _: SimpleNamespace(phases=lambda run: iter([made]))  # type: ignore[assignment]
    runner.manifest.seal = timed
    begun = time.perf_counter()
    try:
        done = runner.run_stage(STAGE, run_uri, client, reuse=False)
    finally:
        runner.import_module, runner.manifest.seal = before, seal
    if done != units:
        raise AssertionError(f"{done} of {units} units are done")
    return time.perf_counter() - begun, sealing[0]


def processor_s() -> float:
    """Return the processors' time, s, that this process and its children have taken so far."""
    here = psutil.Process()
    times = [each.cpu_times() for each in (here, *here.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def measure(units: int) -> Measured:
    """Run so many units on a cluster of its own."""
    with tempfile.TemporaryDirectory(prefix="petalign-runner-", dir=FOLDER) as name:
        run_uri = prepared(Path(name))
        with cluster(WORKERS) as (client, scheduler):
            with Peak(scheduler) as theirs, Peak(psutil.Process()) as ours:
                before = processor_s()
                seconds, sealing = drive(run_uri, units, client)
                busy = processor_s() - before
            again, _ = drive(run_uri, units, client)
    grown = [(peak.bytes - peak.before) / 2**20 for peak in (theirs, ours)]
    times = [1e6 * s / units for s in (seconds, busy, sealing, again)]
    return Measured(units, *times, *grown)


def measure_apart(units: int) -> Measured:
    """Measure in a process of its own."""
    command = (sys.executable, "-m", "tests.benchmarks.runner.measure", str(units))
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return Measured(**json.loads(answer.splitlines()[-1]))


if __name__ == "__main__":
    print(json.dumps(asdict(measure(int(sys.argv[1])))))
