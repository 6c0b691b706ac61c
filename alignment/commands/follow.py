"""Trigger the DAG on the platform that is up, and follow it through Airflow and the ledger."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from alignment.config import PipelineConfig
from alignment.driving.states import stage_states
from alignment.errors import ConfigError, StageFailed
from alignment.platform.airflow_client import AirflowClient
from alignment.platform.config import platform_config
from alignment.platform.errors import PlatformError
from alignment.platform.lifecycle import PlatformInfo, info
from storage.ledger import StageState
from storage.store import normalise_uri

DAG_ID = "align_volume"
POLL_S = 1.0
GRACE_S = 120.0
"""How long Airflow may be silent, while it is restarted, before following it is given up."""


@dataclass(frozen=True)
class DagRun:
    """A run of the DAG that was triggered."""

    platform: PlatformInfo
    run_id: str
    url: str


def flat_settings(config: PipelineConfig) -> dict[str, object]:
    """Return the settings under the names of the DAG's form, ``stage.name``."""
    values = config.model_dump(mode="json")
    return {f"{s}.{name}": value for s, names in values.items() for name, value in names.items()}


def trigger(source: str, volume: str, config: PipelineConfig) -> DagRun:
    """Start a run of the DAG through Airflow's REST API.

    Raises
    ------
    ConfigError
        If no platform is up, or Airflow refuses the parameters.
    """
    platform = info(platform_config(os.environ))
    if platform is None:
        raise ConfigError("no platform is up; start it with `petalign up`")
    conf = {"source": normalise_uri(source), "volume": normalise_uri(volume)}
    with platform.airflow() as airflow:
        airflow.wait_for_dag(DAG_ID)
        run_id = airflow.trigger(DAG_ID, {**conf, **flat_settings(config)})
        return DagRun(platform, run_id, airflow.run_url(DAG_ID, run_id))


def follow_dag_run(started: DagRun, *, tell: Callable[[StageState], None]) -> str:
    """Wait for the end of a DAG run and return the URI of its run folder.

    Airflow may be killed and restarted meanwhile; only a silence of `GRACE_S` ends the wait.

    Raises
    ------
    StageFailed
        If a task failed for good; with the stage's own words where it left any.
    """
    run_uri: str | None = None
    heard = time.monotonic()
    with started.platform.airflow() as airflow:
        while True:
            try:
                state = airflow.state(DAG_ID, started.run_id)
                run_uri = run_uri or _run_uri(airflow, started.run_id)
                heard = time.monotonic()
            except PlatformError:
                if time.monotonic() - heard > GRACE_S:
                    raise
                state = "unknown"
            if run_uri:
                for stage in stage_states(run_uri):
                    if stage.status != "waiting":
                        tell(stage)
            if state == "success" and run_uri:
                return run_uri
            if state == "failed":
                raise StageFailed(_reason(run_uri, started.url))
            time.sleep(POLL_S)


def _run_uri(airflow: AirflowClient, run_id: str) -> str | None:
    tasks = {task.task_id: task.state for task in airflow.task_states(DAG_ID, run_id)}
    if tasks.get("prepare") != "success":
        return None
    return str(airflow.returned(DAG_ID, run_id, "prepare", key="run_uri"))


def _reason(run_uri: str | None, url: str) -> str:
    if run_uri is None:
        return f"the run could not be prepared and nothing was written; the task's log is at {url}"
    failed = [state for state in stage_states(run_uri) if state.status == "failed"]
    told = "; ".join(f"stage {state.stage!r}: {state.error}" for state in failed)
    return told or f"a task failed outside of its stage; its log is at {url}"
