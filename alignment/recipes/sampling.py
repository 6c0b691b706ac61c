"""Which points of its parameters an experiment visits: a grid, or draws with few repetitions.

The discrete sets span a product of P combinations. Of n samples each combination gets floor(n / P)
or ceil(n / P), so that nothing is tried twice before everything was tried once. Ranges are drawn
independently, n numbers each, and laid beside the combinations.
"""

from __future__ import annotations

import random
from math import prod

from alignment.errors import ConfigError
from alignment.recipes.model import MAX_TASKS, Experiment
from alignment.recipes.parameters import Parameter, Value

Point = dict[str, Value]


def points(name: str, experiment: Experiment) -> list[Point]:
    """Return the values of every task of an experiment, in order.

    The same experiment, name and seed give the same points; a parameter's draws do not depend on
    which others there are.

    Raises
    ------
    ConfigError
        If a grid has more than `MAX_TASKS` combinations.
    """
    sets = {key: p for key, p in experiment.parameters.items() if p.kind == "discrete"}
    total = prod(len(p.values) for p in sets.values())
    if experiment.samples is None:
        if total > MAX_TASKS:
            raise ConfigError(
                f"experiments.{name}: the grid has {total} combinations, the limit is {MAX_TASKS}; "
                "set sampling: random and `samples`"
            )
        return [_decode(index, sets) for index in range(total)]
    count = experiment.samples
    stream = random.Random(f"{experiment.seed}/{name}")
    found = [_decode(index, sets) for index in fewest_repetitions(total, count, stream)]
    for key, p in experiment.parameters.items():
        if p.kind == "uniform":
            own = random.Random(f"{experiment.seed}/{name}/{key}")
            for point in found:
                point[key] = p.low + (p.high - p.low) * own.random()
    return found


def fewest_repetitions(total: int, count: int, stream: random.Random) -> list[int]:
    """Return `count` of the numbers below `total`, each equally often give or take one, shuffled.

    >>> from collections import Counter
    >>> sorted(Counter(fewest_repetitions(3, 8, random.Random(0))).values())
    [2, 3, 3]
    """
    whole, rest = divmod(count, total)
    drawn = [number for _ in range(whole) for number in range(total)]
    extra: set[int] = set()
    if rest > total // 2:  # then few are left out
        drawn += stream.sample(range(total), rest)
    else:  # `total` may be beyond any list, and even beyond what `range` can be sampled from
        while len(extra) < rest:
            extra.add(stream.randrange(total))
    drawn += sorted(extra)
    stream.shuffle(drawn)
    return drawn


def _decode(index: int, sets: dict[str, Parameter]) -> Point:
    """Return the combination of an index, the last parameter changing fastest."""
    point: Point = {}
    for key, p in reversed(sets.items()):
        index, digit = divmod(index, len(p.values))
        point[key] = p.values[digit]
    return dict(reversed(point.items()))
