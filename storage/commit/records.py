"""Records: which units of a run are finished, and exactly which objects each of them wrote.

A record is created after the unit's objects are stored, never before, and only once. It is the
same from whoever computed the unit: it holds no host, no time and no attempt. ::

    <run_uri>/commits/<stage>/<phase>/<unit>.json
    {"key": ..., "objects": [{"path", "bytes", "crc32c", "blake3", "tail"}, ...], "value": {...}}

Imports neither zarr nor Dask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from storage import store
from storage.commit.keys import canonical
from storage.errors import CorruptError
from storage.journal import Entry, digest_of

FOLDER = "commits"
_SUFFIX = ".json"
_WAITING_THREADS = 16
"""Requests in flight: they wait for the store, not for a core."""


@dataclass(frozen=True)
class StoredObject:
    """An object as a record names it."""

    path: str
    """Below the run's folder."""
    bytes: int
    crc32c: str
    blake3: str
    tail: str = ""
    """The last 4 bytes, hex."""


@dataclass(frozen=True)
class Commit:
    """A unit's record."""

    key: str
    """`storage.commit.keys.unit_key`; empty for units that nothing is computed from."""
    objects: tuple[StoredObject, ...]
    value: dict[str, Any]
    """What the stage says of the unit: counts, digests of voxels, findings."""

    def content(self, below: str = "") -> str:
        """Return the digest of what the unit made: what units that read it depend on.

        Parameters
        ----------
        below : str
            Only the objects whose path begins so, and not the value.
        """
        if below:
            return content_below(self.objects, below)
        return digest_of(canonical([[[o.path, o.blake3] for o in self.objects], self.value]))


def content_below(objects: Iterable[StoredObject], below: str) -> str:
    """Return the digest of those objects of a unit whose path begins with `below`."""
    return digest_of(canonical([[o.path, o.blake3] for o in objects if o.path.startswith(below)]))


def objects_of(entries: Iterable[Entry], run_uri: str) -> tuple[StoredObject, ...]:
    """Return the entries of a journal that lie in a run, sorted by path, each once."""
    prefix = store.normalise_uri(run_uri) + "/"
    found = {
        entry.uri.removeprefix(prefix): entry for entry in entries if entry.uri.startswith(prefix)
    }
    return tuple(
        StoredObject(path, entry.bytes, entry.crc32c, entry.blake3, entry.tail)
        for path, entry in sorted(found.items())
    )


def record(
    run_uri: str,
    stage: str,
    phase: str,
    unit: str,
    value: dict[str, Any],
    *,
    key: str = "",
    objects: Sequence[StoredObject] = (),
) -> None:
    """Record that a unit is finished.

    Parameters
    ----------
    unit : str
        Name of the unit, unique in the phase, for example `storage.grid.Box.label`.
    value : dict
        What else is to be known of the unit. Equal from every attempt.
    objects : sequence of StoredObject
        What the unit wrote.

    Raises
    ------
    ConflictError
        If the unit was recorded with another value or other objects: its computation depends on
        more than its inputs, which is a fault in the stage.
    """
    document = document_of(Commit(key, tuple(objects), value))
    store.create_json(uri_of(run_uri, stage, phase, unit), document)


def document_of(commit: Commit) -> dict[str, Any]:
    """Return a commit as it is stored: with a digest of itself, so that a flipped bit shows."""
    document = {
        "key": commit.key,
        "objects": [asdict(o) for o in commit.objects],
        "value": commit.value,
    }
    return {**document, "blake3": digest_of(canonical(document))}


def recorded(run_uri: str, stage: str, phase: str) -> set[str]:
    """Return the units of a phase that are finished; one listing, no reads."""
    names = store.list_names(store.join(run_uri, FOLDER, stage, phase))
    return {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)}


def read_records(
    run_uri: str, stage: str, phase: str, units: Iterable[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Return the values of a phase's records by unit, sorted; all of them, or those of `units`.

    Raises
    ------
    MissingError
        If one of `units` has no record.
    CorruptError
        If a record cannot be understood.
    """
    commits = read_commits(run_uri, stage, phase, units)
    return {unit: commit.value for unit, commit in commits.items()}


def read_commits(
    run_uri: str, stage: str, phase: str, units: Iterable[str] | None = None
) -> dict[str, Commit]:
    """Return the records of a phase by unit, sorted by unit; errors as `read_records`."""
    wanted = sorted(recorded(run_uri, stage, phase) if units is None else units)
    with ThreadPoolExecutor(_WAITING_THREADS) as pool:
        found = pool.map(lambda unit: read_commit(run_uri, stage, phase, unit), wanted)
        return dict(zip(wanted, found, strict=True))


def read_commit(run_uri: str, stage: str, phase: str, unit: str) -> Commit:
    """Return one record; errors as `read_records`."""
    uri = uri_of(run_uri, stage, phase, unit)
    return parse(uri, store.read_json(uri))


def parse(uri: str, document: Any) -> Commit:
    """Return the commit that a JSON document holds.

    Raises
    ------
    CorruptError
        If it holds none.
    """
    try:
        stated = {name: document[name] for name in ("key", "objects", "value")}
        if digest_of(canonical(stated)) != document["blake3"]:
            raise CorruptError(f"{uri} was changed: it does not have the digest that it states")
        objects = tuple(StoredObject(**o) for o in document["objects"])
        return Commit(str(document["key"]), objects, dict(document["value"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{uri} is not the record of a unit: {error!r}") from None


def uri_of(run_uri: str, stage: str, phase: str, unit: str) -> str:
    """Return where the record of a unit is."""
    return store.join(run_uri, FOLDER, stage, phase, unit + _SUFFIX)
