"""The tables of a study: what each kind of training has come to, and which is lower."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from alignment.learning.study.collect import Curves, Kind
from alignment.learning.study.compare import (
    DICE,
    ERROR,
    HELD_OUT_LOSS,
    LOSS,
    Axis,
    Comparison,
    Measure,
    Spread,
    common_end,
    compare,
    pairs_of_modes,
    pairs_of_workers,
    value_at,
)
from alignment.learning.study.grid import APART

Kinds = Mapping[Kind, Sequence[Curves]]
Cell = Callable[[Sequence[Curves]], str]

PLACES: tuple[Axis, ...] = ("epoch", "samples")
"""Where kinds are compared; seconds depend on the machine, and on what else it does."""
PLURAL = {"epoch": "epochs", "samples": "samples", "seconds": "seconds"}


def end_values(kinds: Kinds, axis: Axis) -> str:
    """Return what all kinds have come to where the first of them ends."""
    end = _end(kinds, DICE, axis)
    other = Measure("changes", "step") if axis == "samples" else Measure("samples", "samples")
    columns: dict[str, Cell] = {
        other.title: lambda some: number(_mean(some, other, axis, end), 0),
        "seconds": lambda some: number(_mean(some, Measure("", "seconds"), axis, end), 0),
        LOSS.title: _spread(kinds, LOSS, axis, 3),
        HELD_OUT_LOSS.title: _spread(kinds, HELD_OUT_LOSS, axis, 3),
        DICE.title: _spread(kinds, DICE, axis, 3),
        f"{ERROR.title}, %": _spread(kinds, ERROR, axis, 2),
    }
    if axis == "epoch":
        columns["staleness"] = _staleness
        return f"**At equal epochs**, after {end:.0f}:\n\n{_table(kinds, columns)}"
    middle = _end(kinds, LOSS, axis)
    return (
        f"**At equal samples**, {end:,.0f}; training losses, which are means of an epoch, at "
        f"{middle:,.0f}, the middle of the shortest last epoch:\n\n{_table(kinds, columns)}"
    )


def _end(kinds: Kinds, measure: Measure, axis: Axis) -> float:
    return common_end([each for some in kinds.values() for each in some], measure, axis)


def _mean(some: Sequence[Curves], measure: Measure, axis: Axis, place: float) -> float:
    return float(np.mean([value_at(each, measure, axis, place) for each in some]))


def _spread(kinds: Kinds, measure: Measure, axis: Axis, digits: int) -> Cell:
    place, factor = _end(kinds, measure, axis), _factor(measure)
    return lambda some: shown(
        Spread.of([factor * value_at(each, measure, axis, place) for each in some]), digits
    )


def _factor(measure: Measure) -> float:
    return 100.0 if measure == ERROR else 1.0


def _staleness(some: Sequence[Curves]) -> str:
    return number(float(np.mean([each.values["staleness"][1:].mean() for each in some])), 2)


def best_epochs(kinds: Kinds) -> str:
    """Return the best epochs, and what their networks do on sections that were kept apart."""
    columns: dict[str, Cell] = {
        "best epoch of each seed": lambda some: ", ".join(
            str(int(each.values[DICE.column].argmax())) for each in some
        ),
        "its held-out Dice": lambda some: shown(
            Spread.of([each.values[DICE.column].max() for each in some]), 3
        ),
        "lowest held-out error, %": lambda some: shown(
            Spread.of([100 * each.values[ERROR.column].min() for each in some]), 2
        ),
    }
    if all(each.done.get(APART) for some in kinds.values() for each in some):
        columns["Dice on sections kept apart"] = _apart("dice", 3, 1.0)
        columns["error there, %"] = _apart("error", 2, 100.0)
        about = "its network is judged once more on sections that no training has seen:"
    else:
        about = (
            "the same samples have chosen it and judge it, which flatters; data.kept_apart sets "
            "others apart:"
        )
    return f"**The best epoch** by held-out Dice; {about}\n\n{_table(kinds, columns)}"


def _apart(name: str, digits: int, factor: float) -> Cell:
    return lambda some: shown(Spread.of([factor * each.done[APART][name] for each in some]), digits)


def _table(kinds: Kinds, columns: Mapping[str, Cell]) -> str:
    names = ["mode", "workers", *columns]
    lines = [_row(names), _row(["---"] * len(names))]
    for (mode, workers), some in kinds.items():
        lines.append(_row([mode, str(workers), *(cell(some) for cell in columns.values())]))
    return "\n".join(lines)


def differences(kinds: Kinds) -> str:
    """Return what was published as differences, each with what the seeds say of it."""
    where = [(measure, axis) for measure in (LOSS, HELD_OUT_LOSS) for axis in PLACES]
    names = ["published", *(f"{measure.title}, equal {PLURAL[axis]}" for measure, axis in where)]
    lines = [_row(names), _row(["---"] * len(names))]
    for pair in [*pairs_of_modes(kinds), *pairs_of_workers(kinds)]:
        found = [compare(kinds, pair, measure, axis) for measure, axis in where]
        lines.append(_row([found[0].name, *map(_difference, found)]))
    about = (
        "**Differences** between two kinds, the first less the second, seed by seed. What was "
        "published *holds* if the first is lower in every seed, and is *reversed* if it is higher "
        "in every one. If seeds disagree it is *undecided*; if they differ by less than 0.0005 in "
        "every seed, both are *equal*. " + _by_chance(max(len(some) for some in kinds.values()))
    )
    return f"{about}\n\n" + "\n".join(lines)


def _by_chance(seeds: int) -> str:
    """Return how much it means that seeds agree."""
    if seeds == 1:
        return "Here is one seed, which proves nothing."
    return f"If there were no difference, {seeds} seeds would agree in {2 ** (1 - seeds):.0%}."


def _difference(found: Comparison) -> str:
    if not found.is_in_reach:
        return "out of reach"
    counted = f", {found.lower_in} of {len(found.differences)}" * (found.verdict == "undecided")
    spread = Spread.of(found.differences)
    return f"{shown(spread, 3, signed=True)} {found.verdict}{counted}"


def shown(spread: Spread, digits: int, *, signed: bool = False) -> str:
    """Return a mean with its standard deviation.

    >>> shown(Spread(0.12345, 0.001), 3), shown(Spread(-1.0, float("nan")), 2, signed=True)
    ('0.123 ± 0.001', '-1.00')
    """
    mean = number(spread.mean, digits, signed=signed)
    return mean if np.isnan(spread.deviation) else f"{mean} ± {spread.deviation:.{digits}f}"


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """Return a number as a table shows it; a missing one is a dash."""
    if np.isnan(value):
        return "-"
    return f"{value:{'+' if signed else ''},.{digits}f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
