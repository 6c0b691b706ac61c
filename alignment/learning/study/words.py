"""A study in words: whether what was published holds, comparison by comparison.

All words are computed from the curves: a study that says the opposite reads so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from alignment.learning.study.collect import Curves, by_kind, name_of
from alignment.learning.study.compare import (
    HELD_OUT_LOSS,
    LOSS,
    Axis,
    Comparison,
    compare,
    pairs_of_modes,
    pairs_of_workers,
)
from alignment.learning.study.grid import LOST, Combination
from alignment.learning.study.tables import (
    PLACES,
    PLURAL,
    Kinds,
    best_epochs,
    differences,
    end_values,
)

PAGE = "study.md"
NOTICED = 0.01
"""A rise of the held-out loss that is called one."""


def page(studied: Sequence[Curves], missing: Sequence[Combination] = ()) -> str:
    """Return the page of a study, as Markdown.

    Parameters
    ----------
    missing : sequence of Combination
        Trainings that were asked for and are not finished.
    """
    kinds = by_kind(studied)
    parts = [
        _beginning(studied, missing),
        *(end_values(kinds, axis) for axis in PLACES),
        best_epochs(kinds),
        differences(kinds),
        "\n".join(f"- {sentence}" for sentence in sentences(kinds)),
    ]
    return "\n\n".join(parts) + "\n"


def _beginning(studied: Sequence[Curves], missing: Sequence[Combination]) -> str:
    seeds = sorted({each.combination.seed for each in studied})
    text = (
        f"{len(studied)} trainings, seeds {', '.join(map(str, seeds))}. Values are means over the "
        "seeds, with their standard deviation."
    )
    if missing:
        text += f" Not finished, so not in here: {', '.join(each.name for each in missing)}."
    lost = [each.combination.name for each in studied if each.done.get(LOST)]
    if lost:
        text += f" In {', '.join(lost)} workers died, and the others went on."
    return text


def sentences(kinds: Kinds) -> Iterator[str]:
    """Yield what the figures say of what was published."""
    for axis in PLACES:
        yield from _ordering(kinds, axis)
    for axis in PLACES:
        yield from _gain(kinds, axis)
    yield _over_training(kinds)


def _ordering(kinds: Kinds, axis: Axis) -> Iterator[str]:
    """Yield, for each number of workers above one, whether sync < local < async."""
    found = [compare(kinds, pair, LOSS, axis) for pair in pairs_of_modes(kinds)]
    for n in sorted({workers for _, workers in kinds if workers > 1}):
        links = [each for each in found if {each.lower, each.higher} in _links(n)]
        if len(links) < 2:
            continue
        if all(each.verdict == "holds" for each in links):
            said = f"holds in {_all(min(len(each.differences) for each in links))}"
        else:
            told = ", ".join(f"{each.name} {_is(each)}" for each in links)
            said = f"does not hold as a whole: {told}"
        yield (
            f"At equal {PLURAL[axis]}, {n} workers: the published ordering of training losses, "
            f"sync < local < async, {said}."
        )


def _links(workers: int) -> tuple[set[tuple[str, int]], ...]:
    """Return the neighbours in the published ordering."""
    return {("sync", workers), ("local", 1)}, {("local", 1), ("async", workers)}


def _all(seeds: int) -> str:
    return "the only seed" if seeds == 1 else f"all {seeds} seeds"


def _is(found: Comparison) -> str:
    if found.verdict == "holds":
        return "holds"
    if not found.is_in_reach:
        return "is out of reach"
    counted = f" ({found.lower_in} of {len(found.differences)} seeds)"
    return f"is {found.verdict}" + counted * (found.verdict == "undecided")


def _gain(kinds: Kinds, axis: Axis) -> Iterator[str]:
    """Yield, for each mode, whether more workers have the lower loss than one."""
    found = [compare(kinds, pair, LOSS, axis) for pair in pairs_of_workers(kinds)]
    for mode in dict.fromkeys(each.lower[0] for each in found):
        told = ", ".join(
            f"{each.lower[1]} in place of 1 {_changed(each)}"
            for each in found
            if each.lower[0] == mode
        )
        yield (
            f"At equal {PLURAL[axis]}, mode {mode}: more workers are published to lower the "
            f"training loss, by 3 to 5 points of 100; {told}."
        )


def _changed(found: Comparison) -> str:
    if not found.is_in_reach:
        return "are out of reach"
    points = 100 * float(np.mean(found.differences))
    return f"change it by {points:+.1f} points, {_is(found).removeprefix('is ')}"


def _over_training(kinds: Kinds) -> str:
    """Return how far held-out losses have risen again after their lowest."""
    told = []
    for kind, some in kinds.items():
        losses = [each.values[HELD_OUT_LOSS.column] for each in some]
        rises = [float(loss[-1] - loss.min()) for loss in losses]
        risen = sum(rise >= NOTICED for rise in rises)
        told.append(f"{name_of(kind)} {np.mean(rises):.3f} ({risen} of {len(rises)})")
    return (
        "Over-training: by so much the held-out loss ended above its lowest in the mean, and in so "
        f"many trainings by {NOTICED} or more: {', '.join(told)}."
    )
