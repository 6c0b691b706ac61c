"""What Airflow is told: everything by environment variables, nothing by its configuration file."""

from __future__ import annotations

import json
import time
from typing import Any

from alignment.platform.airflow_client import AirflowClient
from alignment.platform.config import PlatformConfig
from alignment.platform.credentials import Credentials
from alignment.platform.errors import PlatformError, RequestRefused
from alignment.platform.state import Home, write_private

CONNECTION = "dask_default"
POOL = "petalign"
POOL_SLOTS = 8
"""Stages and slabs that are worked on at a time, over all runs; users may change the pool."""


def airflow_environment(
    home: Home, config: PlatformConfig, credentials: Credentials
) -> dict[str, str]:
    """Return the variables of all Airflow processes; the options are those of Airflow 3.3."""
    url = config.airflow_url
    options: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": config.dags_folder,
            "plugins_folder": config.plugins_folder,
            "load_examples": False,
            "dags_are_paused_at_creation": False,
            "executor": "LocalExecutor",
            # Airflow forks this many processes at once, busy or not.
            "parallelism": config.airflow_tasks,
            # Tasks report here; the default goes to port 8080 whatever the server's port is.
            "execution_api_server_url": f"{url}/execution/",
            "fernet_key": credentials.airflow_fernet_key,
            "simple_auth_manager_users": f"{credentials.airflow_user}:admin",
            "simple_auth_manager_passwords_file": _passwords_file(home),
            # The default asks the name server, which takes seconds where there is none.
            "hostname_callable": "socket.gethostname",
            # Off by default because a test can reach what the server can reach; all is local here.
            "test_connection": "Enabled",
        },
        "database": {
            "sql_alchemy_conn": f"sqlite:///{home.airflow / 'airflow.db'}",
            # The supervisor migrates, meanwhile the slowest service to start loads its code.
            "check_migrations": False,
        },
        "api": {
            "host": "127.0.0.1",
            "port": config.airflow_port,
            "base_url": url,
            "workers": 1,
            "secret_key": credentials.airflow_api_secret,
            "instance_name": "petalign",
        },
        "api_auth": {"jwt_secret": credentials.airflow_jwt_secret},
        "logging": {
            "base_log_folder": home.airflow / "logs",
            "uvicorn_logging_level": "WARNING",
        },
        "scheduler": {
            # Tasks of a scheduler that was killed start again 20 to 30 s later. A scheduler that
            # is only slow must not be taken for dead: it reports every 5 s.
            "scheduler_health_check_threshold": 20,
            "orphaned_tasks_check_interval": 10,
            "task_instance_heartbeat_timeout": 60,
        },
        # A task bears with a server that is being started again; after 3 failures it would give up.
        "workers": {"max_failed_heartbeats": 12},
        "triggerer": {
            # Likewise for what a killed triggerer was waiting for.
            "triggerer_health_check_threshold": 20,
        },
        "dag_processor": {
            "refresh_interval": 10,
            "min_file_process_interval": 30,
            "print_stats_interval": 0,
            "parsing_processes": 1,
        },
    }
    variables = {
        f"AIRFLOW__{section.upper()}__{option.upper()}": str(value)
        for section, values in options.items()
        for option, value in values.items()
    }
    return variables | {
        "AIRFLOW_HOME": str(home.airflow),
        f"AIRFLOW_CONN_{CONNECTION.upper()}": json.dumps(dask_connection(config)),
        "PETALIGN_POOL": POOL,
    }


def dask_connection(config: PlatformConfig) -> dict[str, Any]:
    """Return the connection to the platform's Dask cluster."""
    return {
        "conn_type": "dask",
        "host": "127.0.0.1",
        "port": config.dask_port,
        "extra": {
            # Runs may touch the platform's bucket and this machine's files.
            "allowed_uris": [f"s3://{config.bucket}/", "file:///"],
            "dashboard_url": config.dask_dashboard_url,
        },
    }


def _passwords_file(home: Home) -> str:
    return str(home.airflow / "passwords.json")


def write_passwords(home: Home, credentials: Credentials) -> None:
    """Write the password file from which Airflow checks logins."""
    passwords = {credentials.airflow_user: credentials.airflow_password}
    write_private(home.airflow / "passwords.json", json.dumps(passwords))


def set_up_airflow(
    airflow: AirflowClient, config: PlatformConfig, *, patience_s: float = 180.0
) -> None:
    """Create what Airflow keeps in its database: the pool, and the connection for its pages.

    Tasks take the connection from their environment; its pages show only what the database holds.

    Raises
    ------
    PlatformError
        If Airflow does not answer for `patience_s`: tasks would wait for their pool for ever.
    """
    connection = dask_connection(config)
    connection["extra"] = json.dumps(connection["extra"])
    deadline = time.monotonic() + patience_s
    while True:
        try:
            airflow.ensure_pool(POOL, slots=POOL_SLOTS, description="stages and slabs on Dask")
            airflow.ensure_connection(CONNECTION, connection)
            return
        except RequestRefused:
            raise
        except PlatformError:  # its first answers take long where the machine is busy
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)
