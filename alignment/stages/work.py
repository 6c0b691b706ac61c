"""One unit, from its key to its record: the same on every worker and in every attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from alignment.config import ReadBack
from alignment.planning.effort import CLOCK
from alignment.runs import Run, load
from alignment.stages.units import Inputs, Phase, Record, Ref, Unit
from storage import store
from storage.commit import records
from storage.commit.adopt import adopt
from storage.commit.keys import unit_key
from storage.commit.records import StoredObject, objects_of
from storage.errors import CorruptError
from storage.journal import digest_of, journal, mending
from storage.provenance import library_versions, module_code

REUSED = "reused"
"""Told to the driver and not recorded: a unit is the same, computed or taken over."""
BUSY_S, PEAK_BYTES = "busy_s", "peak_bytes"
"""Told to the driver too: what the unit took, which differs from attempt to attempt."""


class _Layout(Protocol):
    @property
    def read_back(self) -> ReadBack: ...


class _Settings(Protocol):
    @property
    def volume(self) -> _Layout: ...


class Driven(Protocol):
    """What is asked of a run, of whatever kind, to do its units."""

    @property
    def uri(self) -> str:
        """Its folder."""

    @property
    def volume_uri(self) -> str:
        """The volume of which it may become the published run."""

    @property
    def key(self) -> str:
        """Digest of all that it froze."""

    @property
    def config(self) -> _Settings:
        """Its settings."""


@dataclass(frozen=True)
class Work:
    """What a worker must know of a phase; travels with every unit, so it is small."""

    stage: str
    phase: str
    run_uri: str
    do: Callable[..., Record]
    inputs: Inputs
    parameters: tuple[str, ...]
    always: bool
    read_back: ReadBack
    base_uri: str = ""
    """An earlier run of the volume, from which units of the same key are taken over."""

    @classmethod
    def of(cls, stage: str, phase: Phase, run: Driven, *, base_uri: str = "") -> Work:
        """Return the work of a phase's units."""
        return cls(
            stage,
            phase.name,
            run.uri,
            phase.work,
            phase.inputs,
            phase.parameters,
            phase.always,
            run.config.volume.read_back,
            base_uri,
        )

    def __call__(self, unit: Unit) -> Record:
        """Do one unit and leave its record, after its objects are in place."""
        with CLOCK.measured() as effort:
            value = self._done(unit)
        return {**value, BUSY_S: effort.busy_s, PEAK_BYTES: effort.peak_bytes}

    def _done(self, unit: Unit) -> Record:
        key = key_of(unit, self)
        adopted = None
        with journal() as noted:
            if self.base_uri and not self.always:
                adopted = adopt(
                    self.base_uri, self.run_uri, self.stage, self.phase, unit.label, key
                )
            value = adopted.value if adopted else self.do(unit, run_uri=self.run_uri)
        # What is made anew each time, such as the report, is nothing that a record vouches for.
        objects = () if self.always else objects_of(noted.written, self.run_uri)
        _read_back(self.run_uri, objects, self.read_back)
        records.record(
            self.run_uri, self.stage, self.phase, unit.label, value, key=key, objects=objects
        )
        return {**value, REUSED: 1} if adopted else value


@dataclass(frozen=True)
class Expected:
    """What a unit left when it was done for the first time."""

    objects: tuple[StoredObject, ...]
    key: str
    record: str
    """blake3 of the record's bytes, if the record too must be written again; else empty."""


def mend(unit: Unit, *, work: Work, expected: Mapping[str, Expected]) -> Record:
    """Do one unit again; only the recorded content may take the place of damaged objects.

    Raises
    ------
    ConflictError
        If it gives other content: its inputs, the code or a library changed.
    CorruptError
        If it does not write all that it wrote.
    """
    before = expected[unit.label]
    digests = {store.join(work.run_uri, stored.path): stored.blake3 for stored in before.objects}
    with mending(digests), journal() as noted:
        value = work.do(unit, run_uri=work.run_uri)
    objects = objects_of(noted.written, work.run_uri)
    lost = sorted({o.path for o in before.objects} - {o.path for o in objects})
    if lost:
        raise CorruptError(
            f"unit {unit.label} of stage {work.stage!r} does not write {lost[0]} any more, and "
            f"{len(lost) - 1} others; the code changed since. Start a new run"
        )
    if before.record:
        uri = records.uri_of(work.run_uri, work.stage, work.phase, unit.label)
        with mending({uri: before.record}):
            records.record(
                work.run_uri,
                work.stage,
                work.phase,
                unit.label,
                value,
                key=before.key,
                objects=objects,
            )
    return value


def key_of(unit: Unit, work: Work) -> str:
    """Return the key of a unit: of the settings, inputs and code that make its result."""
    parameters = parameters_of(load(work.run_uri), work.parameters) if work.parameters else {}
    inputs = _digests(work.run_uri, work.inputs(unit, run_uri=work.run_uri))
    return key_from(work.stage, work.phase, unit, parameters, inputs)


def key_from(
    stage: str, phase: str, unit: Unit, parameters: Mapping[str, Any], inputs: Sequence[str]
) -> str:
    """Return the key of a unit whose settings and digests of inputs are known."""
    return unit_key(
        stage=stage,
        phase=phase,
        unit=unit.label,
        parameters=parameters,
        inputs=inputs,
        code=module_code(f"alignment.stages.{stage}"),
        libraries=library_versions(),
    )


def parameters_of(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """Return the settings on which a phase depends: parts of the configuration, or of the run."""
    parameters = {}
    for name in names:
        settings = getattr(run.config, name, None)
        parameters[name] = (
            getattr(run, name) if settings is None else settings.model_dump(mode="json")
        )
    return parameters


def _digests(run_uri: str, inputs: Iterable[Ref | str]) -> list[str]:
    return [item if isinstance(item, str) else _content(run_uri, item) for item in inputs]


@lru_cache(maxsize=16_384)
def _content(run_uri: str, ref: Ref) -> str:
    commit = records.read_commit(run_uri, ref.stage, ref.phase, ref.unit)
    return commit.content(ref.below)


def _read_back(run_uri: str, objects: Iterable[StoredObject], check: ReadBack) -> None:
    """Look whether the store has what it said it took.

    Raises
    ------
    CorruptError
        If an object has another size, or with "full" another content, than was written.
    """
    for written in objects if check != "none" else ():
        uri = store.join(run_uri, written.path)
        size = store.size(uri)
        found = f"{size} bytes"
        right = size == written.bytes
        if right and check == "full":
            found = digest_of(store.read_bytes(uri))
            right = found == written.blake3
        if not right:
            raise CorruptError(
                f"{uri} was written with {written.bytes} bytes (blake3 {written.blake3[:16]}), but "
                f"the store now holds {found}. Look at the store; then `petalign repair`"
            )
