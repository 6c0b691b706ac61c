"""Hold plans against runs: ``python -m tests.benchmarks.plan.table``.

``--write`` puts the tables into docs/scale.md; ``--folder`` keeps the runs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from alignment.commands.plan import size
from alignment.planning.forecast import plan_source
from alignment.planning.outcome import seen
from alignment.planning.plans import Plan
from alignment.planning.prices import read_prices
from alignment.planning.rates import shipped_rates
from alignment.runs import Run
from alignment.stages import ORDER
from tests.benchmarks.machine import machine
from tests.benchmarks.plan.measure import Actual, actual, align, totals
from tests.benchmarks.plan.stacks import TRIALS
from tests.pages import write_table

OUTSIDE = 3
"""Objects of a volume that lie outside of the run: the pointer and what goes with it."""


@dataclass(frozen=True)
class Trial:
    """A plan and the run that it foretold."""

    name: str
    plan: Plan
    stages: dict[str, Actual]
    objects: int
    bytes: int
    known: int
    """Objects of a plan that knows the share of the blocks that were matched again."""


def main() -> None:
    """Plan, align, and print or write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        trials = [_trial(case.name, align(case, folder)) for case in TRIALS]
    text = f"{machine('numpy', 'zarr')}\n\n{sums(trials)}\n\n{by_stage(trials)}"
    print(text)
    if arguments.write:
        write_table("scale.md", "plan-trials", text)


def _trial(name: str, run: Run) -> Trial:
    plan, _ = plan_source(run.source_uri, run.config, rates=shipped_rates(), prices=read_prices())
    again = replace(shipped_rates(), retried=seen(run).guess.retried)
    known, _ = plan_source(run.source_uri, run.config, rates=again, prices=read_prices())
    return Trial(name, plan, actual(run), *totals(run), known.objects)


def sums(trials: list[Trial]) -> str:
    """Return the table of whole runs."""
    lines = [
        "| stack | | planned | came | ratio | target | |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for trial in trials:
        for what, planned, came, show, most in _figures(trial):
            ratio = came / planned
            met = "met" if abs(ratio - 1) <= most else "missed"
            lines.append(
                f"| {trial.name} | {what} | {show(planned)} | {show(came)} | {ratio:.2f} "
                f"| {most:.0%} | {met} |"
            )
    return "\n".join(lines)


def _figures(
    trial: Trial,
) -> list[tuple[str, float, float, Callable[[float], str], float]]:
    """Return name, plan, what came, how it is written, and the most that they may differ by."""
    return [
        ("objects", trial.plan.objects - OUTSIDE, trial.objects, "{:,.0f}".format, 0.05),
        (
            "objects, the matches that are done again known",
            trial.known - OUTSIDE,
            trial.objects,
            "{:,.0f}".format,
            0.05,
        ),
        ("bytes", trial.plan.bytes_written, trial.bytes, size, 0.05),
        (
            "memory of a worker",
            trial.plan.peak_bytes_per_worker,
            max(stage.peak_bytes for stage in trial.stages.values()),
            size,
            0.2,
        ),
        (
            "core-seconds",
            trial.plan.core_s,
            sum(stage.busy_s for stage in trial.stages.values()),
            "{:,.0f}".format,
            0.5,
        ),
    ]


def by_stage(trials: list[Trial]) -> str:
    """Return the table of stages: what came over what was planned."""
    names = " | ".join(f"{trial.name}: objects | memory | core-s" for trial in trials)
    lines = [
        "What came over what was planned, stage by stage:",
        "",
        f"| stage | {names} |",
        "|---|" + "--:|" * 3 * len(trials),
    ]
    for stage in ORDER:
        cells = []
        for trial in trials:
            planned = next(each for each in trial.plan.stages if each.stage == stage)
            came = trial.stages[stage]
            cells += [
                _ratio(came.data_objects, planned.data_objects),
                _ratio(came.peak_bytes, planned.peak_bytes),
                _ratio(came.busy_s, planned.core_s),
            ]
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ratio(came: float, planned: float) -> str:
    return f"{came / planned:.2f}" if planned and came else ""


if __name__ == "__main__":
    main()
