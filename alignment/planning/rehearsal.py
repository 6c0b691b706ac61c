"""Which units a change of source, settings or code would have computed again, and why.

A rehearsal goes through the stages as a run does, with the same phases, inputs and keys, but does
no unit: a unit that reads something new is *dirty*, and what dirty units make counts as new. So a
run computes no unit that was not planned. It may compute fewer: a unit that is done again and gives
the same bytes as before leaves the keys of those after it alone.

It takes place in a scratch folder, which holds the records that the listing of units reads; of the
earlier run only manifests and these records are read, no voxels, and nothing is written there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignment.changes import Changes, compare
from alignment.planning.assumed import is_read, unplaced, well
from alignment.runs import Run, define, definition, load
from alignment.stages.kept import kept_objects, kept_record
from alignment.stages.order import ORDER
from alignment.stages.runner import noted_phases
from alignment.stages.units import Phase, Ref, Unit
from alignment.stages.work import key_from, parameters_of
from alignment.updates import base_of, changed_code, changed_settings
from storage import store
from storage.commit import manifest, records
from storage.commit.keys import run_key
from storage.commit.manifest import Line
from storage.commit.records import Commit, StoredObject, content_below
from storage.journal import Journal

Verdict = Literal["taken over", "kept", "again", "new"]
Name = tuple[str, str, str]
"""Stage, phase and label of a unit."""

MAX_CAUSES = 4


@dataclass(frozen=True)
class PlannedUnit:
    """What becomes of one unit, and why it is done if it is."""

    stage: str
    phase: str
    unit: str
    verdict: Verdict
    """"kept" units copy what an update holds; "new" ones have no counterpart in the earlier run."""
    causes: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether it is computed."""
        return self.verdict in ("again", "new")


@dataclass(frozen=True)
class Rehearsal:
    """All units of a run that is planned, in order."""

    base_uri: str
    changes: Changes
    units: tuple[PlannedUnit, ...]

    def done(self) -> frozenset[Name]:
        """Return the units that are computed."""
        return frozenset((u.stage, u.phase, u.unit) for u in self.units if u.is_done)


def rehearse(
    source: str, base_uri: str, config: Mapping[str, Any] | None = None, *, update: bool = True
) -> Rehearsal:
    """Find what a run over `source` would compute, given the finished run `base_uri`.

    Parameters
    ----------
    update : bool
        As of `alignment.runs.prepare`.

    Raises
    ------
    ConfigError, SourceError, UriError, DataError
        As `alignment.runs.prepare`.
    MissingError
        If the earlier run is not finished.
    """
    before, now = definition(base_uri), define(source, config)
    key = base_uri.rpartition("/")[2]
    base = base_of(key, before, now) if update else None
    if base and base.places:
        now["base"] = base.as_dict()
    lines = {
        (stage, line.phase, line.unit): line
        for stage in ORDER[:-1]
        for line in manifest.read_lines(base_uri, stage)
        if line.unit
    }
    with tempfile.TemporaryDirectory(prefix="petalign-rehearsal-") as folder:
        scratch = _Scratch(Path(folder).as_uri(), base_uri, before, now)
        play = _Play(load(scratch.run_uri), scratch, lines, _causes(before, now))
        return Rehearsal(base_uri, compare(key, before, now), tuple(play.units()))


