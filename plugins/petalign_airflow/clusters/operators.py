"""The two tasks around a run that has a cluster of its own."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from alignment.errors import ConfigError
from petalign_airflow import clusters
from petalign_airflow.hooks import DaskHook

if TYPE_CHECKING:
    from airflow.sdk import Context


class StartClusterOperator(BaseOperator):
    """Start the Dask cluster of a DAG run; returns what ends it, and "address" as an XCom.

    :param kind: one of ``petalign_airflow.clusters.KINDS`` but "address"
    :param dask_conn_id: its extra says how large the cluster is, and holds the TLS files
    """

    def __init__(
        self, *, kind: str, dask_conn_id: str = DaskHook.default_conn_name, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.dask_conn_id = dask_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the cluster's handle."""
        name = cluster_name(context["dag"].dag_id, context["run_id"])
        try:
            handle = clusters.start(self.kind, name, DaskHook(self.dask_conn_id).extra)
        except ConfigError as error:
            raise AirflowFailException(str(error)) from error
        self.log.info("Dask cluster %s of kind %s at %s", name, self.kind, handle["address"])
        context["ti"].xcom_push("address", handle["address"])
        return handle


class StopClusterOperator(BaseOperator):
    """End the Dask cluster of a DAG run, whatever became of the run.

    :param handle: what `StartClusterOperator` returned
    """

    template_fields = ("handle",)

    def __init__(self, *, handle: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.handle = handle

    def execute(self, context: Context) -> None:
        """End the cluster; there is none if it could not be started."""
        if self.handle:
            clusters.stop(self.handle)


def cluster_name(dag_id: str, run_id: str) -> str:
    """Return a name that Kubernetes, Slurm and file systems take; the same in every attempt.

    >>> cluster_name("align_volume", "manual__2026-01-01T00:00:00+00:00")
    'petalign-21854dc4843b'
    """
    return f"petalign-{hashlib.sha256(f'{dag_id} {run_id}'.encode()).hexdigest()[:12]}"
