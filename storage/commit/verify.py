"""Check that a volume is what its records say, from the pointer down to every byte.

The chain: the pointer (or a version) states a run's root; the root covers the seals of its stages;
a seal covers the manifest's lines; a line covers a unit's record and every object that the unit
wrote. One listing shows what is missing, truncated, or nobody's; `full` also reads and hashes all.

The invariants: I1 each recorded object exists and matches; I3 nothing lies in a run that was not
planned; I4 what is published is complete; I5 epochs increase; I6 no stage is said to be done that
is not. (I2, equal to an undisturbed run, and I7, failures name their unit, are for tests to show.)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Literal

from storage import ledger, store
from storage.commit import manifest, records, tails
from storage.commit.keys import run_key
from storage.commit.manifest import Line
from storage.commit.records import StoredObject
from storage.errors import AccessError, CorruptError, MissingError, StorageError, UnavailableError
from storage.journal import digest_of
from storage.publish import Version, read_pointer, versions

Kind = Literal[
    "missing", "size", "digest", "unexpected", "record", "manifest", "run", "pointer", "epoch"
]
Runs = Literal["published", "all"]
Tell = Callable[[int, int], None]

INFORMATIVE = ("report.html", "qc.json")
"""Objects of a run that are made anew when it is resumed; nothing depends on them."""

_IN_FLIGHT = 8
"""Objects read at a time; each may be 128 MiB."""


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it was recorded."""

    kind: Kind
    path: str
    """Below the run; below the volume for pointer and epoch."""
    expected: str
    found: str
    run: str = ""
    stage: str = ""
    phase: str = ""
    unit: str = ""

    def __str__(self) -> str:
        """Say it in one line."""
        where = "/".join(part for part in (self.stage, self.phase, self.unit) if part)
        of = f" ({where})" if where else ""
        place = f"runs/{self.run}/{self.path}" if self.run else self.path
        return f"{self.kind}: {place}{of}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True)
class Report:
    """What a check looked at and found."""

    volume_uri: str
    runs: tuple[str, ...]
    objects: int
    bytes: int
    full: bool
    problems: tuple[Problem, ...]

    @property
    def is_clean(self) -> bool:
        """Whether everything is as recorded."""
        return not self.problems


def verify_volume(
    volume_uri: str, *, full: bool = False, runs: Runs = "published", tell: Tell | None = None
) -> Report:
    """Check a volume.

    Parameters
    ----------
    full : bool
        Read and hash every byte. Without it, one listing: existence and sizes.
    runs : "published" or "all"
        The runs that are or were published and kept; or every run there is, also unfinished ones,
        which is what is done anyway where nothing was published.
    tell : callable, optional
        Called with (objects checked, objects in all) of the run under way.

    Raises
    ------
    MissingError
        If there is no run at all.
    AccessError, UnavailableError
        If the store does not answer: then nothing is known, which is no finding.
    """
    problems: list[Problem] = []
    published = list(_published(volume_uri, problems))
    roots: dict[str, str] = {}
    for version in published:
        if roots.setdefault(version.run, version.root) != version.root:
            path = f"versions/{version.epoch:06d}.json"
            expected = f"the root {roots[version.run][:16]} of run {version.run}"
            problems.append(Problem("pointer", path, expected, version.root[:16]))
    keys = sorted(roots)
    if runs == "all" or not (keys or problems):
        keys = sorted({*keys, *_run_keys(volume_uri)})
    if not (keys or problems):
        raise MissingError(f"{volume_uri} holds no run; expected <volume>/runs/<key>/run.json")
    objects = size = 0
    for key in keys:
        found = verify_run(
            store.join(volume_uri, "runs", key), full=full, root=roots.get(key), tell=tell
        )
        problems += found.problems
        objects, size = objects + found.objects, size + found.bytes
    return Report(
        store.normalise_uri(volume_uri), tuple(keys), objects, size, full, tuple(problems)
    )


def _run_keys(volume_uri: str) -> Iterator[str]:
    """Yield the runs that hold anything: some servers keep folders that were emptied."""
    for key in store.list_names(store.join(volume_uri, "runs")):
        if next(store.walk(store.join(volume_uri, "runs", key)), None) is not None:
            yield key


