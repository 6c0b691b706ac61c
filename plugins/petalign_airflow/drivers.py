"""A stage's driver as Airflow sees it: a task on the Dask scheduler and a state in the ledger."""

from __future__ import annotations

from dataclasses import replace

from storage import ledger

DRIVER = "alignment.stages:run"
"""Called on the cluster with the stage and the run's URI; it keeps the state in the ledger."""


def driver_name(run_uri: str, stage: str) -> str:
    """Return the name of a stage's driver on the scheduler, the same for every attempt."""
    return f"{run_uri}/{stage}"


def give_up(run_uri: str, stage: str, reason: str) -> None:
    """Settle a stage that is under way as failed, so that it can be claimed again at once.

    A driver that is alive reads it with its next heartbeat and ends; finished blocks are kept.
    """
    state = ledger.read_state(run_uri, stage)
    if not state.is_settled:
        ledger.write_state(
            run_uri, replace(state, status="failed", error=reason, error_kind="other")
        )
