"""Airflow tasks of the DAG `recipe`: check a recipe, then start and watch its batches.

As for stages, drivers run on the cluster and keep their progress in the ledger; a batch of up to
512 tasks is one Airflow task, and each of its tasks one Dask task.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from alignment.errors import ConfigError
from petalign_airflow.drivers import driver_name
from petalign_airflow.hooks import DaskHook
from petalign_airflow.links import DashboardLink
from petalign_airflow.operators import LINGER_POLL_S
from petalign_airflow.params import URI_PATTERN
from petalign_airflow.retries import FINAL_ERRORS, FINAL_KINDS
from petalign_airflow.triggers import StageTrigger
from storage import ledger, store
from storage.errors import StorageError

if TYPE_CHECKING:
    from airflow.sdk import Context

PLAN = "alignment.recipes.frozen:plan"
DRIVER = "alignment.recipes.driver:run"
"""Called on the cluster with the recipe's URI, the batch, and the programs that are allowed."""

OWN_PROGRAMS = ("petalign", "python")
PROGRAMS = "recipe_programs"
"""In the extra of the connection: further programs by name, and where they are on workers."""


def recipe_params() -> dict[str, Param]:
    """Return the only parameter of a run of a recipe."""
    description = "Where `petalign recipe up` laid the recipe, such as s3://petalign/recipes/a1b2c3"
    return {"recipe": Param(type="string", pattern=URI_PATTERN, description=description)}


def allowed_programs(hook: DaskHook) -> dict[str, str]:
    """Return the programs that the connection allows besides `OWN_PROGRAMS`.

    :raises AirflowFailException: if the extra is not a mapping of names to absolute paths
    """
    found = hook.connection.extra_dejson.get(PROGRAMS) or {}
    if not isinstance(found, dict) or not all(str(p).startswith("/") for p in found.values()):
        raise AirflowFailException(
            f"{PROGRAMS!r} in the extra of connection {hook.dask_conn_id!r} must map names to "
            f"absolute paths, got {found!r}"
        )
    return {str(name): str(path) for name, path in found.items() if name not in OWN_PROGRAMS}


