"""Align a volume of serial sections: freeze the parameters into a run, then every stage in order.

`source` and `volume` must lie below the *allowed URIs* of connection `dask_default`. A failed or
cleared task goes on where it stopped; the same parameters give the same run and share its work.
"""

from datetime import timedelta

from airflow.sdk import DAG, Asset, chain

from petalign_airflow.operators import PrepareRunOperator, RunStageOperator
from petalign_airflow.params import run_params

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
ALIGNED = Asset("petalign_aligned_volume")

with DAG(
    "align_volume",
    schedule=None,
    max_active_runs=4,
    params=run_params(),
    default_args={
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": 3.0,
    },
    tags=["petalign"],
    doc_md=__doc__,
):
    prepare = PrepareRunOperator(task_id="prepare")
    stages = [
        RunStageOperator(
            task_id=stage,
            stage=stage,
            run_uri=prepare.output,
            outlets=[ALIGNED] if stage == "publish" else [],
        )
        for stage in STAGES
    ]
    chain(prepare, *stages)
