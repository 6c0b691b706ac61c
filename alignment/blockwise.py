"""Run a plain function once per block on a Dask cluster; the only module that imports Dask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import dask.config
from distributed import (
    Client,
    KilledWorker,
    LocalCluster,
    as_completed,
    get_worker,
    secede,
    worker_client,
)
from distributed.threadpoolexecutor import thread_state

from alignment.worker_environment import WORKER_ENVIRONMENT

__all__ = [
    "Client",
    "Outcome",
    "driver_client",
    "let_next_begin",
    "local_client",
    "own_host",
    "own_threads",
    "own_worker",
    "run_blocks",
    "run_together",
    "slots",
]

IN_FLIGHT = 2_000
"""Tasks that exist at a time; the scheduler's memory does not grow with the volume."""


@dataclass(frozen=True)
class Outcome[B, T]:
    """What became of one block: its value, or the error that stopped it."""

    block: B
    value: T | None = None
    error: Exception | None = None


def run_blocks[B, T](
    work: Callable[[B], T],
    blocks: Iterable[B],
    client: Client,
    *,
    in_flight: int = IN_FLIGHT,
    resources: Mapping[str, float] | None = None,
    again: Callable[[Outcome[B, T]], B | None] = lambda _: None,
) -> Iterator[Outcome[B, T]]:
    """Yield the outcome of ``work(block)`` for every block, in order of completion.

    `work` must be picklable and safe to repeat: blocks of a lost worker run again. A block that
    fails does not stop the others; what to make of its error is the caller's business. If `again`
    returns a block for an outcome, that one is done next, and the outcome is not yielded. Only
    workers that offer `resources` are used.
    """
    todo = iter(blocks)
    running: dict[Any, B] = {}
    needs = dict(resources) if resources else None

    def submit(n: int) -> list[Any]:
        # Together: each call of the scheduler costs as much as several of its tasks.
        taken = list(islice(todo, n))
        futures = client.map(work, taken, pure=False, resources=needs) if taken else []
        running.update(zip(futures, taken, strict=True))
        return futures

    done = as_completed(submit(in_flight))
    for batch in done.batches():
        ended = [(running.pop(future), future) for future in batch]
        # New work first: the workers go on while the caller looks at what is finished.
        done.update(submit(len(ended)))
        retried = []
        for outcome in _outcomes(ended, client):
            block = again(outcome)
            if block is None:
                yield outcome
            else:
                retried.append(block)
        todo = chain(retried, todo)
        done.update(submit(len(retried)))


def _outcomes[B](ended: Sequence[tuple[B, Any]], client: Client) -> list[Outcome[B, Any]]:
    """Return what became of tasks that have ended, in their order; one request for all values."""
    good = [future for _, future in ended if future.status == "finished"]
    try:
        values = dict(zip(good, client.gather(good), strict=True))
    except Exception:  # a worker died with its values: each task is asked on its own
        values = {}
    return [
        Outcome(block, value=values[future]) if future in values else _outcome(block, future)
        for block, future in ended
    ]


def run_together[B, T](
    work: Callable[[B], T],
    blocks: Sequence[B],
    client: Client,
    *,
    resources: Mapping[str, float] | None = None,
) -> Iterator[Outcome[B, T]]:
    """Yield the outcome of ``work(block)`` for blocks that wait for one another while they run.

    They are handed to Dask at once, so that none of a later group comes before one of these: two
    groups cannot hold each half of the workers for ever. See `slots` for how many fit.
    """
    futures = client.map(
        work, blocks, pure=False, resources=dict(resources or {}), batch_size=len(blocks)
    )
    running = dict(zip(futures, blocks, strict=True))
    for future in as_completed(futures):
        yield _outcome(running.pop(future), future)


def slots(client: Client, resources: Mapping[str, float] | None = None) -> int:
    """Return how many tasks that take `resources` the cluster could run at a time."""
    total = 0
    for worker in client.scheduler_info(n_workers=-1)["workers"].values():
        offered = worker["resources"]
        fits = [int(offered.get(tag, 0) / amount) for tag, amount in (resources or {}).items()]
        total += min([worker["nthreads"], *fits])
    return total


def own_host() -> str:
    """Return the address of this worker's machine as other workers reach it."""
    protocol, _, rest = str(get_worker().address).rpartition("://")
    return "127.0.0.1" if protocol == "inproc" else rest.rpartition(":")[0]


def own_worker() -> str:
    """Return the address of this worker; empty outside of a task."""
    try:
        return str(get_worker().address)
    except ValueError:
        return ""


def let_next_begin() -> None:
    """Let this worker begin its next task while this one goes on; outside of a task do nothing."""
    if own_worker() and thread_state.proceed:  # once it is out, it stays out
        secede()


def own_threads() -> int:
    """Return how many threads this worker was started with."""
    return int(get_worker().state.nthreads)


def _outcome[B](block: B, future: Any) -> Outcome[B, Any]:
    try:
        return Outcome(block, value=future.result())
    except KilledWorker as error:
        error.add_note("its workers died; most often they ran out of memory: give them more")
        return Outcome(block, error=error)
    except Exception as error:  # the caller receives it in the outcome
        return Outcome(block, error=error)


@contextmanager
def driver_client() -> Iterator[Client]:
    """Give the client of the cluster on which this very task runs, and free its slot meanwhile."""
    with worker_client() as client:
        yield client


@contextmanager
def local_client(workers: int, *, memory_limit: str = "auto") -> Iterator[Client]:
    """Start worker processes on this machine, and end them with the block."""
    settings = {
        "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
        # A worker that was killed is given up if its successor is not there in time: by default
        # 15 s, in which a busy machine does not start a process.
        "distributed.deploy.lost-worker-timeout": "10 minutes",
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=memory_limit,
            dashboard_address=":0",
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
