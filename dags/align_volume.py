"""Align a volume of serial sections: freeze the parameters into a run, then every stage in order.

`source` and `volume` must lie below the *allowed URIs* of connection `dask_default`. A failed or
cleared task goes on where it stopped; the same parameters give the same run and share its work.

A volume of more than `volume.slab_sections` sections is worked on in slabs: a stage is one task a
slab, named after its sections. Stages about the whole stack are one task.
"""

from airflow.sdk import DAG

from petalign_airflow.chain import stage_tasks
from petalign_airflow.clusters import run_cluster
from petalign_airflow.operators import PrepareRunOperator
from petalign_airflow.params import run_params
from petalign_airflow.retries import task_defaults

with (
    DAG(
        "align_volume",
        schedule=None,
        max_active_runs=4,
        params=run_params(),
        default_args=task_defaults(),
        tags=["petalign"],
        doc_md=__doc__,
    ),
    run_cluster() as address,
):
    prepare = PrepareRunOperator(task_id="prepare", by_slab=True, address=address)
    stage_tasks(prepare, address=address)
