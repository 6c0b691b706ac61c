"""Airflow tasks for long errands on the cluster that are no stage of a run, and their trigger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from petalign_airflow.drivers import driver_name
from petalign_airflow.hooks import DaskHook
from petalign_airflow.links import DashboardLink
from petalign_airflow.operators import LINGER_POLL_S
from petalign_airflow.orders import VARIABLE, read_order
from petalign_airflow.retries import FINAL_KINDS, ClusterLost, StorageFailed
from storage import ledger
from storage.errors import MissingError, StorageError
from storage.store import join, read_json

if TYPE_CHECKING:
    from airflow.sdk import Context

DRIVER = "alignment.errands.drive:run"
FOLDER = "errands"
"""Below the volume that an errand is about; as `alignment.errands.drive` has it."""


class ErrandOperator(BaseOperator):
    """Do an errand on the Dask cluster without holding a worker slot, and tell what it found.

    A retry finds the driver that it lost and goes on waiting; a cleared task begins anew.

    :param errand: a name in ``alignment.errands.drive.ERRANDS``
    :param about: the parameter with the volume that it is about, where its state is kept
    :param places: parameters that are URIs, `about` among them
    :param settings: its other parameters
    :param variable: the Airflow Variable that holds places which the parameters leave open
    :param dask_conn_id: the cluster, and what it may touch
    :param address: of the cluster's scheduler, if it is not that of the connection
    :param poll_s: time between two looks at the ledger
    :param silent_after_s: after so long without a heartbeat the driver is given up
    :param linger_s: an errand that ends within this time is not deferred
    """

    template_fields = ("address",)
    operator_extra_links = (DashboardLink(),)

    def __init__(
        self,
        *,
        errand: str,
        about: str,
        places: Sequence[str],
        settings: Sequence[str],
        variable: str = VARIABLE,
        dask_conn_id: str = DaskHook.default_conn_name,
        address: str = "",
        poll_s: float = 10.0,
        silent_after_s: float = 120.0,
        linger_s: float = 30.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.errand = errand
        self.about = about
        self.places = tuple(places)
        self.settings = tuple(settings)
        self.variable = variable
        self.dask_conn_id = dask_conn_id
        self.address = address
        self.poll_s = poll_s
        self.silent_after_s = silent_after_s
        self.linger_s = linger_s
        self._started_at = ""

    def execute(self, context: Context) -> Any:
        """Start the errand unless it is under way; wait for a short one, defer for a long one."""
        hook = DaskHook(self.dask_conn_id, self.address)
        order = self.read_order(context, hook)
        volume = order[self.about]
        place = join(volume, FOLDER)
        if ledger.read_state(place, self.errand).is_settled:  # an earlier one's
            ledger.write_state(place, ledger.StageState(self.errand))
        if ledger.claim(place, self.errand, silent_after_s=self.silent_after_s):
            arguments = {name: order.get(name) for name in (*self.places, *self.settings)}
            ti = context["ti"]
            key = f"errand-{self.errand}-{ti.id}-{ti.try_number}"
            name = driver_name(place, self.errand)
            try:
                hook.start(
                    DRIVER, self.errand, volume, arguments, name=name, key=key,
                    resources=self.hardware_of(order),
                )  # fmt: skip
            except Exception as error:  # the claim is given back: a retry need not wait for it
                ledger.stop(place, self.errand, str(error))
                raise
            self._started_at = place
            self.log.info("started errand %s as Dask task %s", self.errand, key)
        deadline, said = time.monotonic() + self.linger_s, ""
        while not (state := ledger.read_state(place, self.errand)).is_settled:
            if time.monotonic() >= deadline:
                self._watch(place)
            if state.blocks_total and said != words_of(state):
                said = words_of(state)
                self.log.info("%s", said)
            time.sleep(LINGER_POLL_S)
        return self.resume(context, asdict(state), place)

    def read_order(self, context: Context, hook: DaskHook) -> dict[str, Any]:
        """Return places and settings by name; nothing was reached or written before.

        :raises AirflowFailException: if one is unknown, not set or not allowed
        """
        return read_order(
            context, hook, places=self.places, known=self.settings, variable=self.variable
        )

    def hardware_of(self, order: Mapping[str, Any]) -> Mapping[str, float]:
        """Return what the worker of the errand must offer, in Dask's resources; here nothing."""
        return {}

    def on_kill(self) -> None:
        """Stop an errand that this process has just started; later `ErrandTrigger.on_kill` does."""
        if self._started_at:
            ledger.stop(self._started_at, self.errand, "its task was killed in Airflow")

    def resume(self, context: Context, event: dict[str, Any], place: str) -> Any:
        """Return what was found, or fail in the errand's own words."""
        hook = DaskHook(self.dask_conn_id, self.address)
        name = driver_name(place, self.errand)
        is_lost = event["status"] == "silent"
        if is_lost:
            driver = hook.look_up(name)
            if driver.status == "waiting":
                self.log.warning("errand %s waits for Dask: %s", self.errand, driver.words)
                self._watch(place)
            reason = f"its driver does not report ({driver.words})"
            ledger.stop(place, self.errand, reason)
            event = event | {"status": "failed", "error": reason, "error_kind": "other"}
        hook.forget(name)
        found = self._found(place)
        if event["status"] != "done":
            self.tell(found)
            raise _exception_of(event["error_kind"], is_lost=is_lost)(str(event["error"]))
        return self.finish(context, found)

    def finish(self, context: Context, found: dict[str, Any]) -> Any:
        """Return what goes to XCom."""
        self.tell(found)
        return found

    def tell(self, found: dict[str, Any]) -> None:
        """Write what was found into the log."""

    def _found(self, place: str) -> dict[str, Any]:
        uri = join(place, f"{self.errand}.json")
        try:
            found: dict[str, Any] = read_json(uri)
        except MissingError:
            return {}
        self.log.info("all that was found: %s", uri)
        return found

    def _watch(self, place: str) -> NoReturn:
        self.defer(
            trigger=ErrandTrigger(
                place,
                self.errand,
                self.poll_s,
                self.silent_after_s,
                self.dask_conn_id,
                self.address,
            ),
            method_name="resume",
            kwargs={"place": place},
            timeout=self.execution_timeout,
        )


