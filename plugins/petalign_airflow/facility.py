"""The DAGs of a facility, each made by one line: ingest, reprocess, verify.

A DAG file calls one of these for each volume, with a name, an hour, and the Airflow Variable that
says what to work on (`petalign_airflow.orders`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param

from petalign_airflow.chain import SECTIONS, stage_tasks
from petalign_airflow.clusters import run_cluster
from petalign_airflow.nightly import FindChangesOperator, PrepareUpdateOperator
from petalign_airflow.orders import VARIABLE, place_params
from petalign_airflow.retries import task_defaults
from petalign_airflow.upkeep import IngestOperator, VerifyOperator

NIGHTLY_DOC = """Bring the published version up to date: find what changed, run only that, publish.

Nothing new, nothing done: the tasks behind `look` are skipped, and there is no new version.
"""
INGEST_DOC = """Bring new section images from a folder into a source volume: all of them, or none.

Every image is looked at first. If anything is wrong with one, all faults are listed and nothing is
written. Files are named as their sections: a known name replaces its section, a new one is added
at the end. Updates the asset `petalign_sections`, unless there was nothing new.
"""
VERIFY_DOC = """Look for damage that nobody has met yet: hold every object against its records.

Damage turns the task red and is listed in its log; with `repair` it is computed again and looked at
once more.
"""


def nightly_dag(
    dag_id: str,
    *,
    schedule: Any = "0 2 * * *",
    variable: str = VARIABLE,
    source: str | None = None,
    volume: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> DAG:
    """Return a DAG that keeps one volume up to date.

    :param schedule: a cron expression in UTC, or anything that a DAG can be scheduled by
    :param variable: the Airflow Variable with source, volume and settings, read by its first task
    :param source, volume, settings: defaults of the parameters, for a DAG that needs no Variable
    """
    params = place_params(source=source, volume=volume) | {
        "settings": Param(
            dict(settings or {}),
            "Settings that shall differ from those of the published version, by name, such as "
            '{"match.neighbours": 3}.',
            type=["object", "null"],
            title="Settings",
        ),
        "code": Param(
            False,
            "Also when nothing but the program changed since: then all of it is computed again.",
            type="boolean",
            title="For new code",
        ),
    }
    with _dag(dag_id, schedule, params, NIGHTLY_DOC) as dag, run_cluster() as address:
        look = FindChangesOperator(task_id="look", variable=variable, address=address)
        prepare = PrepareUpdateOperator(task_id="prepare", order=look.output, address=address)
        stage_tasks(prepare, address=address)
    return dag


def ingest_dag(
    dag_id: str,
    *,
    schedule: Any = None,
    variable: str = VARIABLE,
    incoming: str | None = None,
    source: str | None = None,
) -> DAG:
    """Return a DAG that brings images from a folder into one source volume.

    :param schedule: a cron expression in UTC, anything that a DAG can be scheduled by, or None: by
        hand only
    :param variable: the Airflow Variable with incoming and source, read by its task
    :param incoming, source: defaults of the parameters, for a DAG that needs no Variable
    """
    params = place_params(incoming=incoming, source=source) | {
        "pad": Param(
            False,
            "Let images be smaller than the sections of the volume; the rest becomes no data.",
            type="boolean",
            title="Fill up smaller images",
        ),
        "resolution_nm": Param(
            None,
            "Voxel size (z, y, x) of a volume that does not exist yet; 40, 4, 4 if empty.",
            type=["array", "null"],
            items={"type": "number", "exclusiveMinimum": 0},
            minItems=3,
            maxItems=3,
            title="Voxel size (nm)",
        ),
    }
    with _dag(dag_id, schedule, params, INGEST_DOC) as dag, run_cluster() as address:
        IngestOperator(task_id="ingest", variable=variable, address=address, outlets=[SECTIONS])
    return dag


def verify_dag(
    dag_id: str,
    *,
    schedule: Any = "0 4 * * 0",
    variable: str = VARIABLE,
    volume: str | None = None,
) -> DAG:
    """Return a DAG that scrubs one volume.

    :param schedule: a cron expression in UTC, or anything that a DAG can be scheduled by
    :param variable: the Airflow Variable with volume, read by its task
    :param volume: default of the parameter, for a DAG that needs no Variable
    """
    params = place_params(volume=volume) | {
        "full": Param(
            True,
            "Read and hash every byte; else existence and sizes only.",
            type="boolean",
            title="Every byte",
        ),
        "every_run": Param(
            False, "Also the runs that were never published.", type="boolean", title="Every run"
        ),
        "repair": Param(
            False,
            "Compute again what is damaged; only the recorded content is let in.",
            type="boolean",
            title="Repair",
        ),
    }
    with _dag(dag_id, schedule, params, VERIFY_DOC) as dag, run_cluster() as address:
        VerifyOperator(task_id="verify", variable=variable, address=address)
    return dag


def _dag(dag_id: str, schedule: Any, params: dict[str, Param], doc_md: str) -> DAG:
    if isinstance(schedule, str):
        # In Airflow 3.3, False would still catch up with a time that has just gone by.
        schedule = CronTriggerTimetable(schedule, timezone="UTC", run_immediately=timedelta(0))
    return DAG(
        dag_id,
        schedule=schedule,
        catchup=False,
        max_active_runs=1,
        params=params,
        default_args=task_defaults(),
        tags=["petalign"],
        doc_md=doc_md,
    )
