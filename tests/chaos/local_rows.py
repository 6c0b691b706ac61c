"""Rows of the fault matrix that need a Dask cluster and no more."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

from alignment.blockwise import Client, local_client
from alignment.commands.sample import write_phantom
from alignment.errors import StageFailed
from alignment.runs import prepare
from alignment.stages import ORDER, run_stage, runner
from alignment.stages.units import Phase, Record, Section
from storage.commit import records
from tests.chaos.judge import judge
from tests.chaos.rows import Outcome, Row
from tests.chaos.runs import BASE, SOURCE

SITE = Path(__file__).parent / "site"
UNITS, BAD = 12, 5
MEMORY = "400MB"


def poison(unit: Section, *, run_uri: str) -> Record:
    """Kill the worker that does the bad unit, whoever it is."""
    if unit.z == BAD:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"z": unit.z}


def gluttony(unit: Section, *, run_uri: str) -> Record:
    """Take more memory than a worker may have, in the bad unit."""
    if unit.z == BAD:
        hoard = []
        for _ in range(100):
            hoard.append(bytearray(20 * 2**20))
            time.sleep(0.05)
    return {"z": unit.z}


def one_bad_unit(work: Any, said: str) -> Outcome:
    """Run a stage of which one unit kills every worker that tries it."""
    with tempfile.TemporaryDirectory() as name:
        run_uri = _run(Path(name), "volume")
        stage = SimpleNamespace(
            phases=lambda run: iter([Phase("one", [Section(z) for z in range(UNITS)], work)])
        )
        before = runner.import_module
        runner.import_module = lambda _: stage  # type: ignore[assignment]
        begun = time.monotonic()
        try:
            with local_client(2, memory_limit=MEMORY) as client:
                run_stage("masks", run_uri, client, reuse=False)
        except StageFailed as error:
            told = str(error)
        else:
            return Outcome(False, "the stage did not fail")
        finally:
            runner.import_module = before
        done = records.recorded(run_uri, "masks", "one")
        is_right = len(done) == UNITS - 1 and Section(BAD).label in told and said in told
        result = f"{len(done)} of {UNITS} units done; the error names {Section(BAD).label}"
        return Outcome(is_right, result if is_right else told, "-", _seconds(begun))


def other_clocks() -> Outcome:
    """Run with workers whose clocks are up to an hour wrong, and kill one of them meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with local_client(2) as client:
            _stages(_run(folder, "golden"), client)
        path = os.pathsep.join([str(SITE), os.environ.get("PYTHONPATH", "")])
        wrong = {"CHAOS_CLOCK_S": "3600", "PYTHONPATH": path}
        with _environment(wrong), local_client(3) as client:
            clocks = client.run(lambda: time.time() - psutil.Process().create_time())
            killer = threading.Timer(2.0, _kill_one, (client.run(os.getpid),))
            killer.start()
            begun = time.monotonic()
            _stages(_run(folder, "volume"), client)
            killer.join()
        verdict = judge((folder / "volume").as_uri(), (folder / "golden").as_uri())
        spread = (max(clocks.values()) - min(clocks.values())) / 60
        result = f"identical; clocks were {spread:.0f} min apart"
        is_right = verdict.is_identical and spread > 1
        return Outcome(is_right, result if is_right else str(verdict), "-", _seconds(begun))


def _kill_one(workers: dict[str, int]) -> None:
    psutil.Process(min(workers.values())).kill()


def _stages(run_uri: str, client: Client) -> None:
    for stage in ORDER:
        run_stage(stage, run_uri, client, reuse=False)


def _run(folder: Path, volume: str) -> str:
    source = (folder / "raw").as_uri()
    if not (folder / "raw").exists():
        write_phantom(source, SOURCE)
    return prepare(source, (folder / volume).as_uri(), BASE)


@contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _seconds(begun: float) -> str:
    return f"{time.monotonic() - begun:.0f} s"


ROWS = (
    Row(2, "poison unit", "it kills its worker, each time", lambda: one_bad_unit(poison, "died")),
    Row(
        3, "worker out of memory", f"a unit takes 2 GB where {MEMORY} are allowed",
        lambda: one_bad_unit(gluttony, "memory"),
    ),
    Row(36, "wrong clocks", "`time.time` of each worker shifted by up to 1 h", other_clocks),
)  # fmt: skip
