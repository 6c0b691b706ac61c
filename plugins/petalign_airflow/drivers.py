"""A stage's driver as Airflow sees it: a task on the Dask scheduler and a state in the ledger."""

from __future__ import annotations

DRIVER = "alignment.stages:run"
"""Called on the cluster with the stage and the run's URI; it keeps the state in the ledger."""


def driver_name(run_uri: str, stage: str) -> str:
    """Return the name of a stage's driver on the scheduler, the same for every attempt."""
    return f"{run_uri}/{stage}"
