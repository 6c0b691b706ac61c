"""One program on a worker: started, watched, ended. It never outlives the worker.

The program is started by a keeper (`keeper`), of which each worker has as many as it runs programs
at a time. A watch function is asked every second whether the program should go on.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from alignment.recipes import keeper
from alignment.recipes.errors import TaskFailed, TaskStopped

POLL_S = 1.0
MAX_LOG_BYTES = 64 * 2**20
"""A program that prints more is ended, before it fills the disk."""

Watch = Callable[[], None]
"""Called every `POLL_S`; raises TaskStopped or another error if the program should end."""

_idle: list[Keeper] = []
_lock = threading.Lock()


@dataclass
class Keeper:
    """The small process through which programs are started."""

    process: subprocess.Popen[bytes] = field(
        default_factory=lambda: subprocess.Popen(
            # -I, -S: it takes nothing from the environment or its folder, and starts in 20 ms.
            [sys.executable, "-I", "-S", str(Path(keeper.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Two answers may come at once: what a buffer holds, `select` does not see.
            bufsize=0,
            env={},
            cwd="/",
            start_new_session=True,
        )
    )

    def send(self, line: str) -> None:
        """Write a line to it."""
        pipe = _open(self.process.stdin)
        try:
            data = line.encode() + b"\n"
            while data:
                data = data[pipe.write(data) :]
        except OSError as error:
            raise TaskFailed(f"the process that starts programs has died ({error})") from None

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """Return its next answer, None if there is none in time."""
        pipe = _open(self.process.stdout)
        ready, _, _ = select.select([pipe], [], [], timeout_s)
        if not ready:
            return None
        line = pipe.readline()
        if not line:
            raise TaskFailed("the process that starts programs has died, and the program with it")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it, and what it runs."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self.process.wait()


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise TaskFailed("the process that starts programs has no pipe")
    return pipe


def run_program(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
    timeout_s: float,
    watch: Watch,
) -> int:
    """Run a program to its end and return its exit status, negative if a signal ended it.

    Raises
    ------
    TaskFailed
        If it cannot be started, runs too long, or prints too much.
    Exception
        What `watch` raised; the program and all that it started are gone by then.
    """
    request = {"argv": [*argv], "env": {**environment}, "cwd": str(folder), "log": str(log)}
    with _lock:
        used = _idle.pop() if _idle else None
    used = used or Keeper()
    try:
        used.send(json.dumps(request))
        started = used.receive(60.0)
        if started is None or "error" in started:
            raise TaskFailed(f"{argv[0]} cannot be started: {(started or {}).get('error')}")
        status = _attend(used, log, time.monotonic() + timeout_s, watch)
    except BaseException:
        used.close()
        raise
    with _lock:
        _idle.append(used)
    return status


def _attend(used: Keeper, log: Path, deadline: float, watch: Watch) -> int:
    while True:
        answer = used.receive(POLL_S)
        if answer is not None:
            return int(answer["status"])
        try:
            watch()
            if time.monotonic() > deadline:
                raise TaskFailed("it ran longer than timeout_s and was ended")
            if log.stat().st_size > MAX_LOG_BYTES:
                raise TaskFailed(f"it printed more than {MAX_LOG_BYTES} bytes and was ended")
        except (TaskFailed, TaskStopped):
            used.send("stop")
            used.receive(keeper.GRACE_S + 30.0)
            raise


def end_idle() -> None:
    """End the keepers that run nothing; for tests and for the end of a process."""
    with _lock:
        while _idle:
            _idle.pop().close()
