"""Bring new section images from a folder into a source volume: all of them, or none.

`incoming` and `source` are in the Airflow Variable `petalign_nightly`, or in the parameters.
"""

from petalign_airflow.facility import ingest_dag

dag = ingest_dag("ingest_sections")
