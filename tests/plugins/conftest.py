"""Airflow on a new SQLite database, a Dask cluster in threads, and stand-ins for the stages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest

if find_spec("airflow") is None:
    collect_ignore_glob = ["*"]
else:
    from tests.plugins import airflow_home


@pytest.fixture(scope="session")
def airflow_database() -> None:
    airflow_home.create_database()


@pytest.fixture(scope="session")
def scheduler_address() -> Iterator[str]:
    """A scheduler and a worker with two slots, in threads, so that stand-ins reach the worker."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address=":0",
        silence_logs=50,
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets connection dask_default."""

    def connect(host: str, **extra: object) -> None:
        value = {"conn_type": "dask", "host": host, "extra": {"connect_timeout": 2} | extra}
        monkeypatch.setenv("AIRFLOW_CONN_DASK_DEFAULT", json.dumps(value))

    return connect


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.05)
