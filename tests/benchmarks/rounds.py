"""Timing on a machine that others use too: rounds in which every contestant has its turn.

A time by itself means little there, because the machine is slower one minute than the next. Within
a round all contestants run one after the other, in an order that changes from round to round; what
is reported is the median over the rounds of the ratio to the round's baseline. The processor time
of the reading process is steadier than the time on the clock, and is given beside it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple


def _nothing() -> None:
    pass


@dataclass
class Contest:
    """Several ways to do the same work; the first is what the others are compared with."""

    title: str
    work: float
    """What one turn gets done, in `unit`: voxels brought into memory, matches found."""
    ways: dict[str, Callable[[], object]]
    before: dict[str, Callable[[], object]] = field(default_factory=dict)
    """What has to happen before a way's turn, untimed."""
    unit: str = "MB"
    per: float = 1e6
    """Of what `work` counts, one unit."""
    shares: dict[str, float] = field(default_factory=dict)
    """Part of the work that a slow way does in its turn; 1 where nothing is said."""


@dataclass
class Result:
    """One row of a table."""

    way: str
    per_s: float
    """Work done in a second, in the contest's unit; median over the rounds."""
    per_cpu_s: float
    """The same in a second of processor time."""
    ratio: float
    """Speed relative to the baseline, median over the rounds; above 1 is faster."""
    lowest: float
    highest: float
    cpu_ratio: float
    """Processor time of the baseline over this way's, median; above 1 is cheaper."""


class Turn(NamedTuple):
    """What one turn took."""

    wall_s: float
    cpu_s: float


def hold(contest: Contest, rounds: int) -> list[Result]:
    """Time every way once per round, after one turn that is not counted."""
    names = list(contest.ways)
    for name in names:
        _turn(contest, name)
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    for round_ in range(rounds):
        shift = round_ % len(names)
        for name in names[shift:] + names[:shift]:
            turns[name].append(_turn(contest, name))
    return compared(contest, turns)


def compared(contest: Contest, turns: dict[str, list[Turn]]) -> list[Result]:
    """Return what turns come to that were timed anywhere, one of each way in every round."""
    names = list(turns)
    whole = {name: [_for_all(t, contest, name) for t in turns[name]] for name in names}
    base = whole[names[0]]
    results = []
    for name in names:
        pairs = list(zip(base, whole[name], strict=True))
        ratios = [b.wall_s / t.wall_s for b, t in pairs]
        results.append(
            Result(
                name,
                contest.work / contest.per / median(t.wall_s for _, t in pairs),
                contest.work / contest.per / median(max(t.cpu_s, 1e-6) for _, t in pairs),
                median(ratios),
                min(ratios),
                max(ratios),
                median(b.cpu_s / max(t.cpu_s, 1e-6) for b, t in pairs),
            )
        )
    return results


def _turn(contest: Contest, name: str) -> Turn:
    contest.before.get(name, _nothing)()
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    contest.ways[name]()
    return Turn(time.perf_counter() - wall, time.process_time() - cpu)


def _for_all(turn: Turn, contest: Contest, name: str) -> Turn:
    """Return what the turn would have taken for all of the work."""
    share = contest.shares.get(name, 1.0)
    return Turn(turn.wall_s / share, turn.cpu_s / share)


def markdown(contest: Contest, results: list[Result]) -> str:
    """Return the results as a table, headed by the contest's title."""
    lines = [
        f"### {contest.title}",
        "",
        f"| way | {contest.unit}/s | speed relative to *{results[0].way}* | lowest ... highest "
        "| by CPU time |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.way} | {r.per_s:.0f} | {r.ratio:.2f} | {r.lowest:.2f} ... {r.highest:.2f} "
        f"| {r.cpu_ratio:.2f} |"
        for r in results
    ]
    return "\n".join(lines) + "\n"
