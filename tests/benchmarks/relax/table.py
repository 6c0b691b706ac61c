"""Print the tables of relaxation in docs/performance.md: ``make bench-relax``.

``--quick`` leaves out the largest mesh and the races that take minutes; ``--write`` puts the tables
into the page.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from tests.benchmarks.machine import machine
from tests.benchmarks.relax import scaling
from tests.benchmarks.relax.ours import OURS
from tests.benchmarks.relax.peers import (
    CG,
    DIRECT,
    FIRE,
    FIRE_EASED,
    PYAMG,
    Way,
    markdown,
    race,
)
from tests.benchmarks.relax.problems import make_problem
from tests.pages import write_table

EXCESS = 1e-6
STIFF = {"stiffness": 10.0, "anchor": 1e-4, "length_px": 600.0}
"""As stiff against its matches as SOFIMA's mesh (0.1 to 0.01)."""
RACES: tuple[tuple[tuple[int, int, int], dict[str, float], tuple[Way, ...]], ...] = (
    ((8, 25, 25), {}, (DIRECT, CG, PYAMG, FIRE)),
    ((16, 80, 80), {}, (CG, PYAMG, FIRE, FIRE_EASED)),
    ((16, 80, 80), STIFF, (CG, PYAMG, FIRE)),
)
"""Nodes, settings, peers: 5,000 and 102,400 nodes."""


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    tables = []
    for table in _tables(arguments.quick, arguments.rounds):
        print(table, flush=True)
        tables.append(table)
    if arguments.write:
        write_table("performance.md", "bench-relax", "\n".join(tables))


def _tables(is_quick: bool, rounds: int) -> Iterator[str]:
    yield machine("numpy", "scipy", "pyamg") + "\n"
    grids = scaling.GRIDS[: -1 if is_quick else None]
    for threads in (1, 2):
        yield scaling.markdown([scaling.measure_apart(g, threads) for g in grids], threads)
    for grid, settings, peers in RACES[: 1 if is_quick else None]:
        problem = make_problem(*grid, **settings)
        ways = (OURS, *peers)
        said = ", ".join(f"{name} {value:g}" for name, value in settings.items()) or "defaults"
        yield f"{said}:\n\n" + markdown(problem, EXCESS, race(problem, ways, EXCESS, rounds=rounds))


if __name__ == "__main__":
    main()
