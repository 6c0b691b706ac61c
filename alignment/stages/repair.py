"""Compute again exactly what is damaged, and let only the recorded content in.

A unit is a pure function of its inputs, so its objects can always be had again, as long as source
and code are what they were. Damaged objects are replaced in one step each: readers see the damaged
object or the good one, whole, and a result that differs from the record is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from alignment.blockwise import Client, run_blocks
from alignment.driving.kinds import PREDICTION, kind_of, stages_of
from alignment.runs import load
from alignment.stages.runner import noted_phases
from alignment.stages.work import Driven, Expected, Work, mend
from storage import ledger, store
from storage.commit import manifest, records
from storage.commit.verify import Problem, Report
from storage.errors import CorruptError, MissingError, StorageError
from storage.journal import Journal, mending

Tell = Callable[[str], None]

AT_WORK_S = 120.0
"""A stage whose driver reported within this is under way: what it has not recorded yet stays."""


@dataclass
class Repairs:
    """What became of each problem."""

    units: list[str] = field(default_factory=list)
    """Units that were computed again, as stage/phase/unit."""
    removed: list[str] = field(default_factory=list)
    """Objects that no record named."""
    sealed: list[str] = field(default_factory=list)
    """Stages whose manifest was written again."""
    failed: list[str] = field(default_factory=list)
    """What could not be mended, and why."""


def repair(report: Report, client: Client, *, tell: Tell | None = None) -> Repairs:
    """Mend what `storage.commit.verify` found.

    Parameters
    ----------
    report : Report
        Of the volume, as it is now; ``full=True`` finds what kept its size.
    client : Client
        Of the cluster whose workers compute the damaged units.
    tell : callable, optional
        Called with each thing that was mended, in words.
    """
    done = Repairs()
    say = tell or (lambda _: None)
    for key in report.runs:
        problems = [problem for problem in report.problems if problem.run == key]
        if problems:
            _repair_run(store.join(report.volume_uri, "runs", key), problems, client, done, say)
    done.failed += [str(p) for p in report.problems if not p.run]
    return done


def _repair_run(
    run_uri: str, problems: list[Problem], client: Client, done: Repairs, say: Tell
) -> None:
    lost = [problem for problem in problems if problem.kind == "run"]
    if lost:
        done.failed += [
            f"{lost[0]}; what defines a run cannot be computed: restore run.json from a backup, or "
            "run the same source with the same configuration again"
        ]
        return
    run = _run_at(run_uri)
    for problem in problems:
        if problem.kind == "unexpected":
            _remove(run, problem, done, say)
    for stage in stages_of(run_uri):
        found = [problem for problem in problems if problem.stage == stage]
        if found:
            _repair_stage(run, stage, found, client, done, say)
    if any(problem.kind == "manifest" for problem in problems):
        _seal_again(run, problems, done, say)


def _run_at(run_uri: str) -> Driven:
    """Return the run, of whatever kind."""
    if kind_of(run_uri) == PREDICTION:
        from alignment.predicting import runs  # whose stage imports the stages

        return runs.load(run_uri)
    return load(run_uri)


def _remove(run: Driven, problem: Problem, done: Repairs, say: Tell) -> None:
    """Delete an object that no record names, unless somebody may be about to record it."""
    states = store.list_names(store.join(run.uri, ledger.FOLDER))
    at_work = [
        stage
        for stage in (name.removesuffix(".json") for name in states)
        if ledger.stage_of(stage) in stages_of(run.uri)
        and ledger.read_state(run.uri, stage).status == "running"
        and ledger.silence_s(run.uri, stage) < AT_WORK_S
    ]
    if at_work:
        done.failed.append(f"{problem}; stage {at_work[0]!r} is at work and may record it yet")
        return
    store.delete(store.join(run.uri, problem.path))
    done.removed.append(problem.path)
    say(f"removed {problem.path}, which no record names")


def _repair_stage(
    run: Driven, stage: str, problems: list[Problem], client: Client, done: Repairs, say: Tell
) -> None:
    expected, metadata = _expected(run.uri, stage, problems)
    damaged = {(problem.phase, problem.unit) for problem in problems if problem.unit}
    with mending({store.join(run.uri, path): digest for path, digest in metadata.items()}):
        for phase in noted_phases(stage, run, Journal()):
            units = [unit for unit in phase.units if (phase.name, unit.label) in damaged]
            damaged -= {(phase.name, unit.label) for unit in units}
            work = Work.of(stage, phase, run)
            again = partial(
                mend,
                work=work,
                expected={unit.label: expected[phase.name, unit.label] for unit in units},
            )
            for outcome in run_blocks(again, units, client):
                name = f"{stage}/{phase.name}/{outcome.block.label}"
                if outcome.error is None:
                    done.units.append(name)
                    say(f"computed {name} again")
                else:
                    done.failed.append(f"{name}: {type(outcome.error).__name__}: {outcome.error}")
    done.failed += [f"{stage}/{phase}/{unit}: no such unit" for phase, unit in sorted(damaged)]
    if any(not problem.unit and problem.path in metadata for problem in problems):
        say(f"wrote the metadata of stage {stage!r} again")


def _expected(
    run_uri: str, stage: str, problems: Iterable[Problem]
) -> tuple[dict[tuple[str, str], Expected], dict[str, str]]:
    """Return what the damaged units and the metadata of a stage must be."""
    torn = {(problem.phase, problem.unit) for problem in problems if problem.kind == "record"}
    try:
        lines = manifest.read_lines(run_uri, stage)
    except (MissingError, CorruptError):
        lines = []
    found = {
        (line.phase, line.unit): Expected(
            line.objects, line.key, line.record if (line.phase, line.unit) in torn else ""
        )
        for line in lines
        if line.unit
    }
    for problem in problems:
        place = (problem.phase, problem.unit)
        if not problem.unit or place in found:
            continue
        try:
            commit = records.read_commit(run_uri, stage, *place)
            found[place] = Expected(commit.objects, commit.key, "")
        except StorageError:
            # Nothing vouches for it: the record goes, and the run does the unit when it is resumed.
            store.delete(records.uri_of(run_uri, stage, *place))
            found[place] = Expected((), "", "")
    metadata = {o.path: o.blake3 for line in lines if not line.unit for o in line.objects}
    return found, metadata


def _seal_again(run: Driven, problems: list[Problem], done: Repairs, say: Tell) -> None:
    """Write damaged manifests anew from the records, which the run's root then must confirm."""
    for stage in sorted(_damaged_seals(run.uri)):
        units: dict[str, list[str]] = {}
        noted = Journal()
        for phase in noted_phases(stage, run, noted):
            if not phase.always:
                units[phase.name] = [unit.label for unit in phase.units]
        for uri in manifest.uris_of(run.uri, stage, units):
            store.delete(uri)
        try:
            manifest.seal(run.uri, stage, units, records.objects_of(noted.written, run.uri))
        except StorageError as error:
            done.failed.append(f"manifest of stage {stage!r}: {error}")
            continue
        done.sealed.append(stage)
        say(f"sealed stage {stage!r} again")
    for problem in problems:
        if problem.kind == "manifest" and problem.expected.startswith("the root "):
            root = manifest.run_root(run.uri)
            if not root.startswith(problem.expected.removeprefix("the root ")):
                done.failed.append(f"{problem}; after mending it is {root[:16]}")


def _damaged_seals(run_uri: str) -> set[str]:
    """Return the stages that are done but have no manifest that can be read."""
    damaged = set()
    for stage in (stage for stage in stages_of(run_uri) if stage != "publish"):
        try:
            manifest.check(run_uri, stage)
        except (CorruptError, MissingError):
            if ledger.read_state(run_uri, stage).status == "done":
                damaged.add(stage)
    return damaged
