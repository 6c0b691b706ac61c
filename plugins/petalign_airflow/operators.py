"""Airflow tasks: prepare a run, start a stage, wait for it, report it. No image passes here."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from alignment.config import parse_config
from alignment.errors import ConfigError, DataError
from petalign_airflow.drivers import DRIVER, driver_name
from petalign_airflow.hooks import DaskHook
from petalign_airflow.links import DashboardLink, ReportLink, ViewerLink
from petalign_airflow.params import nested
from petalign_airflow.triggers import StageTrigger
from storage import ledger
from storage.errors import AccessError, MissingError, SourceError, UriError

if TYPE_CHECKING:
    from airflow.sdk import Context

FINAL_ERRORS = (ConfigError, DataError, AccessError, MissingError, SourceError, UriError)
FINAL_KINDS = ("config", "data")
"""Errors, and their kinds in the ledger, that a retry would only repeat."""

LINGER_POLL_S = 0.25


class PrepareRunOperator(BaseOperator):
    """Check the parameters of a DAG run, freeze them into a run folder, and return its URI.

    Nothing is written before every parameter and both URIs are known to be allowed. The same
    parameters and source give the same run, so a second DAG run shares its work.

    :param dask_conn_id: the cluster, and what runs may touch
    """

    operator_extra_links = (DashboardLink(),)

    def __init__(self, *, dask_conn_id: str = DaskHook.default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dask_conn_id = dask_conn_id

    def execute(self, context: Context) -> str:
        """Return the URI of the run."""
        params = context["params"]
        hook = DaskHook(self.dask_conn_id)
        try:
            config = parse_config(nested(params)).model_dump(mode="json")
            source, volume = params["source"], params["volume"]
            hook.check_uri(source)
            hook.check_uri(volume)
            run_uri: str = hook.call("alignment.runs:prepare", source, volume, config)
        except FINAL_ERRORS as error:
            raise AirflowFailException(str(error)) from error
        self.log.info("run %s", run_uri)
        return run_uri


class RunStageOperator(BaseOperator):
    """Run one stage on the Dask cluster without holding a worker slot.

    The driver runs on the cluster and records finished blocks in the ledger. Losing Airflow does
    not lose the stage, and a retry or a cleared task skips what is done. A user who marks the
    task as failed or successful, or clears it, stops the driver (see `StageTrigger`).

    :param stage: a name in ``alignment.stages.ORDER``
    :param run_uri: the run folder: frozen configuration, ledger, volumes
    :param dask_conn_id: the cluster, and what runs may touch
    :param poll_s: time between two looks at the ledger
    :param silent_after_s: after so long without a heartbeat a driver is given up
    :param linger_s: a stage that ends within this time is not deferred, which would take longer
    """

    template_fields = ("run_uri",)
    operator_extra_links = (ReportLink(), ViewerLink(), DashboardLink())

    def __init__(
        self,
        *,
        stage: str,
        run_uri: str,
        dask_conn_id: str = DaskHook.default_conn_name,
        poll_s: float = 10.0,
        silent_after_s: float = 120.0,
        linger_s: float = 30.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.run_uri = run_uri
        self.dask_conn_id = dask_conn_id
        self.poll_s = poll_s
        self.silent_after_s = silent_after_s
        self.linger_s = linger_s
        self._has_started = False

    def execute(self, context: Context) -> int:
        """Start a driver unless one is alive; wait for a short stage, and defer for a long one."""
        hook, name = DaskHook(self.dask_conn_id), driver_name(self.run_uri, self.stage)
        hook.check_uri(self.run_uri)
        if ledger.claim(self.run_uri, self.stage, silent_after_s=self.silent_after_s):
            key = f"stage-{self.stage}-{context['ti'].id}-{context['ti'].try_number}"
            try:
                hook.start(DRIVER, self.stage, self.run_uri, name=name, key=key)
            except Exception as error:  # the claim is given back: a retry need not wait for it
                ledger.stop(self.run_uri, self.stage, str(error))
                raise
            self._has_started = True
            self.log.info("started the driver of stage %s as Dask task %s", self.stage, key)
        deadline = time.monotonic() + self.linger_s
        while True:
            state = ledger.read_state(self.run_uri, self.stage)
            if state.is_settled:
                return self.resume(context, asdict(state))
            if time.monotonic() >= deadline:
                if hook.look_up(name).status == "failed":  # it could not even begin
                    return self.resume(context, asdict(state) | {"status": "silent"})
                self._watch()
            time.sleep(LINGER_POLL_S)

    def on_kill(self) -> None:
        """Stop a driver that this process has just started.

        Once the task is deferred there is no process to kill, and `StageTrigger.on_kill` sees to
        what a user does. So a worker that dies costs a stage its first seconds at most.
        """
        if self._has_started:
            ledger.stop(self.run_uri, self.stage, "its task was killed in Airflow")

    def resume(self, context: Context, event: dict[str, Any]) -> int:
        """Return the number of finished blocks, or fail in the stage's own words."""
        hook, name = DaskHook(self.dask_conn_id), driver_name(self.run_uri, self.stage)
        if event["status"] == "silent":
            driver = hook.look_up(name)
            if driver.status == "waiting":
                self.log.warning("stage %s waits for Dask: %s", self.stage, driver.words)
                self._watch()
            reason = f"its driver does not report ({driver.words})"
            ledger.stop(self.run_uri, self.stage, reason)
            event = event | {"error": reason, "error_kind": "other"}
        hook.forget(name)
        if event["status"] != "done":
            final = event["error_kind"] in FINAL_KINDS
            advice = "Correct it and trigger a new run" if final else "Clear this task to continue"
            raise (AirflowFailException if final else AirflowException)(
                f"stage {self.stage!r} stopped after {event['blocks_done']} of "
                f"{event['blocks_total']} blocks: {event['error']}. "
                f"Finished blocks are kept. {advice}."
            )
        for asset in self.outlets:
            context["outlet_events"][asset].extra = {"run_uri": self.run_uri}
        return int(event["blocks_done"])

    def _watch(self) -> NoReturn:
        self.defer(
            trigger=StageTrigger(
                self.run_uri, self.stage, self.poll_s, self.silent_after_s, self.dask_conn_id
            ),
            method_name="resume",
            timeout=self.execution_timeout,
        )
