"""Align a volume of serial sections: freeze the parameters into a run, then every stage in order.

`source` and `volume` must lie below the *allowed URIs* of connection `dask_default`. A failed or
cleared task goes on where it stopped; the same parameters give the same run and share its work.
"""

from airflow.sdk import DAG, chain

from petalign_airflow.chain import DEFAULT_ARGS, stage_tasks
from petalign_airflow.operators import PrepareRunOperator
from petalign_airflow.params import run_params

with DAG(
    "align_volume",
    schedule=None,
    max_active_runs=4,
    params=run_params(),
    default_args=DEFAULT_ARGS,
    tags=["petalign"],
    doc_md=__doc__,
):
    prepare = PrepareRunOperator(task_id="prepare")
    chain(prepare, stage_tasks(prepare.output)[0])
