"""Processes by pid and time of birth, so that a pid that was used again is never mistaken.

Every service leads its own session. A process group would not do: Airflow gives each task a group
of its own, and those of a killed scheduler would live on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from alignment.config import Config

_PROC = Path("/proc")
_START_TIME = 19
"""The place of a process's start time in ``/proc/PID/stat``, after its name."""


class ProcessId(Config):
    """A process that can be told from a later one with the same pid."""

    pid: int
    birth: str
    """Differs for every process that ever had this pid."""


def identify(pid: int) -> ProcessId:
    """Return the identity of a process; psutil.NoSuchProcess if there is none."""
    return ProcessId(pid=pid, birth=_birth(pid))


def _birth(pid: int) -> str:
    """Return boot and clock tick of a process's start; the wall clock may be set, these not."""
    try:
        boot = _boot()
        # The name comes before it, in parentheses, and may contain spaces and parentheses.
        fields = (_PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
        return f"{boot}:{fields[_START_TIME]}"
    except (FileNotFoundError, ProcessLookupError):
        return repr(psutil.Process(pid).create_time())


def _boot() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def is_alive(process: ProcessId | None) -> bool:
    """Return whether this very process runs; a zombie does not."""
    if process is None:
        return False
    try:
        return _birth(process.pid) == process.birth and not _is_zombie(psutil.Process(process.pid))
    except psutil.NoSuchProcess:
        return False


def start(
    command: Sequence[str], *, environment: Mapping[str, str], folder: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Start `command` as the leader of a new session; what it prints is added to `log`."""
    with log.open("ab") as output:
        output.write(f"\n--- started {time.strftime('%Y-%m-%d %H:%M:%S')} ---\n".encode())
        output.flush()
        return subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def session_of(leader: ProcessId) -> list[psutil.Process]:
    """Return the living processes of the session that `leader` leads or led, and their children.

    A session's number is not given to a new process while a member lives. So if another process
    has it, nothing of ours is left.
    """
    if _is_pid_of_another(leader):
        return []
    found: dict[int, psutil.Process] = {}
    for pid in psutil.pids():
        with suppress(OSError, psutil.NoSuchProcess):
            if os.getsid(pid) == leader.pid:
                member = psutil.Process(pid)
                found[pid] = member
                found.update((child.pid, child) for child in member.children(recursive=True))
    return [process for process in found.values() if not _is_zombie(process)]


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _is_pid_of_another(process: ProcessId) -> bool:
    try:
        return _birth(process.pid) != process.birth
    except psutil.NoSuchProcess:
        # A session may outlive its leader, but nothing outlives a restart of the machine.
        return _PROC.is_dir() and not process.birth.startswith(_boot())


def kill_session(leader: ProcessId, *, patience_s: float = 10.0) -> None:
    """Kill every process of a session, and wait until they are gone."""
    deadline = time.monotonic() + patience_s
    while (members := session_of(leader)) and time.monotonic() < deadline:
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        time.sleep(0.02)


def stop_sessions(leaders: Mapping[ProcessId, float]) -> None:
    """Ask all leaders to end, wait for each as long as its grace (s), then kill what is left."""
    start_s = time.monotonic()
    for leader in leaders:
        if is_alive(leader):
            with suppress(ProcessLookupError):
                os.kill(leader.pid, signal.SIGTERM)
    for leader, grace_s in sorted(leaders.items(), key=lambda item: item[1]):
        while is_alive(leader) and time.monotonic() - start_s < grace_s:
            time.sleep(0.05)
        kill_session(leader)
