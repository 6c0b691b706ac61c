"""Align a volume of serial sections: freeze the parameters into a run, then every stage in order.

`source` and `volume` must lie below the *allowed URIs* of connection `dask_default`. A failed or
cleared task goes on where it stopped; the same parameters give the same run and share its work.

A volume of more than `volume.slab_sections` sections is worked on in slabs: a stage is one task a
slab, named after its sections. Stages about the whole stack are one task.
"""

from airflow.sdk import DAG, Asset, chain

from petalign_airflow.operators import PrepareRunOperator, RunStageOperator
from petalign_airflow.params import run_params
from petalign_airflow.retries import task_defaults

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
WHOLE = ("relax", "publish")
ALIGNED = Asset("petalign_aligned_volume")

with DAG(
    "align_volume",
    schedule=None,
    max_active_runs=4,
    params=run_params(),
    default_args=task_defaults(),
    tags=["petalign"],
    doc_md=__doc__,
):
    prepare = PrepareRunOperator(task_id="prepare", by_slab=True)
    stages = [
        RunStageOperator(
            task_id=stage,
            stage=stage,
            run_uri=prepare.output["run_uri"],
            outlets=[ALIGNED] if stage == "publish" else [],
        )
        if stage in WHOLE
        else RunStageOperator.partial(
            task_id=stage,
            stage=stage,
            map_index_template="sections {{ task.sections }}",
        ).expand_kwargs(prepare.output)
        for stage in STAGES
    ]
    chain(prepare, *stages)
