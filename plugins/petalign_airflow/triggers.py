"""Waiting that costs no worker slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from petalign_airflow.drivers import driver_name
from petalign_airflow.hooks import DaskHook
from storage import ledger
from storage.errors import StorageError


class StageTrigger(BaseTrigger):
    """Fires once: when a stage is done, has failed, or its driver stopped reporting.

    It looks at the ledger alone, which outlives Airflow and Dask. A driver is silent when its
    heartbeat has not changed for `silent_after_s` of this process' own clock, so clocks need not
    agree; a ledger that cannot be read for a while is no news, too.

    :param run_uri: the run folder
    :param stage: a name in ``alignment.stages.ORDER``
    :param poll_s: time before the first look, and between two
    :param silent_after_s: patience with a driver that does not report
    :param dask_conn_id: the cluster of the driver, should a user stop it
    """

    def __init__(
        self, run_uri: str, stage: str, poll_s: float, silent_after_s: float, dask_conn_id: str
    ) -> None:
        super().__init__()
        self.run_uri = run_uri
        self.stage = stage
        self.poll_s = poll_s
        self.silent_after_s = silent_after_s
        self.dask_conn_id = dask_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that rebuild this trigger elsewhere."""
        kwargs = {
            "run_uri": self.run_uri,
            "stage": self.stage,
            "poll_s": self.poll_s,
            "silent_after_s": self.silent_after_s,
            "dask_conn_id": self.dask_conn_id,
        }
        return "petalign_airflow.triggers.StageTrigger", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll the ledger until there is an end to report; its reads run in a thread.

        It never fires at once: Airflow 3.3 may fail a task that is resumed before its scheduler
        has seen the deferring process end (https://github.com/apache/airflow/issues/72716).
        """
        heard, heard_at = ledger.StageState(self.stage), time.monotonic()
        while True:
            await asyncio.sleep(self.poll_s)
            try:
                state = await asyncio.to_thread(ledger.read_state, self.run_uri, self.stage)
            except (StorageError, OSError) as error:
                self.log.warning("cannot read the ledger of %s: %s", self.run_uri, error)
            else:
                if state.is_settled:
                    yield TriggerEvent(asdict(state))
                    return
                if state.heartbeat != heard.heartbeat:
                    heard, heard_at = state, time.monotonic()
            if time.monotonic() - heard_at > self.silent_after_s:
                yield TriggerEvent(asdict(heard) | {"status": "silent"})
                return

    async def on_kill(self) -> None:
        """Stop the stage when a user marks its task as failed or successful, or clears it.

        Airflow does not call this when a triggerer or worker is restarted: losing Airflow never
        stops a stage. The driver sees in the ledger that it was stopped; finished blocks are kept.
        """
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        ledger.stop(self.run_uri, self.stage, "a user marked or cleared its task in Airflow")
        DaskHook(self.dask_conn_id).forget(driver_name(self.run_uri, self.stage))
