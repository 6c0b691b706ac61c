"""Ask Dask and Airflow whether they are well."""

from __future__ import annotations

import json
from contextlib import closing, suppress
from datetime import datetime
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Any

from alignment.platform.config import PlatformConfig


class NotReady(Exception):
    """A service answers but does not do its work yet."""


def _answer(port: int, path: str) -> Any:
    """Return the JSON document a service of this machine answers with; OSError if it does not.

    Services are asked several times a second while they start on the same cores, hence not the
    client of a library, which would read all certificates of the machine at every question.
    """
    with closing(HTTPConnection("127.0.0.1", port, timeout=5.0)) as connection:
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            content = response.read()
        except HTTPException as error:
            raise ConnectionError(f"{type(error).__name__} from port {port}") from error
    if response.status != HTTPStatus.OK:
        raise ConnectionError(f"status {response.status} from port {port}")
    return json.loads(content)


def expect_workers(config: PlatformConfig, _: float, *, at_least: int) -> None:
    """Raise NotReady while fewer workers have registered with the Dask scheduler."""
    found = dask_workers(config)
    if found < at_least:
        raise NotReady(f"{found} of {at_least} workers have registered")


def dask_workers(config: PlatformConfig) -> int:
    """Return how many workers the Dask scheduler has; OSError if it does not answer."""
    return int(_answer(config.dask_dashboard_port, "/json/counts.json")["workers"])


def airflow_health(config: PlatformConfig) -> dict[str, Any]:
    """Return what Airflow says of its parts; OSError if it does not answer."""
    health: dict[str, Any] = _answer(config.airflow_port, "/api/v2/monitor/health")
    return health


def warm_up_airflow(config: PlatformConfig) -> None:
    """Let Airflow build what the first task needs, without waiting for it.

    It is built at the first request and takes 4 s of a core, in which the first run would wait.
    """
    with (
        suppress(OSError),
        closing(HTTPConnection("127.0.0.1", config.airflow_port, timeout=2.0)) as connection,
    ):
        connection.request("GET", "/execution/health")


def expect_airflow(config: PlatformConfig, part: str, started: float) -> None:
    """Raise NotReady until a part of Airflow that was `started` (s since 1970) is healthy."""
    health = airflow_health(config)[part]
    if health["status"] != "healthy":
        raise NotReady(f"Airflow says its {part} is {health['status']}")
    heartbeat = next((health[key] for key in health if key.startswith("latest_")), None)
    # The last words of a predecessor that was killed do not count.
    if heartbeat and datetime.fromisoformat(heartbeat).timestamp() < started:
        raise NotReady(f"the {part} has not reported yet")


def expect_heartbeat(config: PlatformConfig, part: str, started: float) -> None:
    """Raise NotReady if Airflow says that a part has fallen silent.

    That Airflow's API does not answer is no news of the part.
    """
    with suppress(OSError):
        expect_airflow(config, part, started)