def verify_run(
    run_uri: str, *, full: bool = False, root: str | None = None, tell: Tell | None = None
) -> Report:
    """Check one run, finished or not; see `verify_volume`.

    Parameters
    ----------
    root : str, optional
        What the pointer or a version says that the run's root is.
    """
    key = run_uri.rpartition("/")[2]
    problems: list[Problem] = []

    def report(kind: Kind, path: str, expected: str, found: str, line: _Place = _NOWHERE) -> None:
        problems.append(
            Problem(kind, path, expected, found, key, line.stage, line.phase, line.unit)
        )

    _check_definition(run_uri, report)
    listed = {path: size for path, size, _ in store.walk(run_uri)}
    checked: list[tuple[StoredObject, _Place]] = []
    allowed = {"run.json", *INFORMATIVE}
    stages = {path.split("/")[1] for path in listed if path.startswith(f"{records.FOLDER}/")}
    sealed = manifest.sealed_stages(run_uri)
    begun = (stages | _stages_with_state(listed)) - {"publish"}
    whole = set()
    for stage in sorted(stages | sealed):
        try:
            lines = manifest.check(run_uri, stage) if stage in sealed else None
        except (CorruptError, MissingError) as error:
            report("manifest", f"{manifest.FOLDER}/{stage}.jsonl", "its seal", str(error))
            lines = None
        whole |= {stage} if lines is not None else set()
        for place, line_objects, record in _units(run_uri, stage, listed, lines, report):
            checked += [(stored, place) for stored in line_objects]
            if record is not None:
                checked.append((record, place))
            elif place.unit:
                allowed.add(place.record)
        allowed |= {f"{manifest.FOLDER}/{stage}.jsonl", f"{manifest.FOLDER}/{stage}.json"}
        if stage in sealed:
            checked += [(stored, _Place(stage, "", "")) for stored in _tails(run_uri, stage)]
    for stage in _said_to_be_done(run_uri, listed) - sealed:
        state = f"{ledger.FOLDER}/{stage}.json"
        report("manifest", state, f"the seal of stage {stage!r}, which is said to be done", "none")
    if root is not None:
        try:
            found = manifest.run_root(run_uri)
            if found != root:
                report("manifest", manifest.FOLDER, f"the root {root[:16]}", found[:16])
        except (CorruptError, MissingError) as error:
            report("manifest", manifest.FOLDER, f"the root {root[:16]}", str(error))
    for done, (stored, place, problem) in enumerate(_check_all(run_uri, checked, listed, full)):
        if problem is not None:
            kind: Kind = "record" if stored.path == place.record else problem[0]
            kind = "manifest" if stored.path.startswith(f"{tails.FOLDER}/") else kind
            report(kind, stored.path, *problem[1:], place)
        if tell is not None:
            tell(done + 1, len(checked))
    planned = allowed | {stored.path for stored, _ in checked}
    # Metadata and tails are told by manifests alone; where one is not there, they may be its own.
    is_told = not (begun - whole)
    for path in sorted(set(listed) - planned):
        is_metadata = path.endswith("/zarr.json") or path.startswith(f"{tails.FOLDER}/")
        if not path.startswith(f"{ledger.FOLDER}/") and (is_told or not is_metadata):
            report("unexpected", path, "nothing", f"{listed[path]} bytes that no record names")
    total = sum(stored.bytes for stored, _ in checked)
    return Report(run_uri, (key,), len(checked), total, full, tuple(problems))


def check_object(run_uri: str, stored: StoredObject, *, full: bool = True) -> Problem | None:
    """Check one object against what its record says; None if it is as recorded."""
    uri = store.join(run_uri, stored.path)
    try:
        size = store.size(uri)
        found = _compare(run_uri, stored, size, full)
    except MissingError:
        found = ("missing", f"{stored.bytes} bytes", "nothing")
    if found is None:
        return None
    kind, expected, seen = found
    return Problem(kind, stored.path, expected, seen, run_uri.rpartition("/")[2])


@dataclass(frozen=True)
class _Place:
    """Which unit something belongs to."""

    stage: str
    phase: str
    unit: str

    @property
    def record(self) -> str:
        """Path of the unit's record."""
        return f"{records.FOLDER}/{self.stage}/{self.phase}/{self.unit}.json"


_NOWHERE = _Place("", "", "")
_Finding = tuple[Kind, str, str]
_Unit = tuple[_Place, tuple[StoredObject, ...], StoredObject | None]


def _units(
    run_uri: str,
    stage: str,
    listed: dict[str, int],
    lines: list[Line] | None,
    report: Callable[..., None],
) -> Iterator[_Unit]:
    """Yield the units of a stage: by its manifest, and by their records what that does not name.

    The third item is the record itself as an object to check, if the manifest vouches for it.
    """
    told = set()
    for line in lines or ():
        place = _Place(stage, line.phase, line.unit)
        told.add(place.record)
        # The size of a record is not in the manifest: its digest is what counts.
        record = StoredObject(place.record, -1, "", line.record) if line.unit else None
        yield place, line.objects, record
    prefix = f"{records.FOLDER}/{stage}/"
    for path in sorted(listed):
        if not path.startswith(prefix) or path in told:
            continue
        phase, _, name = path.removeprefix(prefix).partition("/")
        place = _Place(stage, phase, name.removesuffix(".json"))
        uri = store.join(run_uri, path)
        try:
            yield place, records.parse(uri, store.read_json(uri)).objects, None
        except CorruptError as error:
            report("record", path, "the record of a unit", str(error), place)
            yield place, (), None


