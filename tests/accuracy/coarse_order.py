"""A table of docs/coarse.md: wrong orders that are named, and good ones that raise no alarm.

``python -m tests.accuracy.coarse_order`` measures how alike the sections of five real stacks are
(some six minutes on one core), lays them out in wrong orders on paper, prints the table and writes
it into the page; ``--sets aligntk`` runs a part and prints it only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from alignment.affines import compose_affines, invert_affine
from alignment.coarse import estimate_pair, solve_stack
from alignment.config import CoarseConfig, MasksConfig
from alignment.likeness import Likeness, measure_likeness
from alignment.masks import estimate_valid
from alignment.order import far_pairs, find_order_faults
from tests.accuracy.coarse_cases import compared
from tests.accuracy.sets import DATA
from tests.pages import write_table

Stack = NDArray[np.uint8]
Named = tuple[str, tuple[int, ...]]
Change = Callable[[int, int, Likeness], Likeness]

NEIGHBOURS = 3
FAR_PAIRS = 2  # a section, as in the coarse stage

_HEAD = """\
| set | sections | likeness at d = 1, 2, 3 (median) | nearer against farther (least) \
| alarms as it is | swaps | misplaced | reversed runs | alarms: bad sections | alarms: bad pairs |
|---|--:|---|--:|--:|--:|--:|--:|--:|--:|
"""


@dataclass(frozen=True)
class Source:
    """A real stack, and how far apart its sections are still compared."""

    folder: str
    reach: int
    step: int = 1


SOURCES = {
    "vnc": Source("vnc_stack1", 19),
    "isbi": Source("isbi2012_test", 29),
    "pinky": Source("pinky_sample1", 17),
    "aligntk": Source("aligntk_z00-07", 7),
    "fib, every 4th plane": Source("fib_medulla_ts2", 8, step=4),
}


def main() -> None:
    """Run the sets and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tests.accuracy.coarse_order"
    )
    parser.add_argument("--sets", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(_HEAD, end="", flush=True)
    table = []
    for name in options.sets:
        source = SOURCES[name]
        path = DATA / source.folder / "raw.tif"
        if not path.exists():
            print(f"{name}: skipped, {path} is not there; set ALIGN_TEST_DATA")
            continue
        stack = tifffile.imread(path)[:: source.step]
        table.append(row(name, Paper(measured(stack, source.reach), len(stack), source.reach)))
        print(table[-1], flush=True)
    if options.sets == list(SOURCES):
        write_table("coarse.md", "order", _HEAD + "\n".join(table))


def measured(stack: Stack, reach: int) -> dict[tuple[int, int], Likeness]:
    """Return how alike all sections up to `reach` apart are, placed by their direct neighbours."""
    sections, mip = compared(stack)
    valid = [estimate_valid(section, MasksConfig())[0] for section in sections]
    pairs = {}
    for z in range(1, len(stack)):
        both = sections[z - 1], sections[z], valid[z - 1], valid[z]
        found = estimate_pair(*both, CoarseConfig(), mip=mip)
        if found is not None:
            pairs[z, 1] = found
    solution = solve_stack(pairs, len(stack), stack.shape[1:], [], CoarseConfig())
    alike = {}
    for z in range(len(stack)):
        for d in range(1, min(reach, z) + 1):
            place = compose_affines(solution.matrices[z], invert_affine(solution.matrices[z - d]))
            both = sections[z - d], sections[z], valid[z - d], valid[z]
            found_alike = measure_likeness(*both, place, mip=mip)
            if found_alike is not None:
                alike[z, d] = found_alike
    return alike


class Paper:
    """A stack whose sections can be laid out in any order without looking at them again."""

    def __init__(self, alike: dict[tuple[int, int], Likeness], count: int, reach: int) -> None:
        self.alike, self.count, self.reach = alike, count, reach

    def named(self, order: Sequence[int], change: Change | None = None) -> list[Named]:
        """Return what is found if section z of the stack is the true section ``order[z]``."""
        near = [(z, d) for z in range(len(order)) for d in range(1, NEIGHBOURS + 1) if d <= z]
        alike = self._likeness(order, near, change)
        far = far_pairs(alike, range(len(order)), FAR_PAIRS * len(order))
        alike |= self._likeness(order, far, change)
        found = find_order_faults(alike, range(len(order)))
        return [(finding.kind, finding.sections) for finding in found]

    def _likeness(
        self, order: Sequence[int], pairs: list[tuple[int, int]], change: Change | None
    ) -> dict[tuple[int, int], Likeness]:
        result = {}
        for z, d in pairs:
            low, high = sorted((order[z], order[z - d]))
            known = self.alike.get((high, high - low))
            if known is not None:
                result[z, d] = change(low, high, known) if change else known
        return result

    def swaps(self) -> Iterator[bool]:
        """Yield whether each swap of two neighbours is named, and nothing else."""
        for k in range(self.count - 1):
            order = list(range(self.count))
            order[k], order[k + 1] = order[k + 1], order[k]
            yield self.named(order) == [("swapped", (k, k + 1))]

    def moves(self) -> Iterator[bool]:
        """Yield the same for each section moved elsewhere, by two places or more."""
        for start in range(self.count):
            for to in range(self.count):
                if 2 <= abs(to - start) <= self.reach - 2:
                    order = list(range(self.count))
                    order.insert(to, order.pop(start))
                    yield self.named(order) == [("misplaced", (to,))]

    def reversals(self) -> Iterator[bool]:
        """Yield the same for each run of three to half the stack that is turned round."""
        for start in range(self.count):
            for stop in range(start + 3, min(start + self.reach - 2, self.count) + 1):
                if stop - start <= self.count // 2:
                    order = list(range(self.count))
                    order[start:stop] = order[start:stop][::-1]
                    yield self.named(order) == [("reversed", tuple(range(start, stop)))]

    def bad_sections(self) -> Iterator[bool]:
        """Yield whether a section that resembles all others much less raises an alarm."""
        for bad in range(self.count):
            for factor in (0.5, 0.2, 0.05):
                yield bool(
                    self.named(
                        range(self.count),
                        lambda low, high, pair, bad=bad, factor=factor: _scaled(
                            pair, factor if bad in (low, high) else 1
                        ),
                    )
                )

    def bad_pairs(self) -> Iterator[bool]:
        """Yield whether neighbours that resemble only each other much less raise an alarm."""
        for bad in range(1, self.count):
            for factor in (0.5, 0.2, 0.05):
                yield bool(
                    self.named(
                        range(self.count),
                        lambda low, high, pair, bad=bad, factor=factor: _scaled(
                            pair, factor if (low, high) == (bad - 1, bad) else 1
                        ),
                    )
                )

    def least_ratio(self) -> float:
        """Return the least ratio of a section's likeness with a neighbour and with the next one."""
        at = {(z - d, z): pair.tissue for (z, d), pair in self.alike.items()}
        ratios = [
            at[near] / max(at[far], 1e-3)
            for z in range(self.count)
            for near, far in (((z, z + 1), (z, z + 2)), ((z - 1, z), (z - 2, z)))
            if near in at and far in at
        ]
        return min(ratios)


def row(name: str, paper: Paper) -> str:
    """Return a stack's row of the table."""
    near = [
        np.median([pair.tissue for (_, d), pair in paper.alike.items() if d == distance])
        for distance in (1, 2, 3)
    ]
    cells = [
        name,
        str(paper.count),
        ", ".join(f"{value:.2f}" for value in near),
        f"{paper.least_ratio():.2f}",
        str(len(paper.named(range(paper.count)))),
        *(_share(list(tried())) for tried in (paper.swaps, paper.moves, paper.reversals)),
        *(_share(list(tried())) for tried in (paper.bad_sections, paper.bad_pairs)),
    ]
    return f"| {' | '.join(cells)} |"


def _share(outcomes: list[bool]) -> str:
    return f"{sum(outcomes)} of {len(outcomes)}"


def _scaled(pair: Likeness, factor: float) -> Likeness:
    return pair._replace(tissue=pair.tissue * factor)


if __name__ == "__main__":
    main()
