"""Take over a unit from an earlier run instead of computing it again.

Equal keys mean equal results (`storage.commit.keys`). The objects are read, checked against their
digests and created in the new run, so runs never share objects: each can be verified, repaired and
deleted by itself.
"""

from __future__ import annotations

from storage import store
from storage.commit import records
from storage.commit.records import Commit
from storage.errors import CorruptError, MissingError
from storage.journal import digest_of


def adopt(
    base_uri: str, run_uri: str, stage: str, phase: str, unit: str, key: str
) -> Commit | None:
    """Copy a unit's objects from a run where it has the same key.

    Parameters
    ----------
    base_uri : str
        The earlier run.

    Returns
    -------
    Commit or None
        The unit's record there; None if it has another key, or its objects are not what they were:
        then it must be computed.

    Raises
    ------
    ConflictError
        If the new run holds another object at one of the places.
    """
    try:
        commit = records.read_commit(base_uri, stage, phase, unit)
        if not key or commit.key != key:
            return None
        for stored in commit.objects:
            data = store.read_bytes(store.join(base_uri, stored.path))
            if digest_of(data) != stored.blake3:
                return None
            store.create_bytes(store.join(run_uri, stored.path), data)
    except (MissingError, CorruptError):
        return None  # damaged, or collected meanwhile
    return commit
