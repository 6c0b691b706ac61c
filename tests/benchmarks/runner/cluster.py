"""A Dask scheduler and workers in processes of their own: the memory of each can be told."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from distributed import Client

from alignment.worker_environment import WORKER_ENVIRONMENT

SAMPLE_S = 0.2


@contextmanager
def cluster(workers: int) -> Iterator[tuple[Client, psutil.Process]]:
    """Give a client of so many workers, and the process of their scheduler; end them after."""
    with tempfile.TemporaryDirectory(prefix="petalign-runner-") as name:
        file = str(Path(name) / "scheduler.json")
        scheduler = _start("scheduler", "--host=127.0.0.1", "--port=0", "--dashboard-address=:0",
                           f"--scheduler-file={file}")  # fmt: skip
        worker = _start("worker", f"--scheduler-file={file}", f"--nworkers={workers}",
                        "--nthreads=1", f"--local-directory={name}", "--no-dashboard")  # fmt: skip
        try:
            with Client(scheduler_file=file, timeout=60) as client:
                client.wait_for_workers(workers, timeout=60)
                yield client, psutil.Process(scheduler.pid)
        finally:
            for process in (worker, scheduler):
                process.terminate()
                process.wait(20)


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    command = (sys.executable, "-m", "dask", *arguments)
    environment = os.environ | WORKER_ENVIRONMENT
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


class Peak:
    """The largest resident memory of a process while the block runs, bytes."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before = self.bytes = process.memory_info().rss

    def __enter__(self) -> Peak:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look for the last time."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self.bytes = max(self.bytes, self._process.memory_info().rss)
