"""The tasks that take a prepared run through its stages, for every DAG that makes a version."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, chain

from petalign_airflow.operators import RunStageOperator

STAGES = (
    "ingest",
    "masks",
    "features",
    "coarse",
    "match",
    "filter",
    "relax",
    "render",
    "pyramid",
    "qc",
    "publish",
)
"""Those of ``alignment.stages.ORDER``, which a DAG file need not import."""

ALIGNED = Asset("petalign_aligned_volume")
"""Updated by publishing alone."""

SECTIONS = Asset("petalign_sections")
"""Updated when sections were added to a source volume or replaced in it."""

DEFAULT_ARGS: dict[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": 3.0,
}
"""Of every task; what a retry would only repeat fails at once."""


def stage_tasks(run_uri: Any) -> list[RunStageOperator]:
    """Return a task for each stage, one after the other.

    :param run_uri: the output of the task that prepared the run
    """
    stages = [
        RunStageOperator(
            task_id=stage,
            stage=stage,
            run_uri=run_uri,
            outlets=[ALIGNED] if stage == "publish" else [],
        )
        for stage in STAGES
    ]
    chain(*stages)
    return stages