def _causes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Return what to call a difference: by ``code of STAGE``, setting, or ``section z``."""
    found = {f"code {stage}": f"code of {stage}" for stage in changed_code(before, now)}
    for name in changed_settings(before, now):
        part = name.partition(".")[0]
        found[part] = f"{found[part]}, {name}" if part in found else f"setting {name}"
    names = before["section_names"]
    for z, name in enumerate(now["section_names"]):
        found[f"section {z}"] = f"{'changed' if z < len(names) else 'new'} {name}"
    return found


class _Scratch:
    """A volume in a scratch folder, with the earlier run's definition and the new one's."""

    def __init__(
        self, volume_uri: str, base_uri: str, before: Mapping[str, Any], now: Mapping[str, Any]
    ) -> None:
        self._there = base_uri
        self._here = store.join(volume_uri, "runs", base_uri.rpartition("/")[2])
        self.run_uri = store.join(volume_uri, "runs", run_key(now))
        store.create_json(store.join(self._here, "run.json"), before)
        store.create_json(store.join(self.run_uri, "run.json"), now)
        for phase in ("solve", "fields", "kept"):  # what an update keeps is read from these
            for unit in records.recorded(base_uri, "relax", phase):
                self._bring("relax", phase, unit)
        self._bring("coarse", "solve", "all")

    def _bring(self, stage: str, phase: str, unit: str) -> None:
        uris = (records.uri_of(uri, stage, phase, unit) for uri in (self._there, self._here))
        source, target = uris
        store.create_bytes(target, store.read_bytes(source))

    def value(self, stage: str, phase: str, unit: str) -> dict[str, Any]:
        """Return what the earlier run recorded of a unit."""
        return records.read_commit(self._there, stage, phase, unit).value


@dataclass
class _Play:
    """The walk through the stages; `causes` of dirty units, in the order in which they are met."""

    run: Run
    scratch: _Scratch
    lines: Mapping[Name, Line]
    names: Mapping[str, str]
    dirty: dict[Name, tuple[str, ...]] = field(default_factory=dict)
    kept: dict[Name, tuple[StoredObject, ...]] = field(default_factory=dict)
    """What units of the phase "kept" copy from the earlier run."""

    def units(self) -> Iterator[PlannedUnit]:
        """Yield every unit of every stage but those that are always done."""
        for stage in ORDER[:-1]:
            for phase in noted_phases(stage, self.run, Journal()):
                if phase.always:
                    continue
                parameters = parameters_of(self.run, phase.parameters)
                for unit in phase.units:
                    planned = self._judge(stage, phase, unit, parameters)
                    if planned.is_done and not self._gives_the_same(stage, phase):
                        self.dirty[stage, phase.name, unit.label] = planned.causes
                    self._assume(stage, phase, unit, planned)
                    yield planned

    def _judge(
        self, stage: str, phase: Phase, unit: Unit, parameters: dict[str, Any]
    ) -> PlannedUnit:
        name = (stage, phase.name, unit.label)
        if name[:2] == ("relax", "kept"):
            self.kept[name] = tuple(kept_objects(self.run, unit.z))  # type: ignore[attr-defined]
            return PlannedUnit(*name, "kept")
        line = self.lines.get(name)
        inputs = list(phase.inputs(unit, run_uri=self.run.uri))
        read = [ref[:3] for ref in inputs if isinstance(ref, Ref)]
        causes = dict.fromkeys(c for ref in read for c in self.dirty.get(ref, ()))
        if not causes and line is not None:
            digests = [item if isinstance(item, str) else self._content(item) for item in inputs]
            if key_from(stage, phase.name, unit, parameters, digests) == line.key:
                return PlannedUnit(*name, "taken over")
        own = self._own_causes(stage, phase, unit)
        if not (own or causes) and self._gives_the_same(stage, phase):
            own = ["places that are held"]
        told = tuple(dict.fromkeys([*own, *causes]))[:MAX_CAUSES] or ("what it reads",)
        return PlannedUnit(*name, "new" if line is None else "again", told)

    def _gives_the_same(self, stage: str, phase: Phase) -> bool:
        """Return whether a unit is done again for what it was told to hold: all places."""
        holds = self.run.base.places if self.run.base else ()
        return (stage, phase.name) == ("coarse", "solve") and len(holds) == self.run.shape[0]

    def _own_causes(self, stage: str, phase: Phase, unit: Unit) -> list[str]:
        keys = [f"code {stage}", *phase.parameters]
        if stage == "ingest":
            keys.append(f"section {unit.z}")  # type: ignore[attr-defined]
        return [self.names[key] for key in keys if key in self.names]

    def _content(self, ref: Ref) -> str:
        name = ref[:3]
        if name in self.kept:
            commit = Commit("", self.kept[name], kept_record(self.kept[name]))
            return commit.content(ref.below)
        line = self.lines[name]
        return content_below(line.objects, ref.below) if ref.below else line.content

    def _assume(self, stage: str, phase: Phase, unit: Unit, planned: PlannedUnit) -> None:
        """Leave the record that the listing of later units reads."""
        if not is_read(self.run, stage, phase.name):
            return
        if planned.verdict == "new":
            value = well(self.run, stage, phase.name, unit)
        else:
            value = self.scratch.value(stage, phase.name, unit.label)
        is_solve = (stage, phase.name) == ("coarse", "solve")
        if is_solve and planned.is_done and not self._gives_the_same(stage, phase):
            value = unplaced(self.run, value)
        records.record(self.run.uri, stage, phase.name, unit.label, value)