def _said_to_be_done(run_uri: str, listed: dict[str, int]) -> set[str]:
    """Return the stages whose driver reported the end; "publish" is nothing that is sealed."""
    stages = _stages_with_state(listed) - {"publish"}
    return {stage for stage in stages if ledger.read_state(run_uri, stage).status == "done"}


def _stages_with_state(listed: dict[str, int]) -> set[str]:
    names = [path.split("/")[1] for path in listed if path.startswith(f"{ledger.FOLDER}/")]
    return {ledger.stage_of(name.removesuffix(".json")) for name in names} - {ledger.SIGN}


def _tails(run_uri: str, stage: str) -> list[StoredObject]:
    """Return the tails of the arrays of a stage, as objects to check."""
    try:
        found = manifest.read_seal(run_uri, stage).tails
    except StorageError:
        return []  # told already
    return [
        StoredObject(tails.path_of(path), 4 * prod(t.grid), "", t.blake3)
        for path, t in found.items()
    ]


def _check_all(
    run_uri: str,
    checked: list[tuple[StoredObject, _Place]],
    listed: dict[str, int],
    full: bool,
) -> Iterator[tuple[StoredObject, _Place, _Finding | None]]:
    def check(item: tuple[StoredObject, _Place]) -> _Finding | None:
        stored = item[0]
        if stored.path not in listed:
            return (
                "missing",
                "its bytes" if stored.bytes < 0 else f"{stored.bytes} bytes",
                "nothing",
            )
        try:
            return _compare(run_uri, stored, listed[stored.path], full)
        except MissingError:
            return "missing", f"{stored.bytes} bytes", "nothing"

    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        for item, finding in zip(checked, pool.map(check, checked), strict=True):
            yield *item, finding


def _compare(run_uri: str, stored: StoredObject, size: int, full: bool) -> _Finding | None:
    if stored.bytes >= 0 and size != stored.bytes:
        return "size", f"{stored.bytes} bytes", f"{size} bytes"
    if not full:
        return None
    uri = store.join(run_uri, stored.path)
    for _ in range(2):  # what is damaged on its way is no finding
        digest = digest_of(store.read_bytes(uri))
        if digest == stored.blake3:
            return None
    return "digest", f"blake3 {stored.blake3[:16]}", digest[:16]


def _check_definition(run_uri: str, report: Callable[..., None]) -> None:
    """Check that run.json is what the run's key was made of."""
    key = run_uri.rpartition("/")[2]
    try:
        document = store.read_json(store.join(run_uri, "run.json"))
        frozen = {k: v for k, v in document.items() if k not in ("key", "volume_uri")}
        found = run_key(frozen)
    except (MissingError, CorruptError, AttributeError) as error:
        report("run", "run.json", f"the definition of run {key}", str(error))
        return
    if found == key:
        found = document.get("key")
    if found != key:
        report("run", "run.json", f"the definition of run {key}", f"one of run {found}")


def _published(volume_uri: str, problems: list[Problem]) -> Iterator[Version]:
    """Yield the versions of a volume, noting what is wrong with the pointer and the epochs."""
    try:
        pointer = read_pointer(volume_uri)
        known = versions(volume_uri)
    except (AccessError, UnavailableError):
        raise
    except (StorageError, json.JSONDecodeError) as error:
        problems.append(Problem("pointer", "LATEST.json", "a publish pointer", str(error)))
        return
    for earlier, later in pairwise(known):
        if later.epoch <= earlier.epoch:
            path = f"versions/{later.epoch:06d}.json"
            problems.append(
                Problem("epoch", path, f"an epoch after {earlier.epoch}", str(later.epoch))
            )
    if pointer is None and known:
        expected = f"epoch {known[-1].epoch} (run {known[-1].run})"
        problems.append(Problem("pointer", "LATEST.json", expected, "nothing"))
    if pointer is not None and known and known[-1].epoch > pointer.epoch:
        problems.append(
            Problem("epoch", "LATEST.json", f"epoch {known[-1].epoch} or later", str(pointer.epoch))
        )
    yield from known
