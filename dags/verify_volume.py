"""Look for damage that nobody has met yet: hold every object of a volume against its records.

Once a week, or by hand. Damage turns the task red and is listed in its log; with `repair` it is
computed again and looked at once more. `volume` is in the Airflow Variable `petalign_nightly`, or
in the parameters.
"""

from airflow.sdk import DAG, CronTriggerTimetable, Param

from petalign_airflow.errands import VerifyOperator
from petalign_airflow.orders import place_params
from petalign_airflow.retries import task_defaults

with DAG(
    "verify_volume",
    schedule=CronTriggerTimetable("0 4 * * 0", timezone="UTC", run_immediately=False),
    catchup=False,
    max_active_runs=1,
    params=place_params("volume")
    | {
        "full": Param(
            True,
            "Read and hash every byte; else existence and sizes only.",
            type="boolean",
            title="Every byte",
        ),
        "every_run": Param(
            False,
            "Also the runs that were never published.",
            type="boolean",
            title="Every run",
        ),
        "repair": Param(
            False,
            "Compute again what is damaged; only the recorded content is let in.",
            type="boolean",
            title="Repair",
        ),
    },
    default_args=task_defaults(),
    tags=["petalign"],
    doc_md=__doc__,
):
    VerifyOperator(task_id="verify")
