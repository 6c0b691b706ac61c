"""Train a U-Net to segment, on images and their labels, by one process or several.

`data` and `folder` must lie below the *allowed URIs* of connection `dask_default`. `data` holds the
stacks `images` and `labels`. Checkpoints, logs and the best network so far are kept in `folder`; a
training that was killed, or a second run with the same parameters, goes on from there. The task's
result names the network, which `predict_volume` takes as `model`.
"""

from airflow.sdk import DAG

from petalign_airflow.clusters import run_cluster
from petalign_airflow.retries import task_defaults
from petalign_airflow.training import TRAINED_UNET, TrainOperator, train_params

with (
    DAG(
        "train_unet",
        schedule=None,
        max_active_runs=4,
        params=train_params("train_unet"),
        default_args=task_defaults(),
        tags=["petalign"],
        doc_md=__doc__,
    ),
    run_cluster() as address,
):
    TrainOperator(task_id="train", errand="train_unet", address=address, outlets=[TRAINED_UNET])
