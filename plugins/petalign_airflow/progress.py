"""How far a task is, where people look: its log, and Airflow's store of task states.

The store shows in the task's page and over REST while the task runs::

    GET /api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/state-store/progress?map_index=0
    {"value": {"status": "running", "phase": "round1", "done": 120, "total": 400, ...}}

A deferred task has no process that could write there, so `StageTrigger` wakes it from time to time;
between two such times the trigger's log tells more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from storage.ledger import StageState

if TYPE_CHECKING:
    from airflow.sdk import Context

KEY = "progress"

log = logging.getLogger(__name__)


def progress_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what people want to know of the state of a stage or slab."""
    done, total = state["blocks_done"], state["blocks_total"]
    return {
        "status": state["status"],
        "phase": state["phase"],
        "done": done,
        "total": total,
        "percent": round(100 * done / total, 1) if total else 0.0,
        "reused": state["blocks_reused"],
        "seconds": round(state["seconds"], 1),
        "bytes_written": state["bytes_written"],
    }


def words_of(state: Mapping[str, Any]) -> str:
    """Return one line for a log."""
    told = progress_of(state)
    phase = f", phase {told['phase']}" if told["phase"] else ""
    return (
        f"{state['stage']} is {told['status']}{phase}: {told['done']:,} of {told['total']:,} units "
        f"after {told['seconds']:.0f} s"
    )


class Teller:
    """Tells the progress of one task, in one process."""

    def __init__(self) -> None:
        self._at = float("-inf")
        self._told: Mapping[str, Any] | None = None

    def tell(
        self, context: Context, state: StageState | Mapping[str, Any], *, every_s: float = 0.0
    ) -> None:
        """Write the progress of a task into its store and its log, if it has changed.

        A store that cannot be written is no reason for a task to fail: it only informs.

        :param every_s: and not more often than this, unless it is settled
        """
        values = asdict(state) if isinstance(state, StageState) else state
        told = progress_of(values)
        settled = told["status"] in ("done", "failed")
        early = time.monotonic() - self._at < every_s and not settled
        if early or not (told["total"] or settled) or told == self._told:
            return
        self._at, self._told = time.monotonic(), told
        log.info("%s", words_of(values))
        store = context.get("task_state_store")
        if store is not None:
            try:
                store.set(KEY, told)
            except Exception as error:
                log.warning("the progress could not be stored: %s", error)
