"""What an update keeps of the run that it updates (`alignment.updates`): places, fields, greys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from alignment.fields import Field
from alignment.runs import Run, load
from alignment.stages import inputs
from alignment.stages.slabreads import relaxed
from alignment.stages.units import Record, Section
from storage import store
from storage.commit import records
from storage.commit.records import StoredObject
from storage.errors import CorruptError
from storage.journal import digest_of
from storage.volume import open_array


@dataclass(frozen=True)
class Before:
    """The coarse stage's answer in the run that is updated."""

    sections: frozenset[int]
    """Those that keep their places."""
    matrices: inputs.Affine
    """(nz, 2, 3) of the new stack; only those of `sections` mean anything."""
    canvas: tuple[int, int]
    seat: tuple[int, int]
    mirrored: dict[int, bool]
    """Of `sections`."""
    rejected: frozenset[tuple[int, int]]


def placed_before(run: Run) -> Before | None:
    """Return the places that a run keeps; None if it is not an update."""
    if run.base is None:
        return None
    ref = inputs.PLACED
    solved = records.read_commit(run.base_uri, ref.stage, ref.phase, ref.unit).value
    earlier = inputs.coarse(run.base_uri)
    matrices = np.tile(np.eye(2, 3), (run.shape[0], 1, 1))
    for z in run.base.places:
        matrices[z] = earlier.matrices[z]
    mirrored = {z: str(z) in solved["mirrored"] for z in run.base.places}
    rejected = frozenset((z, d) for z, d in solved["rejected"])
    return Before(run.base.places, matrices, earlier.canvas, earlier.seat, mirrored, rejected)


def place_facts(run: Run) -> list[str]:
    """Return the places that a run keeps, as inputs."""
    before = placed_before(run)
    if before is None:
        return []
    known = [[z, before.mirrored[z], before.matrices[z].tolist()] for z in sorted(before.sections)]
    return [
        f"kept places {known} on {list(before.canvas)} at {list(before.seat)}, "
        f"rejected {sorted(before.rejected)}"
    ]


def reads_field(unit: Section, *, run_uri: str) -> list[str]:
    """Return the content of what is kept of a section, as an input."""
    return [f"kept {[(o.path, o.blake3) for o in kept_objects(load(run_uri), unit.z)]}"]


def keep_field(unit: Section, *, run_uri: str) -> Record:
    """Copy field, uncertainty and residuals of a section, bit for bit.

    Raises
    ------
    CorruptError
        If an object of the earlier run is not what it was.
    """
    run = load(run_uri)
    copied = kept_objects(run, unit.z)
    for stored in copied:
        data = store.read_bytes(store.join(run.base_uri, stored.path))
        if digest_of(data) != stored.blake3:
            raise CorruptError(
                f"{run.base_uri}/{stored.path} is not what was recorded of it. Mend it with "
                f"`petalign repair {run.base_uri}`, or align the volume anew, not as an update"
            )
        store.create_bytes(store.join(run_uri, stored.path), data)
    return kept_record(copied)


def kept_record(copied: Iterable[StoredObject]) -> Record:
    """Return what copying some objects records."""
    total = sum(stored.bytes for stored in copied)
    return {"bytes_read": total, "bytes_written": total}


def kept_objects(run: Run, z: int) -> list[StoredObject]:
    """Return the objects that relaxation made of section z in the run that is updated."""
    base = load(run.base_uri)
    ref = relaxed(base, z)
    commit = records.read_commit(base.uri, ref.stage, ref.phase, ref.unit)
    folders = ("fields/", "sigma/", "residuals/")
    return [
        stored
        for stored in commit.objects
        if stored.path.startswith(folders) and f"/c/{z}/" in stored.path
    ]


def kept_field(run: Run, z: int) -> Field:
    """Return the field (2, ny, nx) of a section that keeps its own, px at mip 0."""
    return inputs.read_row(open_array(run.base_uri, "fields"), z)
