"""Values of trainings at the same place, and which of two kinds is lower there.

A training loss is the mean over the steps of an epoch, so it stands in the middle of the epoch:
halfway between the samples before and after. What held-out samples say stands at the end. Between
two epochs curves are straight. A synchronous step of N workers takes N batches, any other step one:
so at the same epoch N workers in step have seen N times the samples of others, and at the same
samples they have made an Nth of the changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from alignment.learning.study.collect import Curves, Kind, Values, name_of

Axis = Literal["epoch", "samples", "seconds"]
AXES: tuple[Axis, ...] = ("epoch", "samples", "seconds")
Verdict = Literal["holds", "reversed", "equal", "undecided"]
_VERDICTS: dict[int, Verdict] = {-1: "holds", 0: "equal", 1: "reversed"}
"""By the sign of the differences."""
NOTHING = 5e-4
"""Smaller differences than this, half of the last digit that tables show, count as none."""


class Measure(NamedTuple):
    """A column of the study's table."""

    title: str
    column: str
    of_epoch: bool = False
    """Whether it is a mean over an epoch's steps, rather than a look at its end."""


LOSS = Measure("training loss", "loss", of_epoch=True)
HELD_OUT_LOSS = Measure("held-out loss", "held_out_loss")
DICE = Measure("held-out Dice", "held_out_dice")
ERROR = Measure("held-out error", "held_out_error")


def curve(curves: Curves, measure: Measure, axis: Axis) -> tuple[Values, Values]:
    """Return where the values of a measure stand along an axis, and the values."""
    at, values = curves.values[axis], curves.values[measure.column]
    if measure.of_epoch:
        return (at[:-1] + at[1:]) / 2, values[1:]
    return at, values


def common_end(studied: Sequence[Curves], measure: Measure, axis: Axis) -> float:
    """Return the farthest place along an axis that all trainings have reached."""
    return min(float(curve(each, measure, axis)[0][-1]) for each in studied)


def value_at(curves: Curves, measure: Measure, axis: Axis, place: float) -> float:
    """Return a measure at a place along an axis; NaN before the first value, or after the last."""
    at, values = curve(curves, measure, axis)
    return float(np.interp(place, at, values, left=np.nan, right=np.nan))


class Spread(NamedTuple):
    """The mean over seeds, and their standard deviation; NaN of one seed."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return that of some values."""
        found = np.asarray(values, float)
        return cls(float(found.mean()), float(found.std(ddof=1)) if len(found) > 1 else np.nan)


class Comparison(NamedTuple):
    """Whether one kind of training is lower than another, in each seed that both have."""

    lower: Kind
    higher: Kind
    differences: tuple[float, ...]
    """Of the first less the second: both have begun from the same weights, with the same order of
    samples."""

    @property
    def name(self) -> str:
        """What is claimed."""
        return f"{name_of(self.lower)} < {name_of(self.higher)}"

    @property
    def is_in_reach(self) -> bool:
        """Return whether both have a value there in every seed."""
        return not np.isnan(self.differences).any()

    @property
    def verdict(self) -> Verdict:
        """Return what the seeds say: they must agree."""
        if not self.is_in_reach:
            return "undecided"
        signs = {0 if abs(d) < NOTHING else int(np.sign(d)) for d in self.differences}
        if len(signs) > 1:
            return "undecided"
        return _VERDICTS[signs.pop()]

    @property
    def lower_in(self) -> int:
        """Return in how many seeds the first is lower."""
        return sum(d <= -NOTHING for d in self.differences)


def compare(
    kinds: Mapping[Kind, Sequence[Curves]], pair: tuple[Kind, Kind], measure: Measure, axis: Axis
) -> Comparison:
    """Compare two kinds where all trainings of the study have arrived, seed by seed."""
    place = common_end([each for some in kinds.values() for each in some], measure, axis)
    values = [
        {each.combination.seed: value_at(each, measure, axis, place) for each in kinds[kind]}
        for kind in pair
    ]
    seeds = sorted(values[0].keys() & values[1].keys())
    return Comparison(*pair, tuple(values[0][seed] - values[1][seed] for seed in seeds))


def pairs_of_modes(kinds: Mapping[Kind, Sequence[Curves]]) -> list[tuple[Kind, Kind]]:
    """Return what was published of modes, for each number of workers: sync < local < async."""
    counts = sorted({workers for mode, workers in kinds if mode in ("sync", "async")})
    found: list[tuple[Kind, Kind]] = []
    for n in counts:
        sync: Kind = ("sync", n)
        local: Kind = ("local", 1)
        apart: Kind = ("async", n)
        found += [(sync, local), (local, apart), (sync, apart)]
    return _there(found, kinds)


def pairs_of_workers(kinds: Mapping[Kind, Sequence[Curves]]) -> list[tuple[Kind, Kind]]:
    """Return what was published of workers: more of them have the lower loss than one."""
    found: list[tuple[Kind, Kind]] = [((mode, n), (mode, 1)) for mode, n in kinds if n > 1]
    return _there(found, kinds)


def _there(
    pairs: Sequence[tuple[Kind, Kind]], kinds: Mapping[Kind, Sequence[Curves]]
) -> list[tuple[Kind, Kind]]:
    """Return the pairs of which the study has both, with a seed in common."""

    def seeds(kind: Kind) -> set[int]:
        return {each.combination.seed for each in kinds.get(kind, ())}

    return [pair for pair in pairs if seeds(pair[0]) & seeds(pair[1])]
