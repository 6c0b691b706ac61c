"""What a run's report says of its cost, against the plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alignment.report_data import Resources, StageCost

UNKNOWN = "\u2013"
FIELDS = ("units", "objects", "stored_bytes", "core_s", "peak_bytes")


def against_plan(
    stages: Sequence[StageCost], shown: Sequence[Callable[[float], str]]
) -> list[tuple[str, list[str]]]:
    """Return name and cells of every stage of which both are known; a cell is value and ratio.

    Parameters
    ----------
    shown : sequence of callable
        Writes each of `FIELDS`.
    """
    return [
        (
            stage.name,
            [
                _cell(name, show, stage.planned, stage.actual)
                for name, show in zip(FIELDS, shown, strict=True)
            ],
        )
        for stage in stages
        if stage.planned and stage.actual and stage.actual.units is not None
    ]


def _cell(name: str, show: Callable[[float], str], planned: Resources, actual: Resources) -> str:
    """Return a value as it came, and how many times the planned one it is.

    >>> _cell("units", "{:,.0f}".format, Resources(units=8), Resources(units=10))
    '10 (1.25)'
    """
    foreseen, found = getattr(planned, name), getattr(actual, name)
    if found is None:
        return UNKNOWN
    return show(found) + (f" ({found / foreseen:.2f})" if foreseen else "")
