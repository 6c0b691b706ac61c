"""The tables of docs/accuracy.md: how exact matches are, on warps that are known.

``python -m tests.accuracy.match_table`` runs every set (a quarter of an hour on two cores), prints
the tables and writes them, with the picture, into the page; with ``--sets``, ``--truths`` or
``--recipes`` it runs a part and prints it only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from alignment.config import PipelineConfig
from tests.accuracy.consensus import Consensus
from tests.accuracy.matches_file import __doc__ as LAYOUT
from tests.accuracy.matches_file import write_matches
from tests.accuracy.measures import Errors, Rates, curves, errors, kept, only, pooled
from tests.accuracy.picture import draw
from tests.accuracy.recipes import RECIPES
from tests.accuracy.runner import Outcome, run_stack
from tests.accuracy.sets import SECTIONS, SETS, missing
from tests.accuracy.stacks import make_stack

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "accuracy.md"
PICTURE = ROOT / "docs" / "images" / "matches.png"
BEGIN, END = "<!-- table of matches: begin -->", "<!-- table of matches: end -->"
TRUTHS = ("twins", "neighbours")
SEED = 7
FEW = 0.001
"""Share of false matches that is aimed at."""

_HEAD = """\
| set | truth | recipe | coarse | filters | median | p95 | p99 | worst pair | coverage | false | \
near defects | away | off tissue | CPU-s a pair |
|---|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"""
_CURVE_HEAD = """\
| truth | recipe | filter | coverage, false by default | coverage at most with false <= 0.1 % |
|---|---|---|--:|--:|
"""


class Result(NamedTuple):
    """What came of one stack."""

    name: str
    truth: str
    recipe: str
    outcome: Outcome


def main() -> None:
    """Run the sets, print the tables, and write them if all were run."""
    options = _options()
    cv2.setNumThreads(1)
    print(_HEAD, end="", flush=True)
    lines: list[str] = []
    curve_of: dict[tuple[str, str], list[dict[str, list[Rates]]]] = {}
    for result in _results(options):
        new = rows(result)
        print(*new, sep="\n", flush=True)
        lines += new
        swept = curves(result.outcome, PipelineConfig().filter)
        curve_of.setdefault((result.truth, result.recipe), []).append(swept)
    whole = {
        key: {name: [pooled(each) for each in zip(*(s[name] for s in some), strict=True)]
              for name in some[0]}
        for key, some in curve_of.items()
    }  # fmt: skip
    curve_lines = [line for key, swept in whole.items() for line in curve_rows(*key, swept)]
    print(_CURVE_HEAD + "\n".join(curve_lines))
    if options.picture:
        draw(options.picture, whole)
    if options.write:
        some = f"At most {options.sections} sections of each set.\n\n"
        text = f"{some}{_HEAD}{chr(10).join(lines)}\n\n{_CURVE_HEAD}{chr(10).join(curve_lines)}"
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _options() -> argparse.Namespace:
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
    parser.add_argument("--picture", type=Path, help="where the curves are drawn")
    options = parser.parse_args()
    standard = vars(parser.parse_args([]))
    given = {name for name, value in vars(options).items() if value != standard[name]}
    options.write = given <= {"matches", "sections"}
    if options.write:
        options.picture = PICTURE
    return options


def _results(options: argparse.Namespace) -> Iterator[Result]:
    config = PipelineConfig()
    for name in options.sets:
        lacks = missing(name)
        if lacks:
            print(f"{name}: skipped, {lacks}")
            options.write = False
            continue
        base = SETS[name]()[: options.sections]
        # The phantom's tissue is in register by construction.
        asked = "neighbours" in options.truths and name != "phantom"
        change = Consensus(base, config.match.neighbours) if asked else None
        for truth in options.truths:
            for recipe in options.recipes:
                stack = make_stack(base, truth, RECIPES[recipe], seed=options.seed, change=change)
                outcome = run_stack(stack, config, coarse=options.coarse, masks=options.masks)
                if options.matches:
                    write_matches(options.matches / f"{name}-{truth}-{recipe}.npz", outcome)
                    (options.matches / "README").write_text(LAYOUT or "", encoding="utf-8")
                yield Result(name, truth, recipe, outcome)


def rows(result: Result) -> list[str]:
    """Return the lines of one stack: as matched, and as filtered."""
    outcome = result.outcome
    far = np.percentile(outcome.coarse_error_px, 50)
    coarse = f"{far:.1f}" + (f" ({len(outcome.coarse_lost)} lost)" if outcome.coarse_lost else "")
    cost = outcome.match_cpu_s / max(len(outcome.pairs), 1)
    by_filters = {"none": only(), "default": PipelineConfig().filter}
    return [
        f"| {' | '.join(result[:3])} | {coarse} | {name} | "
        f"{_cells(errors(outcome, kept(outcome, config)))} | {cost:.2f} |"
        for name, config in by_filters.items()
    ]


def curve_rows(truth: str, recipe: str, swept: dict[str, list[Rates]]) -> list[str]:
    """Return the lines of all sets of one truth and recipe together, a filter each."""
    config = PipelineConfig().filter
    result = []
    for name, points in swept.items():
        default = 1.0 if name == "all together" else getattr(config, name)
        nearest = min(points, key=lambda point: abs(point.limit - default))
        same = abs(nearest.limit - default) < 1e-9
        by_default = f"{_percent(nearest.coverage)}, {_percent(nearest.false)}" if same else "-"
        few = [point.coverage for point in points if point.kept and point.false <= FEW]
        most = _percent(max(few)) if few else "-"
        result.append(f"| {truth} | {recipe} | {name} | {by_default} | {most} |")
    return result


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _cells(found: Errors) -> str:
    px = [f"{value:.2f}" for value in found[:4]]
    shares = [f"{100 * found.coverage:.1f} %", *(_percent(share) for share in found[5:8])]
    return " | ".join([*px, *shares, str(found.false_off)])


if __name__ == "__main__":
    start = time.process_time()
    main()
    print(f"{time.process_time() - start:.0f} CPU-s")
