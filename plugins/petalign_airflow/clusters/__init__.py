"""Dask clusters that live as long as a DAG run.

By default there is nothing to start: the connection names a cluster that serves all runs. Where
``PETALIGN_CLUSTER`` says "local", "slurm" or "kubernetes", a run starts its own in a setup task and
ends it in a teardown task, whatever happened in between. The extra of the connection says how large
it is, under ``cluster`` (`petalign_airflow.clusters.config`).

`start` is called again when its task is tried again, so it first ends what an attempt before left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

VARIABLE = "PETALIGN_CLUSTER"
KINDS = ("address", "local", "slurm", "kubernetes")

Handle = dict[str, Any]
"""What a teardown in another process must know; "address" among it."""


def kind_of(environment: Mapping[str, str] = os.environ) -> str:
    """Return what kind of cluster runs have.

    It is read when DAG files are parsed, so that a run without a cluster of its own has no tasks
    for one.
    """
    kind = environment.get(VARIABLE) or "address"
    if kind not in KINDS:
        raise ValueError(
            f"{VARIABLE}={kind!r} is no kind of cluster; use one of {', '.join(KINDS)}"
        )
    return kind


def start(kind: str, name: str, extra: Mapping[str, Any]) -> Handle:
    """Start a cluster and wait for its workers; what an earlier attempt left is ended first."""
    handle: Handle = import_module(f"petalign_airflow.clusters.{kind}").start(name, extra)
    return {"kind": kind, **handle}


def stop(handle: Mapping[str, Any]) -> None:
    """End a cluster; one that has ended is no error."""
    import_module(f"petalign_airflow.clusters.{handle['kind']}").stop(handle)


@contextmanager
def run_cluster() -> Iterator[Any]:
    """Give the tasks that are made in the block a cluster: yield what their ``address`` is.

    An empty string where the connection's cluster serves all runs; then no task is added.
    """
    kind = kind_of()
    if kind == "address":
        yield ""
        return
    from airflow.sdk import XComArg

    from petalign_airflow.clusters.operators import StartClusterOperator, StopClusterOperator

    started = StartClusterOperator(task_id="start_cluster", kind=kind)
    stopped = StopClusterOperator(task_id="stop_cluster", handle=started.output)
    started.as_setup()
    with stopped.as_teardown(setups=started):
        yield XComArg(started, key="address")
