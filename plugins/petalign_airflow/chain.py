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
"""Stages about the whole stack; the others are mapped over slabs."""

ALIGNED = Asset("petalign_aligned_volume")
"""Updated by publishing alone."""

SECTIONS = Asset("petalign_sections")
"""Updated when sections were added to a source volume or replaced in it."""


def stage_tasks(prepare: BaseOperator, *, address: Any = "") -> list[Any]:
    """Return a task for each stage, one after the other, and the first after `prepare`.

    :param prepare: returns what stages are mapped over, see `PrepareRunOperator`
    :param address: of the run's own cluster, see `petalign_airflow.clusters`
    """
    slabs: Any = prepare.output
    stages = [
        RunStageOperator(
            task_id=stage,
            stage=stage,
            run_uri=slabs[RUN_URI],
            address=address,
            outlets=[ALIGNED] if stage == "publish" else [],
        )
        if stage in WHOLE
        else RunStageOperator.partial(
            task_id=stage,
            stage=stage,
            address=address,
            map_index_template="sections {{ task.sections }}",
        ).expand_kwargs(slabs)
        for stage in STAGES
    ]
    chain(prepare, *stages)
    return stages
