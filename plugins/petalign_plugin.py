"""The one file that Airflow loads from this folder; what it registers lives in petalign_airflow."""

from airflow.sdk.plugins_manager import AirflowPlugin

from petalign_airflow.links import DashboardLink, ReportLink, ViewerLink


class PetalignPlugin(AirflowPlugin):
    """The links of the operators; connection type and hook come from the provider's entry point."""

    name = "petalign"
    operator_extra_links = [ReportLink(), ViewerLink(), DashboardLink()]  # noqa: RUF012  as its base
