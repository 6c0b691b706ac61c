"""The processes of a platform that can be struck, found anew each time: they come and go."""

from __future__ import annotations

from contextlib import suppress

import psutil

from alignment.platform.lifecycle import PlatformInfo
from alignment.platform.processes import is_alive


def processes_of(platform: PlatformInfo, part: str) -> list[psutil.Process]:
    """Return the living processes of a part; a nanny is the process that watches the workers."""
    with suppress(psutil.NoSuchProcess):
        if part == "worker":
            return [p for p in _below(platform, "dask-workers") if _is_worker(p)]
        if part in ("airflow-task", "airflow-task-supervisor"):
            return _tasks(platform, supervisors=part.endswith("supervisor"))
        found = platform.processes().get("dask-workers" if part == "nanny" else part)
        return [psutil.Process(found.pid)] if found is not None and is_alive(found) else []
    return []


def _below(platform: PlatformInfo, service: str) -> list[psutil.Process]:
    found = platform.processes().get(service)
    return psutil.Process(found.pid).children(recursive=True) if found is not None else []


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        words = " ".join(process.cmdline())
        return "dask worker" in words or ("spawn_main" in words and "tracker" not in words)
    return False


def _tasks(platform: PlatformInfo, *, supervisors: bool) -> list[psutil.Process]:
    """Return the processes that run tasks now, or those that watch over them.

    The executor keeps processes that wait for work; one of them has a child while it watches over
    a task, and the child does the task.
    """
    found = platform.processes().get("airflow-scheduler")
    if found is None:
        return []
    watching = [
        process
        for process in psutil.Process(found.pid).children()
        if any("LocalExecutor" in word for word in process.cmdline()) and process.children()
    ]
    return watching if supervisors else [each for w in watching for each in w.children()]
