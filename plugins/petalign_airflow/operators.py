"""Airflow tasks: prepare a run, start a stage, wait for it, report it. No image passes here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from alignment.config import parse_config
from alignment.driving.slabs import ALL, labels_of, state_name
from petalign_airflow.drivers import (
    claim_driver,
    driver_call,
    driver_name,
    read_driver,
    stop_driver,
)
from petalign_airflow.hooks import DaskHook
from petalign_airflow.links import DashboardLink, ReportLink, ViewerLink
from petalign_airflow.params import nested
from petalign_airflow.progress import Teller
from petalign_airflow.retries import FINAL_ERRORS, FINAL_KINDS, ClusterLost, StorageFailed
from petalign_airflow.triggers import StageTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

LINGER_POLL_S = 0.25
RUN_URI = "run_uri"
"""XCom with the URI of the run, whatever a task returns."""
ATTACHED = (("masks", "drawn"), ("masks", "network"), ("filter", "model"), ("features", "model"))
"""Settings that are URIs of what a run reads beside its source."""


class PrepareRunOperator(BaseOperator):
    """Check the parameters of a DAG run and freeze them into a run folder.

    Nothing is written before every parameter and both URIs are known to be allowed. The same
    parameters and source give the same run, so a second DAG run shares its work.

    Returns the URI of the run, or with `by_slab` what stages are mapped over:
    ``RunStageOperator.partial(...).expand_kwargs(prepare.output)``. The URI is there then too, as
    ``prepare.output["run_uri"]``.

    :param by_slab: return arguments of a `RunStageOperator` for each slab of sections
    :param dask_conn_id: the cluster, and what runs may touch
    :param address: of the cluster's scheduler, if it is not that of the connection
    """

    template_fields = ("address",)
    operator_extra_links = (DashboardLink(),)

    def __init__(
        self,
        *,
        by_slab: bool = False,
        dask_conn_id: str = DaskHook.default_conn_name,
        address: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.by_slab = by_slab
        self.dask_conn_id = dask_conn_id
        self.address = address

    def execute(self, context: Context) -> str | list[dict[str, str]]:
        """Return the URI of the run, or its slabs."""
        params = context["params"]
        hook = DaskHook(self.dask_conn_id, self.address)
        try:
            config = parse_config(nested(params)).model_dump(mode="json")
            source, volume = params["source"], params["volume"]
            check_uris(hook, source, volume, config)
            run_uri: str = hook.call("alignment.runs:prepare", source, volume, config)
            self.log.info("run %s", run_uri)
            return told_slabs(context, run_uri) if self.by_slab else run_uri
        except FINAL_ERRORS as error:
            raise AirflowFailException(str(error)) from error


def check_uris(hook: DaskHook, source: str, volume: str, config: Mapping[str, Any]) -> None:
    """Refuse a run that would touch what the connection does not allow.

    :param config: nested settings, of which some are URIs of what is read beside the source
    :raises AirflowFailException: naming the URI, what is allowed, and the setting
    """
    beside = (config.get(part, {}).get(name) for part, name in ATTACHED)
    for uri in (source, volume, *(uri for uri in beside if uri)):
        hook.check_uri(uri)


def told_slabs(context: Context, run_uri: str) -> list[dict[str, str]]:
    """Return the arguments of `RunStageOperator` for each slab of a run; its URI is an XCom, too.

    :raises ConfigError: if there are more slabs than Airflow maps
    """
    slabs = [{"run_uri": run_uri, "sections": label} for label in labels_of(run_uri)]
    context["ti"].xcom_push(RUN_URI, run_uri)
    return slabs


class RunStageOperator(BaseOperator):
    """Run one stage, or one slab of it, on the Dask cluster without holding a worker slot.

    The driver runs on the cluster and records finished units in the ledger. Losing Airflow does
    not lose the stage. A user who marks the task as failed or successful, or clears it, stops the
    driver (see `StageTrigger`).

    **A retry resumes, a cleared task starts over**: both start a new driver with a new lease, which
    does the units that have no record. Finished units are immutable: they are never computed twice
    and no attempt can change them. `petalign_airflow.retries` says what is retried when.

    Mapped over slabs, each task drives its own sections; the driver that comes last does what is
    left of the stage, so all tasks together succeed exactly if the stage is sealed.

    While it waits, ``task_state_store`` holds "progress": see `petalign_airflow.progress`.

    :param stage: a name in ``alignment.stages.ORDER``
    :param run_uri: the run folder: frozen configuration, ledger, volumes
    :param sections: a slab as `PrepareRunOperator` returns it, such as "64-127"; "all" by default
    :param dask_conn_id: the cluster, and what runs may touch
    :param address: of the cluster's scheduler, if it is not that of the connection
    :param poll_s: time between two looks at the ledger
    :param silent_after_s: after so long without a heartbeat a driver is given up
    :param linger_s: a stage that ends within this time is not deferred, which would take longer
    :param progress_s: a deferred task wakes after so long at the soonest, to tell its progress
    """

    template_fields = ("run_uri", "address")
    operator_extra_links = (ReportLink(), ViewerLink(), DashboardLink())

    def __init__(
        self,
        *,
        stage: str,
        run_uri: str,
        sections: str = ALL,
        dask_conn_id: str = DaskHook.default_conn_name,
        address: str = "",
        poll_s: float = 10.0,
        silent_after_s: float = 120.0,
        linger_s: float = 30.0,
        progress_s: float = 300.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.run_uri = run_uri
        self.sections = sections
        self.dask_conn_id = dask_conn_id
        self.address = address
        self.poll_s = poll_s
        self.silent_after_s = silent_after_s
        self.linger_s = linger_s
        self.progress_s = progress_s
        self._has_started = False
        self._teller = Teller()

    @property
    def state_name(self) -> str:
        """The name of what this task drives in the ledger: its stage, or a slab of it."""
        return state_name(self.stage, self.sections)

    @property
    def words(self) -> str:
        """What this task drives, for people."""
        if self.sections == ALL:
            return f"stage {self.stage!r}"
        return f"sections {self.sections} of stage {self.stage!r}"

    def execute(self, context: Context) -> int:
        """Start a driver unless one is alive; wait for a short stage, and defer for a long one."""
        hook = DaskHook(self.dask_conn_id, self.address)
        hook.check_uri(self.run_uri)
        if claim_driver(
            self.run_uri, self.stage, self.sections, silent_after_s=self.silent_after_s
        ):
            self._start(hook, context)
        deadline = time.monotonic() + self.linger_s
        while True:
            state = read_driver(self.run_uri, self.state_name)
            self._teller.tell(context, state, every_s=2.0)
            if state.is_settled:
                return self.resume(context, asdict(state))
            if time.monotonic() >= deadline:
                name = driver_name(self.run_uri, self.state_name)
                if hook.look_up(name).status == "failed":  # it could not even begin
                    return self.resume(context, asdict(state) | {"status": "silent"})
                self._watch(state.seconds)
            time.sleep(LINGER_POLL_S)

    def _start(self, hook: DaskHook, context: Context) -> None:
        function, *arguments = driver_call(self.run_uri, self.stage, self.sections)
        key = f"stage-{self.state_name}-{context['ti'].id}-{context['ti'].try_number}"
        name = driver_name(self.run_uri, self.state_name)
        try:
            hook.start(function, *arguments, name=name, key=key)
        except Exception as error:  # the claim is given back: a retry need not wait for it
            stop_driver(self.run_uri, self.state_name, str(error))
            raise
        self._has_started = True
        self.log.info("started the driver of %s as Dask task %s", self.words, key)

    def on_kill(self) -> None:
        """Stop a driver that this process has just started.

        Once the task is deferred there is no process to kill, and `StageTrigger.on_kill` sees to
        what a user does. So a worker that dies costs a stage its first seconds at most.
        """
        if self._has_started:
            stop_driver(self.run_uri, self.state_name, "its task was killed in Airflow")

    def resume(self, context: Context, event: dict[str, Any]) -> int:
        """Return the number of finished units, or fail in the stage's own words."""
        hook = DaskHook(self.dask_conn_id, self.address)
        name = driver_name(self.run_uri, self.state_name)
        self._teller.tell(context, event)
        if event["status"] == "running":
            self._watch(event["seconds"])
        is_lost = event["status"] == "silent"
        if is_lost:
            driver = hook.look_up(name)
            if driver.status == "waiting":
                self.log.warning("%s waits for Dask: %s", self.words, driver.words)
                self._watch(event["seconds"])
            reason = f"its driver does not report ({driver.words})"
            stop_driver(self.run_uri, self.state_name, reason)
            event = event | {"error": reason, "error_kind": "other"}
        hook.forget(name)
        if event["status"] != "done":
            final = event["error_kind"] in FINAL_KINDS
            advice = "Correct it and trigger a new run" if final else "Clear this task to continue"
            raise _exception_of(event["error_kind"], is_lost=is_lost)(
                f"{self.words} stopped after {event['blocks_done']} of "
                f"{event['blocks_total']} blocks: {event['error']}. "
                f"Finished blocks are kept. {advice}."
            )
        for asset in self.outlets:
            context["outlet_events"][asset].extra = {"run_uri": self.run_uri}
        return int(event["blocks_done"])

    def _watch(self, seconds: float) -> NoReturn:
        self.defer(
            trigger=StageTrigger(
                self.run_uri,
                self.state_name,
                self.poll_s,
                self.silent_after_s,
                self.dask_conn_id,
                self.address,
                # Waking costs a process: a stage of a day is told less often than one of an hour.
                max(self.progress_s, 0.1 * seconds),
            ),
            method_name="resume",
            timeout=self.execution_timeout,
        )


def _exception_of(kind: str | None, *, is_lost: bool) -> type[AirflowException]:
    if kind in FINAL_KINDS:
        return AirflowFailException
    if is_lost:
        return ClusterLost
    return StorageFailed if kind == "storage" else AirflowException