def words_of(state: ledger.StageState) -> str:
    """Return one line for a log."""
    return f"{state.stage}: {state.phase}: {state.blocks_done} of {state.blocks_total}"


def _exception_of(kind: str | None, *, is_lost: bool) -> type[AirflowException]:
    if kind in FINAL_KINDS:
        return AirflowFailException
    if is_lost:
        return ClusterLost
    return StorageFailed if kind == "storage" else AirflowException


class ErrandTrigger(BaseTrigger):
    """Fires once when an errand has ended or went silent; tells its progress in the task's log.

    :param place: the folder whose ledger holds the errand's state
    :param errand: name of the state
    :param poll_s: time before the first look, and between two
    :param silent_after_s: patience with a driver that does not report
    :param dask_conn_id: the cluster of the driver, should a user stop it
    :param address: of that cluster's scheduler, if it is not that of the connection
    """

    def __init__(
        self,
        place: str,
        errand: str,
        poll_s: float,
        silent_after_s: float,
        dask_conn_id: str,
        address: str = "",
    ) -> None:
        super().__init__()
        self.place = place
        self.errand = errand
        self.poll_s = poll_s
        self.silent_after_s = silent_after_s
        self.dask_conn_id = dask_conn_id
        self.address = address

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that rebuild this trigger elsewhere."""
        names = ("place", "errand", "poll_s", "silent_after_s", "dask_conn_id", "address")
        kwargs = {name: getattr(self, name) for name in names}
        return "petalign_airflow.errands.ErrandTrigger", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll the ledger until there is an end to report; never at once, see `StageTrigger`."""
        heard, heard_at, said = ledger.StageState(self.errand), time.monotonic(), ""
        while True:
            await asyncio.sleep(self.poll_s)
            try:
                state = await asyncio.to_thread(ledger.read_state, self.place, self.errand)
            except (StorageError, OSError) as error:
                self.log.warning("cannot read the ledger of %s: %s", self.place, error)
            else:
                if state.is_settled:
                    yield TriggerEvent(asdict(state))
                    return
                if state.heartbeat != heard.heartbeat:
                    heard, heard_at = state, time.monotonic()
                    if said != words_of(state):
                        said = words_of(state)
                        self.log.info("%s", said)
            if time.monotonic() - heard_at > self.silent_after_s:
                yield TriggerEvent(asdict(heard) | {"status": "silent"})
                return

    async def on_kill(self) -> None:
        """Stop the errand when a user marks its task as failed or successful, or clears it."""
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        ledger.stop(self.place, self.errand, "a user marked or cleared its task in Airflow")
        DaskHook(self.dask_conn_id, self.address).forget(driver_name(self.place, self.errand))
