"""A Dask cluster of processes on this machine; they outlive the task that starts them.

The teardown task must run on the same machine, as it does with Airflow's LocalExecutor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.platform.processes import ProcessId, identify, stop_sessions
from alignment.platform.processes import start as start_process
from alignment.worker_environment import WORKER_ENVIRONMENT
from petalign_airflow.clusters.config import LocalConfig, settings
from petalign_airflow.retries import ClusterLost

GRACE_S = 10.0
PROCESSES = "processes.json"

_children: dict[int, subprocess.Popen[bytes]] = {}
"""What this very process has started, which is usually not the one that ends it."""


def start(name: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Start a scheduler and workers on this machine's own address."""
    config = settings(LocalConfig, extra)
    folder = Path(config.folder or tempfile.gettempdir()) / name
    folder.mkdir(parents=True, exist_ok=True)
    stop({"folder": str(folder)})
    address = start_scheduler(folder, "127.0.0.1", ())
    run_dask(
        folder,
        "worker",
        address,
        "--host=127.0.0.1",
        f"--nworkers={config.workers}",
        "--nthreads=1",
        f"--memory-limit={config.memory_gib}GiB",
        f"--local-directory={folder}",
        "--no-dashboard",
        "--dashboard-address=127.0.0.1:0",
    )
    wait_for_workers(address, config.workers, config.start_timeout_s, folder=folder)
    return {"address": address, "folder": str(folder)}


def stop(handle: Mapping[str, Any]) -> None:
    """End every process that was started in the cluster's folder."""
    note = Path(handle["folder"]) / PROCESSES
    if note.exists():
        processes = [ProcessId(**each) for each in json.loads(note.read_text())]
        stop_sessions(dict.fromkeys(reversed(processes), GRACE_S))
        for process in processes:
            if child := _children.pop(process.pid, None):
                child.wait()
        note.unlink()
    (Path(handle["folder"]) / "scheduler.json").unlink(missing_ok=True)


def start_scheduler(
    folder: Path, host: str, options: Sequence[str], *, timeout_s: float = 60.0
) -> str:
    """Start a scheduler on a free port and return its address."""
    file = folder / "scheduler.json"
    run_dask(
        folder,
        "scheduler",
        f"--host={host}",
        "--port=0",
        "--dashboard-address=127.0.0.1:0",
        f"--scheduler-file={file}",
        *options,
    )
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return str(json.loads(file.read_text())["address"])
        except (FileNotFoundError, ValueError, KeyError):
            if time.monotonic() > deadline:
                raise ClusterLost(
                    f"the Dask scheduler did not come up within {timeout_s:g} s; its log is "
                    f"{folder / 'scheduler.log'}"
                ) from None
            time.sleep(0.1)


def run_dask(folder: Path, part: str, *arguments: str) -> None:
    """Start a part of Dask in a session of its own, and note it for `stop` before it is used."""
    process = start_process(
        (sys.executable, "-P", "-m", "dask", part, *arguments),
        environment=os.environ | WORKER_ENVIRONMENT,
        folder=folder,
        log=folder / f"{part}.log",
    )
    _children[process.pid] = process
    note = folder / PROCESSES
    known = json.loads(note.read_text()) if note.exists() else []
    note.write_text(json.dumps([*known, identify(process.pid).model_dump()]))


def wait_for_workers(
    address: str, workers: int, timeout_s: float, *, folder: Path, security: Any = None
) -> None:
    """Return when a cluster has its workers.

    :raises ClusterLost: if they do not come in time
    """
    from distributed import Client

    try:
        with Client(address, timeout=30, set_as_default=False, security=security) as client:
            client.wait_for_workers(workers, timeout=timeout_s)
    except (OSError, TimeoutError) as error:
        raise ClusterLost(
            f"{address} did not have {workers} workers within {timeout_s:g} s ({error}); logs are "
            f"in {folder}"
        ) from error
