"""One fault at each storage operation of a run, as SQLite's authors do it; then compare.

A trial runs a workload in a child process with one fault at its n-th operation, starts it again
without the fault if it failed or was killed, and compares every object with a run to which nothing
happened.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from numpy.typing import NDArray

from storage import store
from storage.durable import etag, is_unfinished
from storage.errors import StorageError
from tests.faults import child, server, workload
from tests.faults.fault import ANSWER, Fault, Operation
from tests.faults.proxy import FaultProxy
from tests.faults.verdict import Trial, Verdict, equal_voxels, is_clear

KINDS = (
    "error 500", "reset", "503 thrice", "503 storm", "slow", "hang", "short body", "lying length",
    "lost answer", "flipped answer", "flipped request", "404", "kill before", "kill after",
)  # fmt: skip
BITS = 3
"""Of each body, so many bits are flipped, each in a trial of its own."""

Snapshot = dict[str, Any]


@dataclass(frozen=True)
class Stack:
    """What is swept: ours, or the plain one."""

    name: str
    work: workload.Work
    voxels: Callable[[str], dict[str, NDArray[Any]]]


OURS = Stack("petalign", workload.ours, workload.our_voxels)
PLAIN = Stack("zarr + dask", workload.plain, workload.plain_voxels)


@dataclass(frozen=True)
class Golden:
    """A run to which nothing happened."""

    root: str
    operations: tuple[Operation, ...]
    """Of the run, with keys below its folder."""
    reads: tuple[Operation, ...]
    """Of reading all its arrays."""
    objects: Snapshot
    voxels: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Plan:
    """One trial that is to be made."""

    kind: str
    at: int
    where: str
    seed: int


def applies(kind: str, operation: Operation) -> bool:
    """Return whether a kind of fault can happen to an operation."""
    if kind in ANSWER:
        return operation.method in ("GET", "LIST")
    if kind == "flipped request":
        return operation.method == "PUT"
    if kind == "404":
        return operation.method in ("GET", "HEAD")
    return True


def plan(operations: Sequence[Operation], kinds: Sequence[str] = KINDS) -> list[Plan]:
    """Return every trial that makes sense, in order of the operations."""
    return [
        Plan(kind, at, f"{operation.method} {operation.key}", 1000 * at + seed)
        for at, operation in enumerate(operations, 1)
        for kind in kinds
        if applies(kind, operation)
        for seed in range(BITS if kind.startswith("flipped") else 1)
    ]


def sample(plans: Sequence[Plan], n: int, seed: int) -> list[Plan]:
    """Return `n` of the trials, of every kind about as many."""
    shuffled = list(plans)
    random.Random(seed).shuffle(shuffled)
    by_kind: dict[str, list[Plan]] = {}
    for each in shuffled:
        by_kind.setdefault(each.kind, []).append(each)
    rounds = (found[i] for i in range(len(plans)) for found in by_kind.values() if i < len(found))
    return [next(rounds) for _ in range(min(n, len(plans)))]


def golden(stack: Stack, source: str, proxy: FaultProxy) -> Golden:
    """Run a workload without faults and note its operations."""
    root = server.new_root()
    proxy.install(None)
    ended = child.start(
        stack.work, source, root, environment=server.settings(proxy.endpoint)
    ).wait()
    if not ended.success:
        raise RuntimeError(f"{stack.name} fails without any fault:\n{ended.error}")
    operations = _below(root, proxy.operations)
    proxy.install(None)
    with server.pointed_to(proxy.endpoint):
        voxels = stack.voxels(root)
    return Golden(root, operations, _below(root, proxy.operations), snapshot(root), voxels)


def _below(root: str, operations: Sequence[Operation]) -> tuple[Operation, ...]:
    prefix = root.removeprefix(f"s3://{server.BUCKET}/")
    return tuple(Operation(o.method, o.key.removeprefix(prefix).strip("/")) for o in operations)


def snapshot(root: str) -> Snapshot:
    """Return tag and size of every object that never changes, by its path below `root`.

    Progress is left out; ``run.json`` states where the volume is, which is taken out of it.
    """
    found: Snapshot = {}
    on_disk = root.startswith("file:")  # where tags are times
    for key, size, tag in store.walk(root):
        if is_unfinished(key.rpartition("/")[2]):
            continue  # left by a process that was killed; nobody reads it
        if key.endswith("run.json"):
            found[key] = json.loads(store.read_bytes(store.join(root, key)))
            found[key].pop("volume_uri")
        elif "/state/" not in key:
            found[key] = (size, etag(store.read_bytes(store.join(root, key))) if on_disk else tag)
    return found


def differences(found: Snapshot, wanted: Snapshot) -> str:
    """Return the names of the objects that differ, are missing, or are too many."""
    return ", ".join(sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k)))


def sweep(
    stack: Stack, plans: Sequence[Plan], source: str, good: Golden, proxies: Sequence[FaultProxy]
) -> list[Trial]:
    """Make the trials, as many at a time as there are proxies."""
    free: SimpleQueue[FaultProxy] = SimpleQueue()
    for proxy in proxies:
        free.put(proxy)

    def one(each: Plan) -> Trial:
        proxy = free.get()
        try:
            return trial(stack, each, source, good, proxy)
        finally:
            proxy.install(None)
            free.put(proxy)

    with ThreadPoolExecutor(len(proxies)) as pool:
        return list(pool.map(one, plans))


def trial(stack: Stack, each: Plan, source: str, good: Golden, proxy: FaultProxy) -> Trial:
    """Make one fault happen to a run, and judge what comes of it."""
    root = server.new_root()
    victim: list[child.Child] = []
    fault = Fault(
        each.kind,
        at=each.at,
        seed=each.seed,
        kill=lambda: victim[0].process.kill(),
    )
    start = time.monotonic()
    environment = server.settings(proxy.endpoint)
    proxy.install(fault)
    victim.append(child.start(stack.work, source, root, environment=environment))
    ended = victim[0].wait()
    proxy.install(None)
    judge = partial(_judge, stack, root, good)
    message = ended.error
    if ended.hung:
        verdict: Verdict = "stuck"
    elif ended.success:
        verdict, message = judge("correct", message)
    else:
        again = child.start(stack.work, source, root, environment=environment).wait()
        if not again.success:
            verdict, message = "stuck", again.error or "killed"
        elif ended.killed:
            verdict, message = judge("resumed", message)
        elif stack is OURS and not is_clear(ended.error, _paths(fault, root)):
            verdict, message = judge("unclear", message)
        else:
            verdict, message = judge("detected", message)
    seconds = time.monotonic() - start
    return Trial(stack.name, each.kind, each.at, each.where, verdict, message, seconds)


def _paths(fault: Fault, root: str) -> set[str]:
    """Return where the fault struck, below `root`."""
    return {operation.key for operation in _below(root, fault.struck)}


def _judge(
    stack: Stack, root: str, good: Golden, otherwise: Verdict, message: str
) -> tuple[Verdict, str]:
    """Return `otherwise` if the run is the golden one, object for object (voxels, if plain)."""
    if stack is OURS:
        differing = differences(snapshot(root), good.objects)
        return ("silent", f"differ: {differing}") if differing else (otherwise, message)
    try:
        voxels = stack.voxels(root)
    except Exception as error:
        return "late", f"{type(error).__name__}: {error}"
    return (otherwise, message) if equal_voxels(voxels, good.voxels) else ("silent", "other voxels")


def sweep_reads(
    stack: Stack, plans: Sequence[Plan], good: Golden, proxy: FaultProxy
) -> list[Trial]:
    """Make the trials while the finished run is read, in this process."""
    trials = []
    with server.pointed_to(proxy.endpoint):
        for each in plans:
            proxy.install(Fault(each.kind, at=each.at, seed=each.seed))
            message = ""
            start = time.monotonic()
            try:
                same = equal_voxels(stack.voxels(good.root), good.voxels)
                verdict: Verdict = "correct" if same else "silent"
            except StorageError as error:
                verdict, message = "detected", f"{type(error).__name__}: {error}"
                if each.where.partition(" ")[2].rpartition("/c/")[0] not in message:
                    verdict = "unclear"  # a chunk's error may name its array
            except Exception as error:
                verdict, message = "detected" if stack is PLAIN else "unclear", repr(error)
            seconds = time.monotonic() - start
            trials.append(
                Trial(stack.name, each.kind, each.at, each.where, verdict, message, seconds)
            )
    proxy.install(None)
    return trials
