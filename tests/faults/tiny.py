"""Runs of a few bytes that follow the commit protocol to the letter, for races and state machines.

A run has one stage, ``render``, with one phase and one shard a section. All voxels of run n at
section z are ``10 * n + z + 1``, so that a reader sees at once which run it looks at.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from storage import store, volume
from storage.commit import manifest, records
from storage.commit.keys import run_key
from storage.commit.records import StoredObject, objects_of
from storage.commit.verify import Problem
from storage.grid import Box
from storage.journal import journal, mending
from storage.volume import Array, open_array

STAGE, PHASE = "render", "blocks"
SECTIONS, SIDE = 3, 8
LABELS = tuple(f"z{z:06d}" for z in range(SECTIONS))


def key_of(n: int) -> str:
    """Return the key of run n."""
    return run_key({"n": n})


def uri_of(volume_uri: str, n: int) -> str:
    """Return where run n is."""
    return store.join(volume_uri, "runs", key_of(n))


def define(volume_uri: str, n: int) -> tuple[StoredObject, ...]:
    """Write what defines run n, and the metadata of its arrays; return the latter."""
    run_uri = uri_of(volume_uri, n)
    document = {"key": key_of(n), "volume_uri": volume_uri, "n": n}
    store.create_json(store.join(run_uri, "run.json"), document)
    with journal() as noted:
        volume.create_image(
            store.join(run_uri, "aligned"), shape=(SECTIONS, SIDE, SIDE),
            chunk=(1, SIDE // 2, SIDE), shard=(1, SIDE, SIDE), resolution_nm=(40.0, 4.0, 4.0),
            mips=1, name="tiny",
        )  # fmt: skip
    return objects_of(noted.written, run_uri)


def voxels(n: int, z: int) -> NDArray[np.uint8]:
    """Return section z of run n."""
    return np.full((1, SIDE, SIDE), 10 * n + z + 1, np.uint8)


def path_of(z: int) -> str:
    """Return where the shard of section z is, below its run."""
    return f"aligned/0/c/{z}/0/0"


def write_unit(volume_uri: str, n: int, z: int) -> tuple[StoredObject, ...]:
    """Write section z; return what there is to record."""
    run_uri = uri_of(volume_uri, n)
    array: Array = open_array(run_uri, "aligned/0")
    with journal() as noted:
        volume.write(array, Box((z, 0, 0), (z + 1, SIDE, SIDE), 0), voxels(n, z))
    return objects_of(noted.written, run_uri)


def record(volume_uri: str, n: int, z: int, objects: tuple[StoredObject, ...]) -> None:
    """Record section z, which is written."""
    records.record(
        uri_of(volume_uri, n), STAGE, PHASE, LABELS[z], {"z": z}, key=f"{n}-{z}", objects=objects
    )


def finish(volume_uri: str, n: int) -> None:
    """Do what is left of run n, and seal it."""
    metadata = define(volume_uri, n)
    done = records.recorded(uri_of(volume_uri, n), STAGE, PHASE)
    for z in range(SECTIONS):
        if LABELS[z] not in done:
            record(volume_uri, n, z, write_unit(volume_uri, n, z))
    manifest.seal(uri_of(volume_uri, n), STAGE, {PHASE: LABELS}, metadata)


def mend(volume_uri: str, n: int, problem: Problem) -> None:
    """Do again what a problem is about; only what is recorded may come of it."""
    run_uri = uri_of(volume_uri, n)
    if problem.unit:
        z = LABELS.index(problem.unit)
        objects = records.read_commit(run_uri, STAGE, PHASE, problem.unit).objects
        with mending({store.join(run_uri, o.path): o.blake3 for o in objects}):
            write_unit(volume_uri, n, z)
    else:
        store.delete(store.join(run_uri, problem.path))
        define(volume_uri, n)
