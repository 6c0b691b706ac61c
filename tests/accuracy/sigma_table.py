"""The table of sigma in docs/relaxation-accuracy.md: how often errors are within one and two of it.

``python -m tests.accuracy.sigma_table`` prints the table (a quarter of an hour the first time), and
puts it into the page with ``--write``; ``--fit`` fits the curve of `alignment.sigma_model` first,
on vnc and the phantom, and prints its numbers. The tissues of fib and isbi are left to judge it.

Errors are taken where sigma is said to hold: of a node's place against the mean of the sections
next to it, by component, where all of them show valid tissue. Where the truth of a real stack is
its authors' alignment ("neighbours"), that alignment's own errors and all change of the tissue
count as errors too; the curve is not fitted on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from alignment.bilinear import grid_points
from alignment.config import PipelineConfig
from alignment.fields import map_to_source
from alignment.relax import Relaxed
from alignment.sigma_model import EXPONENT, FACTOR
from tests.accuracy.relax_cases import Case, Truth
from tests.accuracy.relax_matched import Matched, matched
from tests.accuracy.relax_steps import relaxed
from tests.accuracy.relax_table import PAGE
from tests.accuracy.sets import SETS
from tests.pages import write_table

Values = NDArray[np.float64]

FITTED_ON = ("vnc", "phantom")
WITHIN = (0.683, 0.954)
"""Shares within one and two sigma of a normal distribution."""
_CHANGING_SECTIONS = 18
_PARTS = 5  # each case is fitted in parts of low to high sigma
_HEAD = """\
| set | truth | recipe | used for the fit | nodes | error, p68 | sigma, p50 | within 1, 2 sigma \
| of the solver's own |
|---|---|---|---|--:|--:|--:|--:|--:|
"""


def main() -> None:
    """Measure all cases, fit if asked to, print the table and write it if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tests.accuracy.sigma_table"
    )
    parser.add_argument("--fit", action="store_true", help="fit the curve, print its numbers")
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    samples = {case: errors_and_sigma(case) for case in cases()}
    if options.fit:
        print("FACTOR = {:.3g}, EXPONENT = {:.3g}".format(*fit(samples)))
    lines = [row(case, *found) for case, found in samples.items()]
    judging = [
        found for case, found in samples.items() if is_exact(case) and not is_fitted_on(case)
    ]
    words = ("all that judge", "exact", "", "no")
    lines.append(line(words, *map(np.concatenate, zip(*judging, strict=True))))
    table = _HEAD + "\n".join(lines)
    print(table)
    if options.write:
        write_table(PAGE, "sigma", table)


def cases() -> Iterator[Case]:
    """Yield the stacks that are looked at."""
    kinds: tuple[Truth, ...] = ("twins", "changing", "neighbours")
    for name in SETS:
        for truth in kinds if name != "phantom" else kinds[1:]:
            for recipe in ("std", "hard"):
                if truth == "changing":
                    yield Case(name, truth, recipe, sections=_CHANGING_SECTIONS)
                else:
                    yield Case(name, truth, recipe)


def is_exact(case: Case) -> bool:
    """Say whether a case's truth is exact, not that of the authors' alignment."""
    return case.truth != "neighbours" or case.name == "phantom"


def is_fitted_on(case: Case) -> bool:
    """Say whether the curve is fitted on a case: only where the truth is exact."""
    return case.name in FITTED_ON and is_exact(case)


def errors_and_sigma(case: Case) -> tuple[Values, Values]:
    """Return errors (n, 2) and the solver's sigma (n,) at the nodes of a case."""
    config = PipelineConfig()
    parts = [
        part
        for group in matched(case, config)
        for part in _by_section(group, relaxed(group, config), config)
    ]
    errors, sigma = zip(*parts, strict=True)
    return np.concatenate(errors), np.concatenate(sigma)


def _by_section(
    group: Matched, found: Relaxed, config: PipelineConfig
) -> Iterator[tuple[Values, Values]]:
    spacing, mip = config.relax.node_spacing_px, config.masks.mip
    _, _, ny, nx = found.push.shape
    nodes = grid_points(ny, nx, spacing).astype(np.float64)
    there = [z for z in range(len(group.maps)) if z not in found.bridged]
    for i, z in enumerate(there):
        places = nodes + found.push[z].reshape(2, -1).T
        tissue, is_seen = [], np.isfinite(found.sigma[z]).ravel()
        for k in (z, *there[max(i - 1, 0) : i], *there[i + 1 : i + 2]):
            at = map_to_source(group.matrices[k], found.field[k], spacing, places)
            is_seen &= group.maps[k].shows_tissue(at) & group.is_valid(k, at, mip)
            tissue.append(group.maps[k].tissue_at(at))
        error = tissue[0] - np.mean(tissue[1:], axis=0)
        yield error[is_seen], found.sigma[z].ravel()[is_seen].astype(np.float64)


def within(errors: Values, sigma: Values) -> tuple[float, float]:
    """Return the shares of the errors' components within one and two sigma.

    >>> within(np.array([[0.5, -1.5], [3, 0]]), np.ones(2))
    (0.5, 0.75)
    """
    ratio = np.abs(errors) / sigma[:, np.newaxis]
    return float((ratio <= 1).mean()), float((ratio <= 2).mean())


def fit(samples: dict[Case, tuple[Values, Values]]) -> tuple[float, float]:
    """Return the factor and the exponent with which all parts of all cases come nearest."""
    parts = []
    for case, (errors, sigma) in samples.items():
        if is_fitted_on(case):
            order = np.array_split(np.argsort(sigma), _PARTS)
            parts += [(errors[part], sigma[part]) for part in order]

    def misfit(curve: Values) -> float:
        shares = [within(e, np.exp(curve[0]) * s ** curve[1]) for e, s in parts]
        return float(((np.array(shares) - WITHIN) ** 2 @ (1, 2)).sum())

    found = minimize(misfit, (np.log(2.0), 0.9), method="Nelder-Mead").x
    return float(np.exp(found[0])), float(found[1])


def row(case: Case, errors: Values, sigma: Values) -> str:
    """Return the line of one case."""
    words = (case.name, case.truth, case.recipe, "yes" if is_fitted_on(case) else "no")
    return line(words, errors, sigma)


def line(words: tuple[str, ...], errors: Values, sigma: Values) -> str:
    """Return a line of the table from the solver's sigma."""
    curve = FACTOR * sigma**EXPONENT
    shares = (
        " / ".join(f"{100 * share:.0f} %" for share in within(errors, values))
        for values in (curve, sigma)
    )
    cells = (
        *words,
        *(str(len(sigma)), f"{np.quantile(np.abs(errors), WITHIN[0]):.2f}"),
        f"{np.median(curve):.2f}",
        *shares,
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