class PrepareRecipeOperator(BaseOperator):
    """Check a frozen recipe and return what the mapped tasks are made from.

    Everything is checked once more on the cluster: a recipe that somebody wrote into the store by
    hand may do no more than one that `petalign recipe up` let pass.

    :param dask_conn_id: the cluster, what recipes may touch, and the programs they may run
    """

    operator_extra_links = (DashboardLink(),)

    def __init__(self, *, dask_conn_id: str = DaskHook.default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dask_conn_id = dask_conn_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the arguments of a `RunBatchOperator` for each batch."""
        params = context["params"]
        if unknown := sorted(set(params) - {"recipe"}):
            raise AirflowFailException(f"{unknown[0]}: no such parameter; there is only 'recipe'")
        hook = DaskHook(self.dask_conn_id)
        uri = str(params["recipe"])
        hook.check_uri(uri)
        try:
            planned: dict[str, Any] = hook.call(PLAN, uri)
        except FINAL_ERRORS as error:
            raise AirflowFailException(str(error)) from error
        for other in planned["uris"]:
            hook.check_uri(other)
        allowed = [*OWN_PROGRAMS, *allowed_programs(hook)]
        if refused := [name for name in planned["programs"] if name not in allowed]:
            raise AirflowFailException(
                f"program {refused[0]!r} is refused: allowed are {', '.join(allowed)}; see "
                f"{PROGRAMS!r} in the extra of connection {self.dask_conn_id!r}"
            )
        self.log.info("recipe %s has %d batches", uri, len(planned["batches"]))
        return [
            {"recipe": uri, "batch": b["batch"], "title": b["title"], "after": b["after"]}
            for b in planned["batches"]
        ]


class RunBatchOperator(BaseOperator):
    """Run a batch of a recipe's tasks on the Dask cluster without holding a worker slot.

    It waits for the batches that it depends on, starts a driver unless one is alive, and watches
    the ledger. Losing Airflow loses nothing; a retry goes on where the batch stopped.

    :param recipe: where the recipe lies
    :param batch: the batch's name in the ledger
    :param title: what people read
    :param after: batches that must be done before this one begins
    :param dask_conn_id: the cluster, what recipes may touch, and the programs they may run
    :param poll_s: time between two looks at the ledger
    :param silent_after_s: after so long without a heartbeat a driver is given up
    :param linger_s: a batch that ends within this time is not deferred, which would take longer
    """

    operator_extra_links = (DashboardLink(),)

    def __init__(
        self,
        *,
        recipe: str,
        batch: str,
        title: str,
        after: Sequence[str] = (),
        dask_conn_id: str = DaskHook.default_conn_name,
        poll_s: float = 5.0,
        silent_after_s: float = 120.0,
        linger_s: float = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.recipe = recipe
        self.batch = batch
        self.title = title
        self.after = after
        self.dask_conn_id = dask_conn_id
        self.poll_s = poll_s
        self.silent_after_s = silent_after_s
        self.linger_s = linger_s
        self._has_started = False

    def execute(self, context: Context) -> int:
        """Begin, or wait without a slot until what the batch depends on is done."""
        DaskHook(self.dask_conn_id).check_uri(self.recipe)
        self._check_not_stopped()
        states = [ledger.read_state(self.recipe, name) for name in self.after]
        if not all(state.status == "done" for state in states):
            trigger = BatchesTrigger(self.recipe, list(self.after), self.poll_s)
            self.defer(trigger=trigger, method_name="begin", timeout=self.execution_timeout)
        return self.begin(context, {"failed": ""})

    def begin(self, context: Context, event: dict[str, Any]) -> int:
        """Start a driver unless one is alive; wait for a short batch, and defer for a long one."""
        self._check_not_stopped()
        if event["failed"]:
            final = event["error_kind"] in FINAL_KINDS
            raise (AirflowFailException if final else AirflowException)(
                f"{self.title} was not begun: {event['failed']} before it failed"
            )
        hook, name = DaskHook(self.dask_conn_id), driver_name(self.recipe, self.batch)
        if ledger.claim(self.recipe, self.batch, silent_after_s=self.silent_after_s):
            key = f"recipe-{self.batch}-{context['ti'].id}-{context['ti'].try_number}"
            try:
                programs = allowed_programs(hook)
                hook.start(DRIVER, self.recipe, self.batch, programs, name=name, key=key)
            except Exception as error:  # the claim is given back: a retry need not wait for it
                ledger.stop(self.recipe, self.batch, str(error))
                raise
            self._has_started = True
            self.log.info("started the driver of %s as Dask task %s", self.title, key)
        deadline = time.monotonic() + self.linger_s
        while True:
            state = ledger.read_state(self.recipe, self.batch)
            if state.is_settled:
                return self.resume(context, asdict(state))
            if time.monotonic() >= deadline:
                self._watch()
            time.sleep(LINGER_POLL_S)

    def on_kill(self) -> None:
        """Stop a driver that this process has just started, as `RunStageOperator` does."""
        if self._has_started:
            ledger.stop(self.recipe, self.batch, "its task was killed in Airflow")

    def resume(self, context: Context, event: dict[str, Any]) -> int:
        """Return the number of finished tasks, or fail in the batch's own words."""
        if event["status"] == "running":  # it has advanced
            self._watch()
        hook, name = DaskHook(self.dask_conn_id), driver_name(self.recipe, self.batch)
        if event["status"] == "silent":
            driver = hook.look_up(name)
            if driver.status == "waiting":
                self.log.warning("%s waits for Dask: %s", self.title, driver.words)
                self._watch()
            reason = f"its driver does not report ({driver.words})"
            ledger.stop(self.recipe, self.batch, reason)
            event = event | {"error": reason, "error_kind": "other"}
        hook.forget(name)
        if event["status"] != "done":
            self._check_not_stopped()
            final = event["error_kind"] in FINAL_KINDS
            raise (AirflowFailException if final else AirflowException)(
                f"{self.title} stopped after {event['blocks_done']} of {event['blocks_total']} "
                f"tasks: {event['error']}. Finished tasks are kept."
            )
        return int(event["blocks_done"])

    def _check_not_stopped(self) -> None:
        if store.exists(store.join(self.recipe, "stop.json")):
            raise AirflowFailException(
                "the recipe was stopped by a user; go on with `petalign recipe up`"
            )

    def _watch(self) -> NoReturn:
        self.defer(
            trigger=StageTrigger(
                self.recipe, self.batch, self.poll_s, self.silent_after_s, self.dask_conn_id
            ),
            method_name="resume",
            timeout=self.execution_timeout,
        )


class BatchesTrigger(BaseTrigger):
    """Fires once: when all batches are done, one has failed, or the recipe was stopped.

    :param recipe: where the recipe lies
    :param batches: names in the ledger
    :param poll_s: time before the first look, and between two
    """

    def __init__(self, recipe: str, batches: list[str], poll_s: float) -> None:
        super().__init__()
        self.recipe = recipe
        self.batches = batches
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that rebuild this trigger elsewhere."""
        kwargs = {"recipe": self.recipe, "batches": self.batches, "poll_s": self.poll_s}
        return "petalign_airflow.recipes.BatchesTrigger", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll the ledger; its reads run in a thread, and what cannot be read is no news."""
        waiting = list(self.batches)
        while True:
            await asyncio.sleep(self.poll_s)
            try:
                event = await asyncio.to_thread(self._look, waiting)
            except (StorageError, OSError, ConfigError) as error:
                self.log.warning("cannot read the ledger of %s: %s", self.recipe, error)
                continue
            if event is not None:
                yield TriggerEvent(event)
                return

    def _look(self, waiting: list[str]) -> dict[str, Any] | None:
        """Strike what is done off the list; return an event when there is nothing to wait for."""
        if store.exists(store.join(self.recipe, "stop.json")):
            return {"failed": "", "error_kind": None}
        while waiting:
            state = ledger.read_state(self.recipe, waiting[0])
            if state.status == "failed":
                return {"failed": waiting[0], "error_kind": state.error_kind}
            if state.status != "done":
                return None
            waiting.pop(0)
        return {"failed": "", "error_kind": None}
