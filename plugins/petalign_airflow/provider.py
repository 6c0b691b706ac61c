"""What Airflow's provider manager must know: the connection type "dask" and the links."""

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the connection type, its form and the link classes, as Airflow's schema wants it."""
    return {
        "package-name": "petalign",
        "name": "petalign",
        "description": "Runs the stages of petalign on a Dask cluster.",
        "connection-types": [
            {
                "connection-type": "dask",
                "hook-class-name": "petalign_airflow.hooks.DaskHook",
                "hook-name": "Dask scheduler",
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "password", "schema"],
                    "relabeling": {"host": "Scheduler host or address"},
                    "placeholders": {"host": "dask-scheduler, or tls://dask-scheduler"},
                },
                "conn-fields": {
                    "allowed_uris": {
                        "label": "Allowed URIs",
                        "description": "Runs may read and write below these only, such as "
                        "s3://petalign or file:///data/em; one per line.",
                        "schema": {"type": ["array", "null"], "items": {"type": "string"}},
                    },
                    "dashboard_url": {
                        "label": "Dashboard URL",
                        "description": "What users open; by default port 8787 of the host.",
                        "schema": {"type": ["string", "null"], "format": "url"},
                    },
                    "connect_timeout": {
                        "label": "Connect timeout (s)",
                        "schema": {"type": ["integer", "null"], "minimum": 1, "default": 10},
                    },
                },
            }
        ],
        "extra-links": [
            "petalign_airflow.links.ReportLink",
            "petalign_airflow.links.ViewerLink",
            "petalign_airflow.links.DashboardLink",
        ],
    }
