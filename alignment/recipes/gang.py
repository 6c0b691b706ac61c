"""Processes that start together and know one another, for synchronous work.

Each process of a group announces its address in the store and waits until all have. If one is
lost, Dask starts it again; it then finds its own announcement and tells the others that the group
is broken. All end, and the driver starts a new group, which starts from what the program itself
saved in its shared folder.

::

    groups/<experiment>/<task>/<group>/<rank>.json
                                       broken.json
"""

from __future__ import annotations

import json
import logging
import socket
import time
import uuid
from collections.abc import Callable, Sequence

from alignment.blockwise import own_host
from alignment.recipes.errors import GangBroken, GangLost
from storage.errors import ConflictError, StorageError
from storage.store import create_json, exists, join, list_names, read_json, replace_json

log = logging.getLogger(__name__)

POLL_S = 0.2
BROKEN = "broken.json"
WANTED_S = 2.0
"""How often a process that waits for others looks whether it is still wanted."""


def join_group(
    uri: str,
    place: tuple[str, str],
    group: str,
    rank: int,
    world: int,
    check_wanted: Callable[[], None],
) -> list[str]:
    """Announce a process and return the addresses of all, in the order of their ranks.

    Raises
    ------
    GangBroken
        If another process of the group was lost or has failed.
    GangLost
        If this one is a second start.
    """
    folder = join(uri, "groups", *place, group)
    mine = {"address": f"{own_host()}:{_free_port()}", "token": uuid.uuid4().hex}
    try:
        create_json(join(folder, f"{rank:05d}.json"), mine)
    except ConflictError:
        tell_broken(uri, place, group, f"the worker of process {rank} was lost")
        raise GangLost(f"process {rank} was lost with its worker") from None
    looked = time.monotonic()
    while True:
        names = list_names(folder)
        if BROKEN in names:
            check_whole(uri, place, group)
        if len(names) == world:
            return [read_json(join(folder, name))["address"] for name in names]
        if time.monotonic() - looked > WANTED_S:
            check_wanted()
            looked = time.monotonic()
        time.sleep(POLL_S)


def tell_broken(uri: str, place: tuple[str, str], group: str, reason: str) -> None:
    """Tell the others of a group that it cannot go on; nothing for who works alone."""
    if not group:
        return
    try:
        replace_json(join(uri, "groups", *place, group, BROKEN), {"reason": reason[:500]})
    except StorageError as error:
        log.warning("cannot tell that group %s is broken: %s", group, error)


def check_whole(uri: str, place: tuple[str, str], group: str) -> None:
    """Raise GangBroken if a process of the group was lost or has failed."""
    if not group:
        return
    place_of_reason = join(uri, "groups", *place, group, BROKEN)
    try:
        if not exists(place_of_reason):
            return
        reason = read_json(place_of_reason)["reason"]
    except StorageError as error:
        log.warning("cannot read %s: %s", place_of_reason, error)
        return
    raise GangBroken(f"another process of the group has ended: {reason}")


def variables(rank: int, peers: Sequence[str]) -> dict[str, str]:
    """Return the variables by which the processes of a group find one another.

    >>> variables(1, ["10.0.0.1:5001", "10.0.0.2:5001"])["PETALIGN_CHIEF"]
    '10.0.0.1:5001'
    """
    task = {"type": "worker", "index": rank}
    return {
        "PETALIGN_RANK": str(rank),
        "PETALIGN_WORLD": str(len(peers)),
        "PETALIGN_CHIEF": peers[0],
        "PETALIGN_PEERS": ",".join(peers),
        "TF_CONFIG": json.dumps({"cluster": {"worker": list(peers)}, "task": task}),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
