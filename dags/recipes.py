"""Run a recipe: experiments with parameters, as processes on Dask workers.

`recipe` is where `petalign recipe up FILE` laid it, below the *allowed URIs* of connection
`dask_default`. Each mapped task is a batch of an experiment; it begins when the experiments that it
depends on are done. A failed or cleared task goes on where it stopped.
"""

from datetime import timedelta

from airflow.sdk import DAG

from petalign_airflow.recipes import PrepareRecipeOperator, RunBatchOperator, recipe_params

with DAG(
    "recipe",
    schedule=None,
    max_active_runs=16,
    params=recipe_params(),
    default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["petalign"],
    doc_md=__doc__,
):
    prepare = PrepareRecipeOperator(task_id="prepare")
    RunBatchOperator.partial(task_id="run", map_index_template="{{ task.title }}").expand_kwargs(
        prepare.output
    )
