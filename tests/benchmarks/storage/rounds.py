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
    work_bytes: int
    """Of voxels (or of the file) that one turn brings into memory."""
    ways: dict[str, Callable[[], object]]
    before: dict[str, Callable[[], object]] = field(default_factory=dict)
    """What has to happen before a way's turn, untimed."""


@dataclass
class Result:
    """One row of a table."""

    way: str
    mb_per_s: float
    """Median over the rounds."""
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
    base = turns[names[0]]
    results = []
    for name in names:
        pairs = list(zip(base, turns[name], strict=True))
        ratios = [b.wall_s / t.wall_s for b, t in pairs]
        results.append(
            Result(
                name,
                contest.work_bytes / 1e6 / median(t.wall_s for t in turns[name]),
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


def markdown(contest: Contest, results: list[Result]) -> str:
    """Return the results as a table, headed by the contest's title."""
    lines = [
        f"### {contest.title}",
        "",
        f"| way | MB/s | speed relative to *{results[0].way}* | lowest ... highest | by CPU time |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.way} | {r.mb_per_s:.0f} | {r.ratio:.2f} | {r.lowest:.2f} ... {r.highest:.2f} "
        f"| {r.cpu_ratio:.2f} |"
        for r in results
    ]
    return "\n".join(lines) + "\n"
