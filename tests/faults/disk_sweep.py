"""One fault at each call to the file system of a run on file://, as `sweep` does in S3."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from storage.uri import local_path
from tests.faults import child, workload
from tests.faults.disk import KINDS, Disk
from tests.faults.sweep import Plan, Snapshot, differences, snapshot
from tests.faults.verdict import Trial, Verdict, is_clear

STACK = "petalign on disk"
_AT_A_TIME = 2
FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Calls fail in front of the disk, so it may be one in memory: 120 fsyncs a run take seconds."""


def work(source: str, root: str, kind: str, at: int) -> list[str]:
    """Do the run on a disk that fails; return the calls."""
    disk = Disk(str(local_path(root)), kind, at)
    disk.install()
    workload.ours(source, root)
    return disk.calls


def golden(source: str, folder: Path) -> tuple[list[str], Snapshot]:
    """Return the calls of a run that nothing happens to, and its objects."""
    root = folder.as_uri()
    ended = child.start(work, source, root, "", 0, environment={}).wait()
    if not ended.success:
        raise RuntimeError(f"the run fails without any fault:\n{ended.error}")
    return ended.value, snapshot(root)


def plan(calls: Sequence[str], kinds: Sequence[str] = KINDS) -> list[Plan]:
    """Return every trial that makes sense, in order of the calls."""
    return [
        Plan(kind, at, call, at)
        for at, call in enumerate(calls, 1)
        for kind in kinds
        if "half written" not in kind or call.startswith("write")
    ]


def sweep(plans: Sequence[Plan], source: str, good: Snapshot) -> list[Trial]:
    """Make the trials."""
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return list(pool.map(partial(trial, source=source, good=good), plans))


def trial(each: Plan, *, source: str, good: Snapshot) -> Trial:
    """Let one call fail, resume on a sound disk, and compare."""
    folder = tempfile.mkdtemp(prefix="petalign-disk-", dir=FOLDER)
    root = Path(folder).as_uri()
    start = time.monotonic()
    ended = child.start(work, source, root, each.kind, each.at, environment={}).wait()
    message = ended.error
    verdict: Verdict = "correct"
    if ended.hung:
        verdict = "stuck"
    elif not ended.success:
        verdict = "resumed" if ended.killed else "detected"
        if not ended.killed and not is_clear(ended.error, [each.where.split()[1]]):
            verdict = "unclear"
        again = child.start(work, source, root, "", 0, environment={}).wait()
        if not again.success:
            verdict, message = "stuck", again.error
    if verdict != "stuck" and (differing := differences(snapshot(root), good)):
        verdict, message = "silent", f"differ: {differing}"
    shutil.rmtree(folder)
    seconds = time.monotonic() - start
    return Trial(STACK, each.kind, each.at, each.where, verdict, message, seconds)
