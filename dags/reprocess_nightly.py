"""Bring the published version up to date: find what changed, run only that, publish.

`source` and `volume` are in the Airflow Variable `petalign_nightly`, or in the parameters. A
facility with several volumes writes one such line for each into a DAG file of its own; see
docs/nightly.md.
"""

from petalign_airflow.facility import nightly_dag

dag = nightly_dag("reprocess_nightly")
