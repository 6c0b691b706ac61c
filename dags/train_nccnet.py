"""Train an NCCNet, the network whose images are matched in place of band-passed ones.

`stack` and `folder` must lie below the *allowed URIs* of connection `dask_default`. Pairs,
checkpoints, logs and the best network so far are kept in `folder`; a training that was killed, or a
second run with the same parameters, goes on from there. The task's result names the network, which
`align_volume` takes as `features.model`, with `features.kind` set to nccnet.
"""

from airflow.sdk import DAG

from petalign_airflow.clusters import run_cluster
from petalign_airflow.retries import task_defaults
from petalign_airflow.training import TRAINED, TrainOperator, train_params

with (
    DAG(
        "train_nccnet",
        schedule=None,
        max_active_runs=4,
        params=train_params("train_nccnet"),
        default_args=task_defaults(),
        tags=["petalign"],
        doc_md=__doc__,
    ),
    run_cluster() as address,
):
    TrainOperator(task_id="train", errand="train_nccnet", address=address, outlets=[TRAINED])
