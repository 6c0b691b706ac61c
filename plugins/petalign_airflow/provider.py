"""What Airflow's provider manager must know: the connection type "dask" and the links."""

from importlib.metadata import version
from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the connection type, its form and the link classes, as Airflow's schema wants it."""
    return {
        "package-name": "petalign",
        "name": "petalign",
        "description": "Aligns serial-section EM volumes: runs the stages on a Dask cluster.",
        "versions": [version("petalign")],
        "integrations": [
            {
                "integration-name": "Dask",
                "external-doc-url": "https://distributed.dask.org/",
                "how-to-guide": ["/docs/airflow.md", "/docs/deployment.md"],
                "tags": ["software"],
            }
        ],
        "operators": [_modules("operators", "clusters.operators")],
        "hooks": [_modules("hooks")],
        "triggers": [_modules("triggers")],
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
                    "tls_ca": _file(
                        "TLS authority",
                        "PEM file; with it the scheduler is spoken to "
                        "by TLS only, which another machine's must be.",
                    ),
                    "tls_cert": _file("TLS certificate", "PEM file of this client."),
                    "tls_key": _file("TLS key", "PEM file of this client."),
                    "allow_plain": {
                        "label": "Allow plain TCP",
                        "description": "Speak to another machine without TLS. Whoever reaches a "
                        "Dask scheduler runs code on the cluster: only where the network itself "
                        "keeps others out.",
                        "schema": {"type": ["boolean", "null"], "default": False},
                    },
                    "cluster": {
                        "label": "Cluster of a run",
                        "description": "Size of the clusters that PETALIGN_CLUSTER starts: see "
                        "docs/deployment.md.",
                        "schema": {"type": ["object", "null"]},
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


def _modules(*names: str) -> dict[str, Any]:
    modules = [f"petalign_airflow.{name}" for name in names]
    return {"integration-name": "Dask", "python-modules": modules}


def _file(label: str, description: str) -> dict[str, Any]:
    return {
        "label": label,
        "description": description,
        "schema": {"type": ["string", "null"]},
    }
