"""What a change would have computed again, for a person to read before it is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from alignment.commands.console import out, print_json
from alignment.commands.query import find_run
from alignment.commands.summary import shown
from alignment.planning.rehearsal import PlannedUnit, Rehearsal, rehearse
from alignment.stages.order import ORDER
from storage import ledger

SHOWN_CAUSES = 3


@dataclass(frozen=True)
class StageRerun:
    """One stage: how many units are done, and why."""

    stage: str
    units: int
    done: int
    """Computed: again, or for the first time."""
    kept: int
    """Copied, because an update holds them."""
    seconds: float | None
    """Of worker processes, at the rate of the earlier run; None if that is not known."""
    causes: tuple[str, ...]
    """The commonest first."""


def plan_against(
    source: str, uri: str, config: dict[str, Any], *, update: bool
) -> tuple[Rehearsal, list[StageRerun]]:
    """Return what a run over `source` would compute, given a finished run or a volume's."""
    rehearsal = rehearse(source, find_run(uri), config, update=update)
    return rehearsal, [
        _summed(stage, [u for u in rehearsal.units if u.stage == stage], rehearsal.base_uri)
        for stage in ORDER[:-1]
    ]


def _summed(stage: str, units: list[PlannedUnit], base_uri: str) -> StageRerun:
    done = [unit for unit in units if unit.is_done]
    causes = Counter(cause for unit in done for cause in unit.causes)
    kept = sum(unit.verdict == "kept" for unit in units)
    told = tuple(cause for cause, _ in causes.most_common())
    seconds = _seconds(base_uri, stage, len(done))
    return StageRerun(stage, len(units), len(done), kept, seconds, told)


def _seconds(base_uri: str, stage: str, done: int) -> float | None:
    """Return how long units take by the earlier run's rate, summed over its workers."""
    state = ledger.read_state(base_uri, stage)
    computed = state.blocks_done - state.blocks_reused
    if not done:
        return 0.0
    return round(state.seconds * done / computed, 2) if computed > 0 else None


def print_rerun(rehearsal: Rehearsal, stages: Iterable[StageRerun], *, as_json: bool) -> None:
    """Print the plan; with JSON, every unit too."""
    stages = list(stages)
    if as_json:
        print_json(
            {
                "base": rehearsal.base_uri,
                "changes": rehearsal.changes.as_dict(),
                "stages": [asdict(stage) for stage in stages],
                "units": [asdict(unit) for unit in rehearsal.units],
            }
        )
        return
    out.print(f"against {shown(rehearsal.base_uri)}: {rehearsal.changes.sentence}", markup=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "units", "computed", "kept", "taken over", "about s", "because of"):
        table.add_column(heading, justify="left" if heading in ("stage", "because of") else "right")
    for stage in stages:
        rest = stage.units - stage.done - stage.kept
        about = "?" if stage.seconds is None else f"{stage.seconds:,.1f}"
        more = ", ..." if len(stage.causes) > SHOWN_CAUSES else ""
        why = "; ".join(stage.causes[:SHOWN_CAUSES]) + more
        counts = (stage.units, stage.done, stage.kept, rest)
        table.add_row(stage.stage, *(f"{count:,}" for count in counts), about, why)
    out.print(table)
    done, units = sum(s.done for s in stages), sum(s.units for s in stages)
    seconds = sum(s.seconds or 0.0 for s in stages)
    out.print(
        f"{done:,} of {units:,} units are computed, about {seconds:,.0f} s as in that run; "
        "at most: a unit that gives the same bytes again ends there"
    )
