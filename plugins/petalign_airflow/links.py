"""Buttons on a task's page. Airflow stores what `get_link` returns when the task defers or ends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from petalign_airflow.hooks import DaskHook
from petalign_airflow.uris import browser_url

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey


class ReportLink(BaseOperatorLink):
    """The report, once stage "qc" wrote it."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Return the report's address, or nothing for stages before it."""
        if operator.stage not in ("qc", "publish"):
            return ""
        return browser_url(f"{operator.run_uri}/report.html", os.environ)


class ViewerLink(BaseOperatorLink):
    """The aligned volume, once it is published."""

    name = "Viewer"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Return the viewer's address if there is one, else the address of the volume."""
        if operator.stage != "publish":
            return ""
        volume_uri = operator.run_uri.rpartition("/runs/")[0]
        return os.environ.get("PETALIGN_VIEWER_URL") or browser_url(volume_uri, os.environ)


class DashboardLink(BaseOperatorLink):
    """Dask's dashboard, where the blocks of the stage can be watched."""

    name = "Dask dashboard"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Return the address that the connection gives."""
        return DaskHook(operator.dask_conn_id, operator.address).dashboard_url
