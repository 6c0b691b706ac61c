"""Airflow tasks: look what changed since the published version, and prepare its update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.utils.skipmixin import SkipMixin
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from petalign_airflow.hooks import DaskHook
from petalign_airflow.links import DashboardLink
from petalign_airflow.operators import check_uris, told_slabs
from petalign_airflow.orders import VARIABLE, read_order
from petalign_airflow.params import nested
from petalign_airflow.retries import FINAL_ERRORS

if TYPE_CHECKING:
    from airflow.sdk import Context

LOOK_TIMEOUT_S = 3600.0
"""Listing a large source takes a while: a request for every 1,000 objects."""

KINDS = ("new", "changed", "removed", "moved", "settings", "code")
"""Of changes, as `alignment.changes` names them."""


class FindChangesOperator(BaseOperator, SkipMixin):
    """Compare a source with the published version; skip all tasks behind this one if it is equal.

    The source is looked at as it is now, whatever the logical date of the DAG run: a backfill of an
    old date does what a run of today would do, which most often is nothing.

    Returns what `PrepareUpdateOperator` needs; XCom ``changes`` says what was found.

    :param variable: the Airflow Variable that holds what the parameters leave open
    :param dask_conn_id: the cluster, and what runs may touch
    :param address: of the cluster's scheduler, if it is not that of the connection
    """

    template_fields = ("address",)
    inherits_from_skipmixin = True
    operator_extra_links = (DashboardLink(),)

    def __init__(
        self,
        *,
        variable: str = VARIABLE,
        dask_conn_id: str = DaskHook.default_conn_name,
        address: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.variable = variable
        self.dask_conn_id = dask_conn_id
        self.address = address

    def execute(self, context: Context) -> dict[str, Any]:
        """Return source, volume and settings if there is something to do."""
        hook = DaskHook(self.dask_conn_id, self.address)
        order = read_order(
            context,
            hook,
            places=("source", "volume"),
            known=("settings", "code"),
            variable=self.variable,
        )
        source, volume = order["source"], order["volume"]
        try:
            settings = nested(order["settings"])
            found = hook.call(
                "alignment.errands.nightly:look", source, volume, settings, timeout_s=LOOK_TIMEOUT_S
            )
        except FINAL_ERRORS as error:
            raise AirflowFailException(str(error)) from error
        self._tell(found)
        context["ti"].xcom_push(key="changes", value=_summary(found))
        if found["is_empty"] and not (order.get("code") and found["code"]):
            self.log.info("nothing to do: %s is published in %s", source, volume)
            after = self.get_flat_relatives(upstream=False)
            self.skip(context["ti"], [task for task in after if not task.is_teardown])
        return {"source": source, "volume": volume, "settings": settings}

    def _tell(self, found: dict[str, Any]) -> None:
        """Write every name into the log."""
        self.log.info("published: run %s; %s", found["base"] or "none yet", found["sentence"])
        for kind in KINDS:
            if found[kind]:
                self.log.info("%s: %s", kind, ", ".join(found[kind]))


class PrepareUpdateOperator(BaseOperator):
    """Freeze an update of the published version into a run, and return its slabs.

    The same source and settings give the same run, so two DAG runs at once share their work. What
    it returns is what `PrepareRunOperator` does with ``by_slab``.

    :param order: the output of `FindChangesOperator`
    :param dask_conn_id: the cluster, and what runs may touch
    :param address: of the cluster's scheduler, if it is not that of the connection
    """

    template_fields = ("order", "address")
    operator_extra_links = (DashboardLink(),)

    def __init__(
        self,
        *,
        order: Any,
        dask_conn_id: str = DaskHook.default_conn_name,
        address: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.order = order
        self.dask_conn_id = dask_conn_id
        self.address = address

    def execute(self, context: Context) -> list[dict[str, str]]:
        """Return arguments of a `RunStageOperator` for each slab."""
        hook = DaskHook(self.dask_conn_id, self.address)
        source, volume = str(self.order["source"]), str(self.order["volume"])
        check_uris(hook, source, volume, self.order["settings"])
        try:
            run_uri: str = hook.call(
                "alignment.errands.nightly:prepare_update",
                source,
                volume,
                self.order["settings"],
                timeout_s=LOOK_TIMEOUT_S,
            )
            self.log.info("run %s", run_uri)
            return told_slabs(context, run_uri)
        except FINAL_ERRORS as error:
            raise AirflowFailException(str(error)) from error


def _summary(found: dict[str, Any]) -> dict[str, Any]:
    """Return counts: a list of names can be as long as the volume is thick."""
    return {"base": found["base"], **{kind: len(found[kind]) for kind in KINDS}}
