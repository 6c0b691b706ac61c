"""The runs of a soak: triggered as a user would, followed, and cleared when they went red."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from alignment.blockwise import local_client
from alignment.commands.follow import DAG_ID, flat_settings
from alignment.commands.sample import write_phantom
from alignment.config import parse_config
from alignment.phantom import PhantomConfig
from alignment.platform.airflow_client import AirflowClient
from alignment.platform.errors import PlatformError
from alignment.platform.lifecycle import PlatformInfo
from alignment.runs import prepare
from alignment.stages import ORDER, run_stage
from storage.store import exists, join

SOURCE = PhantomConfig(
    sections=4, height=192, width=192, seed=11, blank_section=None, corner_section=None
)
BASE: dict[str, Any] = {
    "volume": {"aligned_shard": [2, 128, 128], "aligned_chunk": [2, 64, 64]},
}
SETTINGS: tuple[dict[str, Any], ...] = (
    BASE,
    {**BASE, "relax": {"stiffness": 0.7}},
    {**BASE, "masks": {"mip": 0}},
)
"""What the runs of a soak are made with, in turn."""


@dataclass
class Run:
    """One run of the DAG into a volume of its own."""

    volume: str
    """URI."""
    settings: int
    run_id: str
    began: float
    ended: float = 0.0
    state: str = "running"
    reds: list[str] = field(default_factory=list)
    """The tasks that failed for good, each time before it was cleared."""


def make_golden(bucket: str) -> list[str]:
    """Write the source, and align it with each of `SETTINGS` while nothing happens."""
    source = f"{bucket}/soak/raw"
    golden = [f"{bucket}/soak/golden{n}" for n in range(len(SETTINGS))]
    if all(exists(join(volume, "LATEST.json")) for volume in golden):
        return golden
    write_phantom(source, SOURCE)
    with local_client(2) as client:
        for volume, settings in zip(golden, SETTINGS, strict=True):
            run_uri = prepare(source, volume, settings)
            for stage in ORDER:
                run_stage(stage, run_uri, client, reuse=False)
    return golden


class Runs:
    """Keeps so many runs under way until it is told to stop."""

    def __init__(self, bucket: str, at_once: int, *, name: str = "volume") -> None:
        self.bucket = bucket
        self.name = name
        self.at_once = at_once
        self.all: list[Run] = []

    @property
    def active(self) -> list[Run]:
        """Runs that have not ended."""
        return [run for run in self.all if run.state == "running"]

    def step(self, platform: PlatformInfo, *, more: bool) -> list[Run]:
        """Look at every run, and start others if `more`; return those that have just ended.

        Airflow that does not answer is no news: what it was asked is asked again at the next step.
        """
        ended = []
        with platform.airflow() as airflow:
            try:
                ended.extend(run for run in self.active if self._has_ended(airflow, run))
                while more and len(self.active) < self.at_once:
                    self._start(airflow)
            except PlatformError:
                pass
        return ended

    def _start(self, airflow: AirflowClient) -> None:
        n = len(self.all)
        settings = n % len(SETTINGS)
        volume = f"{self.bucket}/soak/{self.name}{n:03d}"
        config = parse_config(SETTINGS[settings])
        conf = {"source": f"{self.bucket}/soak/raw", "volume": volume, **flat_settings(config)}
        # A request whose answer is lost leaves a run that nobody follows; its volume is used again
        # by the next, which shares its work: two runs of one volume, as when a user clicks twice.
        run_id = airflow.trigger(DAG_ID, conf)
        self.all.append(Run(volume, settings, run_id, time.time()))

    def _has_ended(self, airflow: AirflowClient, run: Run) -> bool:
        state = airflow.state(DAG_ID, run.run_id)
        if state == "success":
            run.state, run.ended = state, time.time()
            return True
        if state == "failed":
            tasks = airflow.task_states(DAG_ID, run.run_id)
            red = [task.task_id for task in tasks if task.state == "failed"]
            clear(airflow, run.run_id)
            run.reds.append(", ".join(red) or "?")
        return False


def abandon(airflow: AirflowClient) -> None:
    """End what an earlier soak left under way."""
    page = airflow._call("GET", f"/api/v2/dags/{DAG_ID}/dagRuns", params={"state": "running"})
    for run in page["dag_runs"]:
        path = f"/api/v2/dags/{DAG_ID}/dagRuns/{run['dag_run_id']}"
        airflow._call("PATCH", path, json={"state": "failed"})


def clear(airflow: AirflowClient, run_id: str) -> None:
    """Clear what failed in a run, as a user does in Airflow's pages: it goes on from there."""
    body = {"dry_run": False, "dag_run_id": run_id, "only_failed": True, "reset_dag_runs": True}
    airflow._call("POST", f"/api/v2/dags/{DAG_ID}/clearTaskInstances", json=body)
