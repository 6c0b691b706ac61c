"""Bring new section images from a folder into a source volume: all of them, or none.

Every image is looked at first. If anything is wrong with one, all faults are listed and nothing is
written. Files are named as their sections: a known name replaces its section, a new one is added
at the end. Nothing new, nothing done. Updates the asset `petalign_sections`.
"""

from airflow.sdk import DAG, Param

from petalign_airflow.chain import SECTIONS
from petalign_airflow.errands import IngestOperator
from petalign_airflow.orders import place_params
from petalign_airflow.retries import task_defaults

with DAG(
    "ingest_sections",
    schedule=None,
    max_active_runs=1,
    params=place_params("incoming", "source")
    | {
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
    },
    default_args=task_defaults(),
    tags=["petalign"],
    doc_md=__doc__,
):
    IngestOperator(task_id="ingest", outlets=[SECTIONS])
