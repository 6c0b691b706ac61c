"""Runs programs for a worker and never outlives it; a file of its own, standard library only.

A worker that is killed cannot end what it started. So it starts this small process first, which
starts the program, and ends it, with everything that the program started in turn, when the pipe to
the worker breaks. One JSON line each way: a request (argv, env, cwd, log), then ``{"pid": n}``,
then ``{"status": n}``; ``stop`` in between asks the program to end.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from typing import Any

GRACE_S = 3.0
"""Between asking a program to end and killing it."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None)
_buffer = b""


def main() -> None:
    """Serve requests until the pipe breaks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a program starts and leaves behind becomes a child of ours, so none is missed.
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    while line := _read_line():
        _serve(json.loads(line))


def _serve(request: dict[str, Any]) -> None:
    try:
        with open(request["log"], "ab") as log:  # noqa: PTH123  as light as can be
            child = subprocess.Popen(
                request["argv"],
                env=request["env"],
                cwd=request["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_keeper,  # noqa: PLW1509, RUF100  this process has one thread
            )
    except (OSError, ValueError) as error:
        _tell({"error": str(error)})
        return
    _tell({"pid": child.pid})
    goes_on = _wait(child.pid)
    child.returncode = _end(child.pid)
    if not goes_on:
        os._exit(1)
    _tell({"status": child.returncode})


def _die_with_keeper() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _wait(pid: int) -> bool:
    """Return when the program has ended or must end; False if the worker is gone."""
    ended = os.pidfd_open(pid)
    deadline: float | None = None
    try:
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            ready, _, _ = select.select([0, ended], [], [], left)
            if ended in ready:
                return True
            if 0 in ready:
                if not _read_line():
                    return False
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGTERM)
                deadline = deadline or time.monotonic() + GRACE_S
            elif deadline is not None:
                return True
    finally:
        os.close(ended)


def _end(pid: int) -> int:
    """Kill a program and all that it started; return its exit status as `subprocess` gives it."""
    status = _kill(pid)
    while children := _children():  # whatever loses its parent becomes ours, so this ends with none
        for child in children:
            _kill(child)
    return status


def _kill(pid: int) -> int:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _children() -> list[int]:
    me = os.getpid()
    with open(f"/proc/{me}/task/{me}/children") as file:  # noqa: PTH123
        return [int(pid) for pid in file.read().split()]


def _read_line() -> bytes:
    """Return the next line from the worker, empty if there is no worker any more."""
    global _buffer
    while b"\n" not in _buffer:
        data = os.read(0, 65536)
        if not data:
            return b""
        _buffer += data
    line, _, _buffer = _buffer.partition(b"\n")
    return line


def _tell(answer: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):  # the next look at the pipe from the worker tells as well
        os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
