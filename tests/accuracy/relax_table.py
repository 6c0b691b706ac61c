"""The tables of docs/relaxation-accuracy.md: how far aligned neighbours are apart, on known truths.

``python -m tests.accuracy.relax_table`` takes every case through masks, coarse, match, filter and
relax, prints a line each and, with ``--write``, puts the tables into the page. Matches are kept in
a folder outside the repository (`relax_matched.CACHE`): the first time takes an hour on two cores,
later ones some minutes.
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.config import PipelineConfig
from alignment.fields import flipped_cells
from tests.accuracy.relax_cases import FLAWS, Case, cases
from tests.accuracy.relax_matched import Matched, matched
from tests.accuracy.relax_measures import Residuals, correlation, residuals, show
from tests.accuracy.relax_steps import relaxed
from tests.accuracy.sets import SETS, missing
from tests.pages import write_table

PAGE = "relaxation-accuracy.md"
_HEAD = """\
| set | truth | recipe | flaw | coarse | all | away | near defects | inner | 5 apart | upright | \
5 apart, upright | worst pair | valid | flipped | bridged | Pearson |
|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"""
_CRACK_HEAD = """\
| set | truth | recipe | shear beside cracks, p50 / p95 | in sound pairs |
|---|---|---|--:|--:|
"""
_UNMOVED_PX = 1 << 20  # spacing of a field of two by two nodes that moves nothing


def main() -> None:
    """Run the cases, print the tables, and write them if asked to."""
    options = _options()
    cv2.setNumThreads(1)
    print(_HEAD, end="", flush=True)
    lines, cracks = [], []
    for case in cases(options.sets, options.flaws):
        lacks = missing(case.name)
        if lacks:
            raise SystemExit(f"{case.name}: {lacks}")
        groups = matched(case, PipelineConfig())
        line, found = row(case, groups)
        print(line, flush=True)
        lines.append(line)
        if found.crack_shear.size and case.flaw == "none":
            cracks.append(crack_row(case, found))
    print(_CRACK_HEAD + "\n".join(cracks))
    if options.write:
        write_table(PAGE, "relaxation", _HEAD + "\n".join(lines))
        write_table(PAGE, "cracks", _CRACK_HEAD + "\n".join(cracks))


def row(case: Case, groups: list[Matched]) -> tuple[str, Residuals]:
    """Return the line of one case, and what it says."""
    config = PipelineConfig()
    still = np.zeros((2, 2, 2), np.float32)
    before = residuals(
        [show(group, np.stack([still] * len(group.maps)), _UNMOVED_PX) for group in groups]
    )
    spacing = config.relax.node_spacing_px
    results = [relaxed(group, config) for group in groups]
    shown = [show(one, found.field, spacing) for one, found in zip(groups, results, strict=True)]
    found = residuals(shown)
    flipped = sum(int(flipped_cells(f, spacing).sum()) for one in results for f in one.field)
    bridged = sum(len(one.bridged) for one in results)
    valid = sum(int(one.is_tissue.sum()) for one in shown) / sum(one.seen for one in shown)
    alike = [
        value
        for group, one in zip(groups, results, strict=True)
        for value in correlation(group, one.field, spacing)
    ]
    lost = sum(group.lost for group in groups)
    coarse = percentiles(before.everywhere, (50, 95)) + (f" ({lost} lost)" if lost else "")
    cells = [
        *(case.name, case.truth, case.recipe, case.flaw, coarse),
        *map(percentiles, (found.everywhere, found.away, found.near, found.inner)),
        percentiles(found.far, (50, 95)),
        percentiles(found.upright),
        percentiles(found.far_upright, (50, 95)),
        f"{found.pair_medians.max():.2f}",
        f"{100 * valid:.0f} %",
        str(flipped),
        str(bridged),
        f"{np.mean(alike):.3f}",
    ]
    return f"| {' | '.join(cells)} |", found


def crack_row(case: Case, found: Residuals) -> str:
    """Return the line of a case with cracks in the table of shear."""
    shears = (
        " / ".join(f"{100 * value:.2f} %" for value in np.percentile(part, (50, 95)))
        for part in (found.crack_shear, found.other_shear)
    )
    return f"| {' | '.join([case.name, case.truth, case.recipe, *shears])} |"


def percentiles(values: NDArray[np.float64], which: tuple[int, ...] = (50, 95, 99)) -> str:
    """Return percentiles in px, a dash where there is nothing."""
    if not values.size:
        return "-"
    return " / ".join(f"{value:.2f}" for value in np.percentile(values, which))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tests.accuracy.relax_table"
    )
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--flaws", nargs="+", default=list(FLAWS), choices=FLAWS)
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    return parser.parse_args()


if __name__ == "__main__":
    start = time.process_time()
    main()
    print(f"{time.process_time() - start:.0f} CPU-s")
