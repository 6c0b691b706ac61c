"""A table of docs/coarse.md: sections laid badly on purpose, and what is made of it.

``python -m tests.accuracy.coarse_table`` runs every set (some ten minutes on one core), prints the
table and writes it into the page; ``--sets isbi`` runs a part and prints it only.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator

import cv2
import numpy as np

from alignment.affines import compose_affines
from tests.accuracy.coarse_cases import CASES, Case, Image, Outcome, between, make_pair, register
from tests.accuracy.sets import SETS, missing
from tests.pages import write_table

SHOWN = ("vnc", "isbi", "phantom")
FIRST = (0, 5, 10, 15)
"""Sections that are the fixed ones, each with the next as the moving one."""

_HEAD = """\
| set | truth | case | found | error, px: median (worst) | score: median (least) | reported \
| CPU-s |
|---|---|---|--:|--:|--:|---|--:|
"""


def main() -> None:
    """Run the sets and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tests.accuracy.coarse_table"
    )
    parser.add_argument("--sets", nargs="+", default=list(SHOWN), choices=list(SETS))
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(_HEAD, end="", flush=True)
    table = []
    for name in options.sets:
        lacks = missing(name)
        if lacks:
            print(f"{name}: skipped, {lacks}")
            continue
        stack = SETS[name]()
        for truth in ("twins", "neighbours"):
            for row in rows(name, truth, stack):
                print(row, flush=True)
                table.append(row)
    if options.sets == list(SHOWN):
        write_table("coarse.md", "cases", _HEAD + "\n".join(table))


def rows(name: str, truth: str, stack: Image) -> Iterator[str]:
    """Yield a row a case: twins are one section twice, neighbours two that follow each other."""
    step = int(truth == "neighbours")
    pairs = [(stack[z], stack[z + step]) for z in FIRST if z + step < len(stack)]
    for case in CASES:
        made = []
        for seed, (first, second) in enumerate(pairs):
            offset = between(first, second, case) if step else np.eye(2, 3)
            pair = make_pair(first, second, case, seed=seed)
            made.append(pair._replace(truth=compose_affines(pair.truth, offset)))
        start = time.process_time()
        outcomes = [register(pair) for pair in made]
        cpu_s = (time.process_time() - start) / len(outcomes)
        yield _row(name, truth, case, outcomes, cpu_s)


def _row(name: str, truth: str, case: Case, outcomes: list[Outcome], cpu_s: float) -> str:
    found = [o for o in outcomes if o.found is not None]
    errors = [o.error_px for o in found]
    scores = [o.found.score for o in found if o.found is not None]
    reported = Counter(
        "mirrored" if o.is_mirrored else "-" if o.found else "no believable match" for o in outcomes
    )
    told = ", ".join(
        word if count == len(outcomes) else f"{word} ({count})"
        for word, count in sorted(reported.items())
    )
    cells = [
        name,
        truth,
        case.name,
        f"{len(found)} of {len(outcomes)}",
        f"{np.median(errors):.2f} ({max(errors):.2f})" if errors else "",
        f"{np.median(scores):.2f} ({min(scores):.2f})" if scores else "",
        told,
        f"{cpu_s:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
