"""Run a network over a published volume, into a volume of its own, and publish that.

`volume`, `model` and `prediction` must lie below the *allowed URIs* of connection `dask_default`.
The model is looked into and copied into the run first; what it takes is in the log of `prepare`. A
failed or cleared task goes on where it stopped; the same parameters give the same run.
"""

from airflow.sdk import DAG

from petalign_airflow.clusters import run_cluster
from petalign_airflow.operators import RunStageOperator
from petalign_airflow.predicting import PREDICTED, PreparePredictionOperator, predict_params
from petalign_airflow.retries import task_defaults

with (
    DAG(
        "predict_volume",
        schedule=None,
        max_active_runs=4,
        params=predict_params(),
        default_args=task_defaults(),
        tags=["petalign"],
        doc_md=__doc__,
    ),
    run_cluster() as address,
):
    prepare = PreparePredictionOperator(task_id="prepare", address=address)
    RunStageOperator(
        task_id="predict",
        stage="predict",
        run_uri=prepare.output,
        address=address,
        outlets=[PREDICTED],
    )
