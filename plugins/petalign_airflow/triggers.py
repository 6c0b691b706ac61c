"""Waiting that costs no worker slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from petalign_airflow.drivers import driver_name, read_driver, stop_driver
from petalign_airflow.hooks import DaskHook
from petalign_airflow.progress import words_of
from storage import ledger
from storage.errors import StorageError

LOG_EVERY_S = 60.0
DOUBT_S = 15.0
"""After so long without a heartbeat, which comes every 2 s, the cluster is asked."""


class StageTrigger(BaseTrigger):
    """Fires once: when a stage is done, has failed, its driver stopped reporting, or has advanced.

    It looks at the ledger, which outlives Airflow and Dask. A driver is silent when its heartbeat
    has not changed for `silent_after_s` of this process' own clock, so clocks need not agree; a
    ledger that cannot be read for a while is no news, too. A cluster that was restarted says at
    once that it has no such driver: then there is nothing to be patient with.

    :param run_uri: the run folder
    :param state: under which the ledger knows what is driven: a stage, or a slab of one
    :param poll_s: time before the first look, and between two
    :param silent_after_s: patience with a driver that does not report
    :param dask_conn_id: the cluster of the driver, should a user stop it
    :param address: of that cluster's scheduler, if it is not that of the connection
    :param progress_s: after so long, progress is an event too
    """

    def __init__(
        self,
        run_uri: str,
        state: str,
        poll_s: float,
        silent_after_s: float,
        dask_conn_id: str,
        address: str = "",
        progress_s: float = 300.0,
    ) -> None:
        super().__init__()
        self.run_uri = run_uri
        self.state = state
        self.poll_s = poll_s
        self.silent_after_s = silent_after_s
        self.dask_conn_id = dask_conn_id
        self.address = address
        self.progress_s = progress_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that rebuild this trigger elsewhere."""
        names = ("run_uri", "state", "poll_s", "silent_after_s", "dask_conn_id", "address")
        kwargs = {name: getattr(self, name) for name in (*names, "progress_s")}
        return "petalign_airflow.triggers.StageTrigger", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll the ledger until there is something to report; its reads run in a thread.

        It never fires at once: Airflow 3.3 may fail a task that is resumed before its scheduler
        has seen the deferring process end (https://github.com/apache/airflow/issues/72716).
        """
        heard, heard_at = ledger.StageState(self.state), time.monotonic()
        began, logged_at, first = heard_at, float("-inf"), None
        while True:
            await asyncio.sleep(self.poll_s)
            now = time.monotonic()
            try:
                state = await asyncio.to_thread(read_driver, self.run_uri, self.state)
            except (StorageError, OSError) as error:
                self.log.warning("cannot read the ledger of %s: %s", self.run_uri, error)
            else:
                first = first or state
                has_advanced = state.blocks_done > first.blocks_done
                if state.is_settled or (has_advanced and now - began > self.progress_s):
                    yield TriggerEvent(asdict(state))
                    return
                if state.heartbeat != heard.heartbeat:
                    if state.blocks_done != heard.blocks_done and now - logged_at > LOG_EVERY_S:
                        logged_at = now
                        self.log.info("%s", words_of(asdict(state)))
                    heard, heard_at = state, now
            silence_s = now - heard_at
            if silence_s > self.silent_after_s or (silence_s > DOUBT_S and await self._is_over()):
                yield TriggerEvent(asdict(heard) | {"status": "silent"})
                return

    async def _is_over(self) -> bool:
        """Return whether the cluster says that the driver is gone; its silence says nothing."""
        hook = DaskHook(self.dask_conn_id, self.address)
        name = driver_name(self.run_uri, self.state)
        try:
            driver = await sync_to_async(hook.look_up, thread_sensitive=False)(name)
        except Exception as error:  # whatever it is, patience with the driver will end
            self.log.warning("cannot ask Dask for driver %s: %s", name, error)
            return False
        return driver.is_over

    async def on_kill(self) -> None:
        """Stop the driver when a user marks its task as failed or successful, or clears it.

        Airflow does not call this when a triggerer or worker is restarted: losing Airflow never
        stops a stage. The driver sees in the ledger that it was stopped; finished units are kept.
        """
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        stop_driver(self.run_uri, self.state, "a user marked or cleared its task in Airflow")
        DaskHook(self.dask_conn_id, self.address).forget(driver_name(self.run_uri, self.state))
