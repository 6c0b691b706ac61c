"""Delete the runs that no reader can reach any more.

Kept are: the published run, the runs of the last few versions, and every run that somebody worked
on, or that was the published one, within a grace period. Ages are those of objects, by the store's
own clock.

A run is first listed as condemned in the publish pointer, by the same compare-and-swap through
which runs are published, and only then looked at once more and deleted. Whoever wants to work on it
or publish it meanwhile either is seen in that second look or sees the sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

from storage import ledger, store
from storage.errors import ConflictError, MissingError
from storage.publish import (
    VERSIONS,
    change_condemned,
    condemned,
    forget_version,
    read_pointer,
    versions,
)

_IN_FLIGHT = 16
Tell = Callable[[int], None]


@dataclass(frozen=True)
class Collection:
    """What was deleted, or would be."""

    deleted: tuple[str, ...]
    """Keys of runs."""
    kept: dict[str, str]
    """Why each other run is kept, by key."""
    objects: int
    bytes: int


def collect(
    volume_uri: str,
    *,
    keep: int = 3,
    grace_s: float = 7 * 86_400.0,
    dry_run: bool = False,
    tell: Tell | None = None,
) -> Collection:
    """Delete the unreachable runs of a volume; goes on with what an earlier call did not finish.

    Parameters
    ----------
    keep : int
        How many published runs stay, the present one among them; at least 1.
    grace_s : float
        Runs stay for so long after the last work on them, and after they were replaced.
    dry_run : bool
        Only say what would be deleted.
    tell : callable, optional
        Called with the number of deleted objects.

    Raises
    ------
    ValueError
        If `keep` is below 1 or `grace_s` negative.
    """
    if keep < 1 or grace_s < 0:
        raise ValueError(f"keep must be 1 or more and grace_s 0 or more; got {keep} and {grace_s}")
    runs = store.join(volume_uri, "runs")
    # Some servers list the folders of deleted objects for a while.
    every = [key for key in store.list_names(runs) if any(store.walk(store.join(runs, key)))]
    reasons = {key: _reason_to_keep(volume_uri, key, keep, grace_s) for key in every}
    sentenced = condemned(volume_uri)
    doomed = sorted({key for key, reason in reasons.items() if not reason} | set(sentenced))
    kept = {key: reason for key, reason in reasons.items() if reason and key not in doomed}
    objects = size = 0
    deleted = []
    for key in doomed:
        run_uri = store.join(volume_uri, "runs", key)
        found = [(path, n) for path, n, _ in store.walk(run_uri)] if key in every else []
        if not dry_run and not _condemn(volume_uri, key, keep, grace_s, again=key in sentenced):
            kept[key] = "somebody began to work on it or published it"
            continue
        deleted.append(key)
        size += sum(n for _, n in found)
        if dry_run:
            objects += len(found)
            continue
        with ThreadPoolExecutor(_IN_FLIGHT) as pool:
            uris = (store.join(run_uri, path) for path, _ in found)
            for _ in pool.map(store.delete, uris):
                objects += 1
                if tell is not None:
                    tell(objects)
        store.remove_folder(run_uri)
        for version in versions(volume_uri):
            if version.run == key:
                forget_version(volume_uri, version.epoch)
        change_condemned(volume_uri, drop=[key])
    return Collection(tuple(deleted), kept, objects, size)


def _condemn(volume_uri: str, key: str, keep: int, grace_s: float, *, again: bool) -> bool:
    """Put a run on the list, then look again; return whether it may be deleted."""
    if again:
        return True  # nobody could begin to work on it since
    try:
        change_condemned(volume_uri, add=[key])
    except ConflictError:
        return False
    if _reason_to_keep(volume_uri, key, keep, grace_s):
        change_condemned(volume_uri, drop=[key])
        return False
    return True


def _reason_to_keep(volume_uri: str, key: str, keep: int, grace_s: float) -> str:
    """Return why a run is kept, in words; empty if nothing speaks for it."""
    known = versions(volume_uri)
    pointer = read_pointer(volume_uri)
    if pointer is not None and pointer.run == key:
        return "it is published"
    newest_first = list(dict.fromkeys(version.run for version in reversed(known)))
    if key in newest_first[:keep]:
        return f"it is among the last {keep} published runs"
    if any(_age_s(uri) < grace_s for uri in _successors(volume_uri, key)):
        return "it was the published run within the grace period"
    if _is_at_work(volume_uri, key, grace_s):
        return "somebody worked on it within the grace period"
    return ""


def _successors(volume_uri: str, key: str) -> Iterator[str]:
    """Yield the entries of the publications that replaced a run."""
    known = versions(volume_uri)
    for earlier, later in pairwise(known):
        if earlier.run == key:
            yield store.join(volume_uri, VERSIONS, f"{later.epoch:06d}.json")


def _is_at_work(volume_uri: str, key: str, grace_s: float) -> bool:
    run_uri = store.join(volume_uri, "runs", key)
    states = store.join(run_uri, ledger.FOLDER)
    signs = [store.join(states, name) for name in store.list_names(states)]
    return any(_age_s(uri) < grace_s for uri in [store.join(run_uri, "run.json"), *signs])


def _age_s(uri: str) -> float:
    try:
        return store.age_s(uri)
    except MissingError:
        return float("inf")
