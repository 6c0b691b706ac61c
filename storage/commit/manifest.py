"""Manifests: a finished stage, summed up once, under a Merkle root.

::

    <run_uri>/manifests/<stage>.jsonl   one line a unit, sorted: key, record's digest, its objects
    <run_uri>/manifests/<stage>.json    the seal: root over the lines, totals, and what readers need
    <run_uri>/manifests/tails/<array>   `storage.commit.tails`

The expected units are computed by the stage, never listed, so a unit that is absent cannot be
mistaken for one that was never planned. The first line names what the stage wrote outside of
units: the metadata of its arrays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from storage import store
from storage.commit import records, tails
from storage.commit.keys import canonical
from storage.commit.merkle import merkle_root
from storage.commit.records import Commit, StoredObject
from storage.commit.tails import Tails
from storage.errors import CorruptError, MissingError
from storage.journal import digest_of

FOLDER = "manifests"


@dataclass(frozen=True)
class Seal:
    """What is stated of a finished stage."""

    stage: str
    root: str
    units: int
    objects: int
    bytes: int
    metadata: dict[str, str]
    """blake3 of each zarr.json that the stage wrote, by path."""
    tails: dict[str, Tails]
    """Of each array of which the stage wrote voxels, by path."""


@dataclass(frozen=True)
class Line:
    """What a manifest says of one unit; phase and unit are empty for the stage's metadata."""

    phase: str
    unit: str
    key: str
    record: str
    """blake3 of the record's bytes."""
    content: str
    """`Commit.content`."""
    objects: tuple[StoredObject, ...]


def seal(
    run_uri: str,
    stage: str,
    phases: Mapping[str, Iterable[str]],
    metadata: Sequence[StoredObject] = (),
) -> Seal:
    """Write the manifest of a stage whose units are all recorded.

    Parameters
    ----------
    phases : mapping
        Names of all units that the stage must have, by phase.
    metadata : sequence of StoredObject
        What the stage wrote outside of units.

    Raises
    ------
    MissingError
        If a unit has no record.
    ConflictError
        If the stage was sealed with other content.
    """
    lines = [Line("", "", "", "", "", tuple(metadata))]
    for phase in sorted(phases):
        units = sorted(phases[phase])
        for unit, commit in records.read_commits(run_uri, stage, phase, units).items():
            lines.append(_line(run_uri, stage, phase, unit, commit))
    texts = [canonical(asdict(line)) for line in lines]
    objects = [stored for line in lines for stored in line.objects]
    sealed = Seal(
        stage,
        merkle_root(texts),
        len(lines) - 1,
        len(objects),
        sum(stored.bytes for stored in objects),
        {o.path: o.blake3 for o in objects if o.path.rpartition("/")[2] == "zarr.json"},
        tails.write(run_uri, objects),
    )
    store.create_bytes(lines_uri(run_uri, stage), b"\n".join(texts) + b"\n")
    store.create_json(seal_uri(run_uri, stage), asdict(sealed))
    return sealed


def _line(run_uri: str, stage: str, phase: str, unit: str, commit: Commit) -> Line:
    document = records.document_of(commit)
    stored = store.canonical_json(records.uri_of(run_uri, stage, phase, unit), document)
    return Line(phase, unit, commit.key, digest_of(stored), commit.content(), commit.objects)


def sealed_stages(run_uri: str) -> set[str]:
    """Return the stages of a run that have a seal; one listing."""
    names = store.list_names(store.join(run_uri, FOLDER))
    return {name.removesuffix(".json") for name in names if name.endswith(".json")}


def read_seal(run_uri: str, stage: str) -> Seal:
    """Return the seal of a stage.

    Raises
    ------
    MissingError
        If the stage is not finished.
    CorruptError
        If it is not a seal.
    """
    uri = seal_uri(run_uri, stage)
    try:
        document = store.read_json(uri)
    except MissingError:
        raise MissingError(
            f"stage {stage!r} of {run_uri} is not finished: {uri} does not exist; resume the run"
        ) from None
    try:
        grids = {
            path: Tails(tuple(t["grid"]), t["blake3"]) for path, t in document["tails"].items()
        }
        return Seal(**{**document, "tails": grids})
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"{uri} is not the seal of a stage: {error}") from None


