"""Print the tables of relaxation in docs/performance.md: ``make bench-relax``.

``--quick`` leaves out the largest mesh and the peers that take minutes.
"""

from __future__ import annotations

import argparse

from tests.benchmarks.machine import machine
from tests.benchmarks.relax import scaling
from tests.benchmarks.relax.ours import OURS
from tests.benchmarks.relax.peers import (
    CG,
    DIRECT,
    FIRE,
    FIRE_EASED,
    FIRE_EQUAL,
    PYAMG,
    markdown,
    race,
)
from tests.benchmarks.relax.problems import make_problem

EXCESS = 1e-6
SMALL, LARGE = (8, 25, 25), (16, 80, 80)
"""Nodes of the races: 5,000 and 102,400."""


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(machine("numpy", "scipy", "pyamg"), "\n", flush=True)
    grids = scaling.GRIDS[: -1 if arguments.quick else None]
    for threads in (1, 2):
        rows = [scaling.measure_apart(grid, threads) for grid in grids]
        print(scaling.markdown(rows, threads), flush=True)
    springs = () if arguments.quick else (FIRE, FIRE_EQUAL, FIRE_EASED)
    small = make_problem(*SMALL)
    ways = (OURS, DIRECT, CG, PYAMG, *springs)
    print(markdown(small, EXCESS, race(small, ways, EXCESS, rounds=arguments.rounds)), flush=True)
    large = make_problem(*LARGE)
    ways = (OURS, CG, PYAMG, *springs)
    print(markdown(large, EXCESS, race(large, ways, EXCESS, rounds=arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()
