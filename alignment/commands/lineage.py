"""From a voxel to everything that made it, and from a section to everything that it touches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from rich.table import Table

from alignment.commands.console import out, print_json
from alignment.commands.summary import shown
from alignment.errors import DataError
from alignment.runs import Run, definition, load
from alignment.stages.order import ORDER
from alignment.stages.runner import noted_phases
from alignment.stages.units import Ref, Section
from storage.commit import manifest
from storage.commit.manifest import Line
from storage.grid import Box, tile
from storage.journal import Journal, digest_of
from storage.publish import versions
from storage.volume import open_array, write_unit

Name = tuple[str, str, str]
"""Stage, phase and label of a unit."""


@dataclass(frozen=True)
class Lineage:
    """What one shard of the aligned volume was made from."""

    run: str
    epochs: tuple[int, ...]
    """Versions of the volume in which readers see it."""
    unit: Name
    objects: dict[str, str]
    """blake3 of what the unit wrote, by path."""
    sections: tuple[dict[str, Any], ...]
    """``z``, ``name`` and ``fingerprint`` of every section of the source that had a part in it."""
    settings: dict[str, Any]
    code: dict[str, str]
    """Digest of the code of each stage that had a part in it."""
    libraries: dict[str, str]
    models: tuple[str, ...]
    """What else is read that is not of the run: models and engines."""
    units: dict[str, int]
    """How many units of each stage had a part in it."""
    kept_from: str
    """The run from which fields were kept, if some of them were."""


class Graph:
    """The units of a finished run and what each of them read.

    Takes a call for every unit, and of the store one read a stage.
    """

    def __init__(self, run_uri: str) -> None:
        self.run = load(run_uri)
        self.lines: dict[Name, Line] = {
            (stage, line.phase, line.unit): line
            for stage in manifest.sealed_stages(run_uri)
            for line in manifest.read_lines(run_uri, stage)
            if line.unit
        }
        self._inputs: dict[Name, Callable[[], Iterable[Ref | str]]] = {}
        for stage in (stage for stage in ORDER[:-1] if stage in manifest.sealed_stages(run_uri)):
            for phase in noted_phases(stage, self.run, Journal()):
                for unit in () if phase.always else phase.units:
                    name = (stage, phase.name, unit.label)
                    self._inputs[name] = partial(phase.inputs, unit, run_uri=run_uri)

    def reads(self, name: Name) -> list[Ref | str]:
        """Return what a unit read: results of other units, and facts."""
        return list(self._inputs[name]())

    def behind(self, name: Name) -> tuple[set[Name], set[str]]:
        """Return all units that had a part in a unit, itself too, and the facts that they read."""
        seen, facts, waiting = {name}, set(), [name]
        while waiting:
            for item in self.reads(waiting.pop()):
                if isinstance(item, str):
                    facts.add(item)
                elif item[:3] not in seen:
                    seen.add(item[:3])
                    waiting.append(item[:3])
        return seen, facts

    def beyond(self, name: Name) -> set[Name]:
        """Return all units in which a unit had a part."""
        readers: dict[Name, list[Name]] = defaultdict(list)
        for reader in self._inputs:
            for item in self.reads(reader):
                if isinstance(item, Ref):
                    readers[item[:3]].append(reader)
        seen, waiting = set(), [name]
        while waiting:
            for reader in readers[waiting.pop()]:
                if reader not in seen:
                    seen.add(reader)
                    waiting.append(reader)
        return seen


def lineage_of(run_uri: str, point: tuple[int, float, float]) -> Lineage:
    """Return what made the shard that holds a point of the aligned volume.

    Parameters
    ----------
    point : (z, y, x)
        Px at mip 0.

    Raises
    ------
    DataError
        If the volume does not hold the point.
    MissingError
        If the run is not finished.
    """
    graph = Graph(run_uri)
    name = ("render", "shards", _shard_at(graph.run, point).label)
    names, facts = graph.behind(name)
    frozen = definition(run_uri)
    stages = [stage for stage in ORDER if any(other[0] == stage for other in names)]
    parts = {"volume", *stages} & frozen["config"].keys()
    keeps = any(other[:2] == ("relax", "kept") for other in names)
    return Lineage(
        run=graph.run.key,
        epochs=tuple(v.epoch for v in versions(graph.run.volume_uri) if v.run == graph.run.key),
        unit=name,
        objects={stored.path: stored.blake3 for stored in graph.lines[name].objects},
        sections=tuple(_sections(graph.run, frozen, names)),
        settings={part: frozen["config"][part] for part in sorted(parts)},
        code={stage: frozen["stages"][stage] for stage in stages},
        libraries=frozen["provenance"]["libraries"],
        models=tuple(sorted(fact for fact in facts if fact.startswith(("engine", "model")))),
        units={stage: sum(other[0] == stage for other in names) for stage in stages},
        kept_from=graph.run.base.run if keeps and graph.run.base else "",
    )


def touched_by(run_uri: str, z: int) -> dict[str, list[str]]:
    """Return the units, ``phase/unit`` by stage, in which section z of the source had a part.

    Raises
    ------
    DataError
        If there is no such section.
    """
    graph = Graph(run_uri)
    if not 0 <= z < graph.run.shape[0]:
        raise DataError(f"section {z} does not exist; the run has 0 ... {graph.run.shape[0] - 1}")
    found = graph.beyond(("ingest", "sections", Section(z).label))
    return {
        stage: sorted(f"{phase}/{unit}" for s, phase, unit in found if s == stage)
        for stage in ORDER
        if any(name[0] == stage for name in found)
    }


def _shard_at(run: Run, point: tuple[int, float, float]) -> Box:
    finest = open_array(run.uri, "aligned/0")
    z, y, x = point
    for box in tile(finest.shape, write_unit(finest), mip=0):
        if all(a <= round(p) < b for a, p, b in zip(box.start, (z, y, x), box.stop, strict=True)):
            return box
    raise DataError(
        f"the aligned volume of {run.uri} does not hold (z {z}, y {y:g}, x {x:g}); its shape is "
        f"{tuple(finest.shape)}, px at mip 0"
    )


def _sections(
    run: Run, frozen: Mapping[str, Any], names: Iterable[Name]
) -> Iterable[dict[str, Any]]:
    ingested = {unit for stage, _, unit in names if stage == "ingest"}
    for z, fingerprint in enumerate(frozen["source"]["sections"]):
        if Section(z).label in ingested:
            yield {"z": z, "name": run.section_names[z], "fingerprint": fingerprint}


def print_lineage(found: Lineage, *, as_json: bool) -> None:
    """Print what made a shard."""
    if as_json:
        print_json(asdict(found))
        return
    stage, phase, unit = found.unit
    epochs = ", ".join(map(str, found.epochs)) or "none yet"
    out.print(f"[bold]{stage}/{phase}/{unit}[/] of run {found.run} (published as epoch: {epochs})")
    for path, digest in found.objects.items():
        out.print(f"  {path}  blake3 {digest[:16]}", markup=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "units", "code", "settings"):
        table.add_column(heading, justify="right" if heading == "units" else "left")
    for name, count in found.units.items():
        settings = found.settings.get(name)
        table.add_row(name, str(count), found.code[name], f"{len(settings)}" if settings else "")
    out.print(table)
    names = ", ".join(f"{s['name']} (z {s['z']})" for s in found.sections)
    out.print(f"from {len(found.sections)} sections: {names}", markup=False)
    if found.kept_from:
        out.print(f"fields of sections far from any change were kept from run {found.kept_from}")
    for model in found.models:
        kind, _, text = model.partition(" ")
        said = f"model of confidence {digest_of(text.encode())[:16]}" if kind == "model" else model
        out.print(f"with {said}", markup=False)
    out.print("--json shows settings, versions of libraries and fingerprints")


def print_touched(run_uri: str, z: int, found: Mapping[str, list[str]], *, as_json: bool) -> None:
    """Print what a section had a part in."""
    if as_json:
        print_json({"run": run_uri, "z": z, "units": found})
        return
    out.print(f"section {load(run_uri).section_names[z]} (z {z}) of {shown(run_uri)} has a part in")
    for stage, units in found.items():
        shorter = ", ".join(units[:4]) + (", ..." if len(units) > 4 else "")
        out.print(f"  {stage:9} {len(units):6,} units  {shorter}", markup=False, highlight=False)