def read_lines(run_uri: str, stage: str) -> list[Line]:
    """Return the lines of a stage's manifest, after checking them against its seal.

    Raises
    ------
    MissingError
        If the stage is not finished.
    CorruptError
        If the lines do not give the seal's root.
    """
    sealed = read_seal(run_uri, stage)
    uri = lines_uri(run_uri, stage)
    texts = store.read_bytes(uri).splitlines()
    root = merkle_root(texts)
    if root != sealed.root:
        raise CorruptError(
            f"{uri} has the Merkle root {root[:16]}, its seal says {sealed.root[:16]}: one of them "
            "was changed. Mend it with `petalign repair`"
        )
    lines = [_parsed(uri, json.loads(text)) for text in texts]
    stated = (sealed.units, sealed.objects, sealed.bytes, sealed.metadata)
    if sealed.stage != stage or _totals(lines) != stated:
        raise CorruptError(
            f"{seal_uri(run_uri, stage)} does not sum up its lines: it was changed. Mend it with "
            "`petalign repair`"
        )
    return lines


def _totals(lines: Sequence[Line]) -> tuple[int, int, int, dict[str, str]]:
    """Return units, objects, bytes, and the digests of the arrays' metadata."""
    objects = [stored for line in lines for stored in line.objects]
    metadata = {o.path: o.blake3 for o in objects if o.path.rpartition("/")[2] == "zarr.json"}
    return len(lines) - 1, len(objects), sum(stored.bytes for stored in objects), metadata


def check(run_uri: str, stage: str) -> list[Line]:
    """Read everything that sums up a stage; return the lines.

    Raises
    ------
    MissingError, CorruptError
        If a part is not there or does not fit the others.
    """
    lines = read_lines(run_uri, stage)
    for path, stated in read_seal(run_uri, stage).tails.items():
        tails.read(run_uri, path, stated)
    return lines


def uris_of(run_uri: str, stage: str, phases: Mapping[str, Iterable[str]]) -> list[str]:
    """Return all objects that sum up a stage, to be deleted before it is sealed anew."""
    arrays = {
        path
        for phase, units in phases.items()
        for commit in records.read_commits(run_uri, stage, phase, units).values()
        for path in tails.arrays_of(commit.objects)
    }
    placed = [store.join(run_uri, tails.path_of(path)) for path in sorted(arrays)]
    return [lines_uri(run_uri, stage), seal_uri(run_uri, stage), *placed]


def run_root(run_uri: str, stages: Iterable[str] | None = None) -> str:
    """Return the root of a run: over the seals of its stages, sorted by name.

    Parameters
    ----------
    stages : iterable of str, optional
        Those that must be sealed; all that are without it.
    """
    names = sorted(sealed_stages(run_uri) if stages is None else stages)
    return merkle_root(leaf(read_seal(run_uri, name)) for name in names)


def leaf(sealed: Seal) -> bytes:
    """Return what a seal contributes to the root of its run."""
    return canonical(asdict(sealed))


def lines_uri(run_uri: str, stage: str) -> str:
    """Return where the lines of a stage's manifest are."""
    return store.join(run_uri, FOLDER, f"{stage}.jsonl")


def seal_uri(run_uri: str, stage: str) -> str:
    """Return where the seal of a stage is."""
    return store.join(run_uri, FOLDER, f"{stage}.json")


def _parsed(uri: str, document: dict[str, Any]) -> Line:
    try:
        objects = tuple(StoredObject(**o) for o in document.pop("objects"))
        return Line(**document, objects=objects)
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"{uri} is not the manifest of a stage: {error!r}") from None
