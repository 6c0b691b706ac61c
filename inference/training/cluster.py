"""Who takes part in a training, and where; known without loading TensorFlow.

Local and mirrored training are one process. Of synchronous training all processes are workers, the
first of which writes. Of asynchronous training a chief deals out work and writes, workers learn,
and servers hold the weights. TensorFlow takes all addresses, and a process's own place among them,
from the variable ``TF_CONFIG``.
"""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from inference.errors import ConfigError
from inference.training.config import Mode

Role = Literal["worker", "ps", "chief"]
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Place:
    """One process of a cluster."""

    role: Role
    index: int

    def __str__(self) -> str:
        """Return its name for people."""
        return "the parameter server" if self.role == "ps" else f"{self.role} {self.index}"


@dataclass(frozen=True)
class Cluster:
    """All processes of a training, and their addresses if they need any."""

    mode: Mode
    workers: int
    """That learn: processes, or the replicas of the one process of mode "mirrored"."""
    addresses: dict[Role, tuple[str, ...]]

    @property
    def places(self) -> tuple[Place, ...]:
        """All processes; the one that writes is the first."""
        if not self.addresses:
            return (Place("worker", 0),)
        roles: tuple[Role, ...] = ("chief", "worker", "ps")
        return tuple(
            Place(role, k) for role in roles for k in range(len(self.addresses.get(role, ())))
        )

    def tf_config(self, place: Place) -> str | None:
        """Return the value of ``TF_CONFIG`` for a process; None if it is on its own.

        >>> Cluster("sync", 1, {"worker": ("a:1",)}).tf_config(Place("worker", 0))
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}'
        """
        if not self.addresses:
            return None
        cluster = {role: list(found) for role, found in self.addresses.items()}
        return json.dumps({"cluster": cluster, "task": {"type": place.role, "index": place.index}})


def check_workers(mode: Mode, workers: int) -> None:
    """Refuse a number of workers that a mode does not have.

    Raises
    ------
    ConfigError
        Naming both.
    """
    if workers < 1:
        raise ConfigError(f"{workers} workers; at least 1 learns")
    if mode == "local" and workers != 1:
        raise ConfigError(
            f"mode=local has 1 worker, not {workers}; choose mirrored, sync or async for more"
        )


def local_cluster(mode: Mode, workers: int) -> Cluster:
    """Return a cluster of processes of this machine, at ports that are free now.

    Raises
    ------
    ConfigError
        If the mode does not have so many workers.
    """
    check_workers(mode, workers)
    if mode == "local":
        return Cluster(mode, 1, {})
    if mode == "mirrored":
        return Cluster(mode, workers, {})
    if mode == "sync":
        return Cluster(mode, workers, {"worker": _free(workers)})
    chief, server, *learning = _free(workers + 2)
    return Cluster(mode, workers, {"chief": (chief,), "worker": tuple(learning), "ps": (server,)})


def joined_cluster(mode: Mode, workers: int, told: str) -> tuple[Cluster, Place]:
    """Return the cluster that others have made, and which of its processes this is.

    Parameters
    ----------
    told : str
        Value of ``TF_CONFIG``.

    Raises
    ------
    ConfigError
        If it does not describe so many workers in step.
    """
    if mode != "sync":
        raise ConfigError(f"processes on several machines learn in step: mode=sync, not {mode}")
    try:
        found = json.loads(told)
        addresses = tuple(map(str, found["cluster"]["worker"]))
        place = Place("worker", int(found["task"]["index"]))
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"TF_CONFIG={told!r:.80} names no workers; a recipe with gang: true sets it"
        ) from None
    if len(addresses) != workers:
        raise ConfigError(
            f"TF_CONFIG has {len(addresses)} workers, and --workers says {workers}; give the same"
        )
    return Cluster(mode, workers, {"worker": addresses}), place


def _free(number: int) -> tuple[str, ...]:
    """Return addresses that nobody listens at; all are held until the last is found."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind((HOST, 0))
        return tuple(f"{HOST}:{each.getsockname()[1]}" for each in sockets)
