"""The tables of docs/accuracy.md: how exact matches are, on warps that are known.

``python -m tests.accuracy.match_table`` runs every set (half an hour on two cores), prints the
tables and writes them, with the picture, into the page; ``--sets fib --truths twins`` runs a part
and prints it only.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from alignment.config import PipelineConfig
from tests.accuracy.matches_file import __doc__ as LAYOUT
from tests.accuracy.matches_file import write_matches
from tests.accuracy.measures import Errors, errors, kept, only
from tests.accuracy.recipes import RECIPES
from tests.accuracy.runner import Outcome, run_stack
from tests.accuracy.sets import SECTIONS, SETS, missing
from tests.accuracy.stacks import make_stack

TRUTHS = ("twins", "neighbours")
SEED = 7

_HEAD = """\
| set | truth | recipe | coarse | filters | median | p95 | p99 | worst pair | coverage | false | \
near defects | away | off tissue |
|---|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"""


def main() -> None:
    """Run the sets and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tests.accuracy.match_table"
    )
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--truths", nargs="+", default=list(TRUTHS), choices=TRUTHS)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--coarse", default="estimated", choices=["estimated", "true"])
    parser.add_argument("--masks", default="estimated", choices=["estimated", "true"])
    parser.add_argument("--sections", type=int, default=SECTIONS, help="of each set, at most")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--matches", type=Path, help="folder for all matches, one .npz a stack")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(_HEAD, end="", flush=True)
    for name in options.sets:
        lacks = missing(name)
        if lacks:
            print(f"{name}: skipped, {lacks}")
            continue
        base = SETS[name]()[: options.sections]
        for truth in options.truths:
            for recipe in options.recipes:
                start = time.process_time()
                stack = make_stack(base, truth, RECIPES[recipe], seed=options.seed)
                outcome = run_stack(
                    stack, PipelineConfig(), coarse=options.coarse, masks=options.masks
                )
                for row in rows(outcome, (name, truth, recipe)):
                    print(row, flush=True)
                if options.matches:
                    path = options.matches / f"{name}-{truth}-{recipe}.npz"
                    count = write_matches(path, outcome)
                    (options.matches / "README").write_text(LAYOUT or "", encoding="utf-8")
                    spent = time.process_time() - start
                    print(f"# {path}: {count} matches; {spent:.0f} CPU-s", flush=True)


def rows(outcome: Outcome, labels: tuple[str, str, str]) -> list[str]:
    """Return the lines of one stack: as matched, and as filtered."""
    far = np.percentile(outcome.coarse_error_px, 50)
    coarse = f"{far:.1f}" + (f" ({len(outcome.coarse_lost)} lost)" if outcome.coarse_lost else "")
    by_filters = {"none": only(), "default": PipelineConfig().filter}
    return [
        f"| {' | '.join(labels)} | {coarse} | {name} | "
        f"{_cells(errors(outcome, kept(outcome, config)))} |"
        for name, config in by_filters.items()
    ]


def _cells(found: Errors) -> str:
    px = [f"{value:.2f}" for value in found[:4]]
    shares = [f"{100 * found.coverage:.1f} %", *(f"{100 * v:.2f} %" for v in found[5:8])]
    return " | ".join([*px, *shares, str(found.false_off)])


if __name__ == "__main__":
    main()
