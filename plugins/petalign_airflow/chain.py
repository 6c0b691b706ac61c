"""The tasks that take a prepared run through its stages, for every DAG that makes a version."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, BaseOperator, chain

from petalign_airflow.operators import RUN_URI, RunStageOperator

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
WHOLE = ("relax", "publish")
"""Those that are never cut into slabs."""

ALIGNED = Asset("petalign_aligned_volume")
"""Updated by publishing alone."""

SECTIONS = Asset("petalign_sections")
"""Updated when sections were added to a source volume or replaced in it."""


def stage_tasks(prepare: BaseOperator, address: Any = "") -> None:
    """Add a task for each stage, one after the other, behind the one that prepares the run.

    Stages are mapped over slabs of sections; those about the whole stack are one task.

    :param prepare: a task that returns slabs, as `petalign_airflow.operators.told_slabs` does
    :param address: of the run's own cluster; empty for that of the connection
    """
    stages = [
        RunStageOperator(
            task_id=stage,
            stage=stage,
            run_uri=prepare.output[RUN_URI],  # type: ignore[index]
            address=address,
            outlets=[ALIGNED] if stage == "publish" else [],
        )
        if stage in WHOLE
        else RunStageOperator.partial(
            task_id=stage,
            stage=stage,
            address=address,
            map_index_template="sections {{ task.sections }}",
        ).expand_kwargs(prepare.output)
        for stage in STAGES
    ]
    chain(prepare, *stages)
