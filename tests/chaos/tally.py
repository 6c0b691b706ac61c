"""What came of a soak, counted, as a table for docs/reliability.md."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from urllib.parse import urlsplit

from tests.benchmarks.machine import machine
from tests.chaos.counting import Start
from tests.chaos.injuries import Injury
from tests.chaos.judge import Verdict
from tests.chaos.runs import Run
from tests.pages import write_table

UNSEEN = Verdict(False, ("it was not looked at",))


@dataclass(frozen=True)
class Soak:
    """Everything that was noted."""

    seed: int
    seconds: float
    planned: Sequence[Injury]
    missed: int
    """Faults that found nothing to strike."""
    runs: Sequence[Run]
    verdicts: Mapping[str, Verdict]
    starts: Sequence[Start]
    progress: Mapping[str, Sequence[float]]
    acts: Mapping[str, int]
    unfinished: Mapping[str, Verdict] = field(default_factory=dict)
    """What runs that did not end have recorded so far."""

    @property
    def injuries(self) -> list[Injury]:
        """Faults that happened: those of S3 that met no request are left out."""
        return [injury for injury in self.planned if injury.struck]

    @property
    def is_good(self) -> bool:
        """Whether every run ended, and as if nothing had happened."""
        return all(
            run.state == "success" and self.verdicts.get(run.volume, UNSEEN).is_identical
            for run in self.runs
        )


@dataclass(frozen=True)
class Repeat:
    """A unit that was begun once more."""

    start: Start
    after: Injury | None
    """The last fault before, which need not be the cause."""


def repeats(soak: Soak) -> list[Repeat]:
    """Return every start of a unit but its first."""
    seen: set[tuple[str, str]] = set()
    injuries = sorted(soak.injuries, key=lambda injury: injury.at)
    times = [injury.at for injury in injuries]
    found = []
    for start in sorted(soak.starts):
        unit = (start.run_uri, start.unit)
        if unit in seen:
            before = bisect_right(times, start.at)
            found.append(Repeat(start, injuries[before - 1] if before else None))
        seen.add(unit)
    return found


def recovery_s(soak: Soak, injury: Injury) -> float | None:
    """Return how long it took until each run that was under way got further, or ended."""
    ends = {run.volume: run.ended for run in soak.runs if run.ended}
    waits = []
    for volume in injury.volumes:
        times = soak.progress.get(urlsplit(volume).path.lstrip("/"), ())
        place = bisect_left(times, injury.at)
        next_times = [*times[place : place + 1], *([ends[volume]] if volume in ends else [])]
        if next_times:
            waits.append(min(next_times) - injury.at)
    return max(waits) if waits else None


@dataclass(frozen=True)
class Figures:
    """What came of one kind of fault; of all, if the kind is empty."""

    kind: str
    injected: int
    runs: int
    """That were under way when it struck."""
    identical: int
    silent: int
    """Runs said to be done that are not what they should be."""
    again_percent: float
    """Units begun once more after such a fault, of all units."""
    median_s: float
    worst_s: float
    """Until each run that was under way had got further."""


def figures(soak: Soak) -> list[Figures]:
    """Return the figures of each kind that struck, and of all together."""
    again = Counter(r.after.kind for r in repeats(soak) if r.after is not None)
    kinds = sorted({injury.kind for injury in soak.injuries})
    return [
        *(_figures(soak, kind, again[kind]) for kind in kinds),
        _figures(soak, "", sum(again.values())),
    ]


def _figures(soak: Soak, kind: str, again: int) -> Figures:
    injuries = [injury for injury in soak.injuries if not kind or injury.kind == kind]
    concerned = {volume for injury in injuries for volume in injury.volumes}
    if not kind:
        concerned = {run.volume for run in soak.runs}
    ended = {run.volume for run in soak.runs if run.state == "success"}
    verdicts = [soak.verdicts.get(volume, UNSEEN) for volume in sorted(concerned & ended)]
    same = sum(verdict.is_identical for verdict in verdicts)
    waits = [s for injury in injuries if (s := recovery_s(soak, injury)) is not None]
    return Figures(
        kind,
        len(injuries),
        len(concerned),
        same,
        len(verdicts) - same,
        100 * again / max(units_of(soak), 1),
        median(waits) if waits else 0.0,
        max(waits, default=0.0),
    )


def units_of(soak: Soak) -> int:
    """Return how many different units were begun."""
    return len({(start.run_uri, start.unit) for start in soak.starts})


def markdown(soak: Soak) -> str:
    """Return the table, one line a kind of fault, and what was said beside it."""
    lines = [_summary(soak), "", _HEAD, *(_row(each) for each in figures(soak))]
    for run in soak.runs:
        verdict = soak.verdicts.get(run.volume, UNSEEN)
        if run.state != "success":
            so_far = soak.unfinished.get(run.volume, UNSEEN)
            same = "as they should be" if so_far.is_identical else "; ".join(so_far.findings[:5])
            lines.append(f"\n{run.volume} did not end; its {so_far.units} units so far: {same}.")
        elif not verdict.is_identical:
            lines.append(f"\n{run.volume}: {'; '.join(verdict.findings[:5])}")
    return "\n".join(lines)


_HEAD = """\
| fault | injected | runs under way | identical | silent | units begun again | \
recovery, median | worst |
|---|--:|--:|--:|--:|--:|--:|--:|"""


def _row(told: Figures) -> str:
    return (
        f"| {told.kind or '**all**'} | {told.injected} | {told.runs} | {told.identical} | "
        f"{told.silent} | {told.again_percent:.1f} % | {told.median_s:.1f} s | "
        f"{told.worst_s:.0f} s |"
    )


def _summary(soak: Soak) -> str:
    reds = [red for run in soak.runs for red in run.reds]
    done = [run for run in soak.runs if run.state == "success"]
    asked = ", ".join(f"{what} {n} times" for what, n in sorted(soak.acts.items())) or "never"
    every_s = soak.seconds / max(len(soak.injuries), 1)
    return (
        f"Seed {soak.seed}, {soak.seconds / 60:.0f} minutes: {len(soak.injuries)} faults, one "
        f"every {every_s:.0f} s ({soak.missed} more found nothing to strike). "
        f"{len(soak.runs)} runs with {units_of(soak)} units; {len(done)} ended. Runs went red, "
        f"and were cleared, {len(reds)} times ({'; '.join(reds) or 'none'}). "
        f"`petalign up` was needed: {asked}. {machine('apache-airflow-core', 'distributed')}"
    )


def write(text: str) -> None:
    """Put the table into the page."""
    write_table("reliability.md", "soak", text)
