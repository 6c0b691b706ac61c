"""Rows of the fault matrix that need the whole platform: one run each, one fault each."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress

from alignment.commands.follow import DAG_ID
from alignment.platform.errors import PlatformError
from tests.chaos.counting import read_starts
from tests.chaos.ground import Ground
from tests.chaos.injuries import Hand, Injury
from tests.chaos.judge import judge
from tests.chaos.parts import processes_of
from tests.chaos.plan import Planned
from tests.chaos.rows import Outcome
from tests.chaos.runs import Run, Runs
from tests.chaos.tally import Soak, recovery_s, repeats
from tests.chaos.user import User
from tests.faults.fault import Fault

PATIENCE_S = 420.0
ENOUGH = 8
"""Units that are done before the fault."""
SILENT_S = 20.0
Strike = Callable[[Hand, Ground, tuple[str, ...]], list[Injury]]


class Arena:
    """One run after the other on one platform."""

    def __init__(self, place: Ground, golden: str) -> None:
        self.place = place
        self.golden = golden
        self._rows = 0

    def disturbed(self, strike: Strike) -> Outcome:
        """Strike a run that is under way, and compare it at its end."""
        self._rows += 1
        bucket = f"s3://{self.place.platform.bucket}"
        runs = Runs(bucket, 1, name=f"row{self._rows}-")
        hand = Hand(self.place.gate, self.place.disks)
        user = User(self.place.platform.config)
        injuries: list[Injury] = []
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            user.look()
            hand.tick()
            runs.step(self.place.platform, more=not runs.all)
            if runs.all and not runs.active:
                break
            if runs.all and not injuries and self._got(runs.all[0]) >= ENOUGH:
                with suppress(LookupError):
                    injuries = strike(hand, self.place, (runs.all[0].volume,))
            time.sleep(0.3)
        hand.tick(everything=True)
        return self._outcome(runs, injuries)

    def _got(self, run: Run) -> int:
        key = run.volume.removeprefix("s3://").partition("/")[2]
        return len(self.place.gate.progress.get(key, ()))

    def _outcome(self, runs: Runs, injuries: list[Injury]) -> Outcome:
        if not injuries:
            return Outcome(False, "the fault found nothing to strike")
        (run,) = runs.all
        if run.state != "success":
            return Outcome(False, f"the run did not end within {PATIENCE_S:.0f} s")
        verdict = judge(run.volume, self.golden)
        starts = [start for start in read_starts(self.place.folder) if run.volume in start.run_uri]
        soak = Soak(
            0, 0, injuries, 0, runs.all, {}, starts, dict(self.place.gate.progress), {}
        )  # fmt: skip
        units = len({start.unit for start in starts})
        reds = f", red {len(run.reds)} times" if run.reds else ""
        result = f"identical{reds}" if verdict.is_identical else "; ".join(verdict.findings[:3])
        waits = [s for injury in injuries if (s := recovery_s(soak, injury)) is not None]
        return Outcome(
            verdict.is_identical,
            result,
            f"{100 * len(repeats(soak)) / max(units, 1):.0f} % of {units} units",
            f"{max(waits):.0f} s" if waits else "-",
        )

    def kinds(self, *kinds: str) -> Outcome:
        """Strike with kinds of the soak, all at once."""
        return self.disturbed(
            lambda hand, place, volumes: [
                hand.strike(Planned(0, kind, 0.5), place.platform, volumes) for kind in kinds
            ]
        )

    def cut_off(self) -> Outcome:
        """Let S3 answer nothing for a while: what a worker without a network sees."""
        return self.disturbed(_silence)

    def database(self) -> Outcome:
        """Lock Airflow's database, and kill all that use it, as when its server is restarted."""
        return self.disturbed(_database)

    def twice(self) -> Outcome:
        """Trigger the same request twice."""
        return self.disturbed(_again)

    def cleared(self) -> Outcome:
        """Clear the tasks that are done while later ones are under way."""
        return self.disturbed(_clear)

    def from_outside(self) -> Outcome:
        """Connect to Dask's port by an address of this machine that others can reach."""
        config = self.place.platform.config
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
            with suppress(OSError):
                probe.connect(("192.0.2.1", 9))  # sends nothing; tells the address for others
            address = probe.getsockname()[0]
        if address.startswith(("127.", "0.")):
            return Outcome(False, "this machine has no address but the loopback")
        refused = []
        for port in (config.dask_port, config.airflow_port, config.s3_port):
            try:
                socket.create_connection((address, port), timeout=3).close()
            except OSError:
                refused.append(port)
        return Outcome(len(refused) == 3, f"{len(refused)} of 3 ports refuse other machines")


def _silence(hand: Hand, place: Ground, volumes: tuple[str, ...]) -> list[Injury]:
    fault = Fault("hang", times=10**6)
    injury = Injury(time.time(), "S3: silent", "", volumes, fault)
    place.gate.install(fault)
    hand._later(SILENT_S, lambda: place.gate.install(None))
    return [injury]


def _database(hand: Hand, place: Ground, volumes: tuple[str, ...]) -> list[Injury]:
    path = place.platform.home / "airflow" / "airflow.db"
    injuries = [
        hand.strike(Planned(0, f"kill {part}", 0.5), place.platform, volumes)
        for part in (
            "airflow-scheduler",
            "airflow-triggerer",
            "airflow-dag-processor",
            "airflow-api",
        )
        if processes_of(place.platform, part)
    ]
    threading.Thread(target=_locked, args=(str(path),), daemon=True).start()
    return injuries


def _locked(path: str) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as database:
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(15)
        database.rollback()


def _again(hand: Hand, place: Ground, volumes: tuple[str, ...]) -> list[Injury]:
    bucket = f"s3://{place.platform.bucket}"
    runs = Runs(bucket, 1, name=volumes[0].rpartition("/")[2].removesuffix("000"))
    runs.step(place.platform, more=True)
    return [Injury(time.time(), "triggered twice", "", volumes)] if runs.all else []


def _clear(hand: Hand, place: Ground, volumes: tuple[str, ...]) -> list[Injury]:
    with place.platform.airflow() as airflow:
        try:
            page = airflow._call("GET", f"/api/v2/dags/{DAG_ID}/dagRuns", params={"limit": 100})
            run_id = next(r for r in page["dag_runs"] if r["conf"]["volume"] == volumes[0])
            body = {
                "dry_run": False,
                "dag_run_id": run_id["dag_run_id"],
                "task_ids": ["ingest", "masks"],
                "include_downstream": True,
                "only_failed": False,
            }
            airflow._call("POST", f"/api/v2/dags/{DAG_ID}/clearTaskInstances", json=body)
        except PlatformError:
            return []
    return [Injury(time.time(), "cleared", "", volumes)]
