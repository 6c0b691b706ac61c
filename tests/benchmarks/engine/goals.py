"""What the engine must reach against its peers, and whether it did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.benchmarks.engine.networks import TWELVE
from tests.benchmarks.engine.results import Race
from tests.benchmarks.rounds import Result


class Goal(NamedTuple):
    """How often a peer's time the engine's must go into it."""

    network: str
    peer: str
    ways: tuple[str, ...]
    """Of the peer; its fastest one counts."""
    least: float
    aim: float | None = None


BEST = ("PyTorch, channels last", "PyTorch, compiled")
GOALS = (
    Goal("A", "OpenVINO, float32", ("OpenVINO, float32",), 2.5, 3.5),
    Goal("A", "TensorFlow", ("TensorFlow",), 2.8, 3.5),
    Goal("A", "PyTorch at its best", BEST, 3.6),
    Goal("A", "PyTorch, eager", ("PyTorch, eager",), 6.0),
    Goal("B", "OpenVINO, float32", ("OpenVINO, float32",), 1.7),
    Goal("C", "OpenVINO, float32", ("OpenVINO, float32",), 2.3),
    *(Goal(key, "OpenVINO, float32", ("OpenVINO, float32",), 1.0) for key in TWELVE),
)


def judged(races: Sequence[Race]) -> str:
    """Return a table of the goals whose networks were raced."""
    lines = [
        "| network | peer | at least | aim | times the engine's s | by CPU-s | |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    found = {race.key: race for race in races}
    for goal in GOALS:
        if goal.network in found:
            race = found[goal.network]
            lines.append(
                f"| {race.title} | {goal.peer} | {goal.least:.1f} | {_verdict(goal, race)} |"
            )
    return "\n".join(lines)


def fastest(ways: Iterable[str], results: dict[str, Result]) -> Result | None:
    """Return the best of some ways, by the clock."""
    return max(
        (results[way] for way in ways if way in results), key=lambda r: r.ratio, default=None
    )


def _verdict(goal: Goal, race: Race) -> str:
    aim = "" if goal.aim is None else f"{goal.aim:.1f}"
    result = fastest(goal.ways, race.results())
    if result is None:
        return f"{aim} | | | not measured"
    times, by_cpu = 1 / result.ratio, 1 / result.cpu_ratio
    said = "missed"
    if times >= goal.least:
        said = "met" if goal.aim is None or times >= goal.aim else "met, below the aim"
    return f"{aim} | {times:.2f} | {by_cpu:.2f} | {said}"
