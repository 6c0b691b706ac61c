"""Drift of a long stack whose matches are biased: ``python -m tests.accuracy.drift``.

Sections of 6 x 6 nodes with known smooth fields; matches with noise of 0.7 px, 5 % wrong, 20 %
missing, and on top of that a bias. What is measured is where each section shows its tissue, against
the truth: the mean over the section, smoothed along z as the report's *wander* is, about its mean
over the stack, which no match can tell. Two minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from alignment.confidence import solver_weight
from alignment.config import RelaxConfig
from alignment.relax import PairMatches, relax_stack
from alignment.wander import low_pass
from tests.known_fields import KnownFields, inner_points, neighbour_errors
from tests.pages import write_table

SPACING_PX = 32
BIAS_PX = 0.2
SLOW_SECTIONS = 250
SURE = 0.9
"""Confidence of all matches: in the solver, the surer they are the less the anchor counts."""
EVERY = 8
"""As `match.long_range_every`."""

NEAR = (1, 2)
FAR: dict[str, tuple[int, ...]] = {"none": (), "8": (8,), "8, 32": (8, 32)}
ANCHORS = (0.03, 0.01, 0.001)
"""The default of relax.anchor, a weaker one, and one that is as good as none."""
PAGE = "drift.md"

_HEAD = (
    "| what is wrong | long-range matches | "
    + " | ".join(f"`relax.anchor: {anchor:g}`" for anchor in ANCHORS)
    + " |\n|---|---|--:|--:|--:|"
)


class WanderingFields(KnownFields):
    """Known fields whose coarse places wander along z, so that undoing it is right."""

    def __init__(self, nz: int, *, wander_px: float = 0.0, seed: int = 0) -> None:
        super().__init__(nz, px=5.0, length_px=120.0, waves=16, seed=seed)
        turn = 2 * np.pi * np.arange(nz) / SLOW_SECTIONS
        self.wander = wander_px * np.stack([np.sin(turn), np.cos(turn)], axis=1)

    def push(self, z: int, points: np.ndarray) -> np.ndarray:
        return super().push(z, points) + self.wander[z]


@dataclass(frozen=True)
class Case:
    """One thing that is wrong with a stack."""

    name: str
    bias_yx: Callable[[int, int], tuple[float, float]]
    """Of the matches of pair (z, d), px."""
    wander_px: float = 0.0


def _turning(z: int, _d: int) -> tuple[float, float]:
    turn = 2 * np.pi * z / SLOW_SECTIONS
    return BIAS_PX * np.sin(turn), BIAS_PX * np.cos(turn)


CASES = (
    Case(f"every match is off by {BIAS_PX} px", lambda _z, _d: (0.0, BIAS_PX)),
    Case(f"every match is off by {BIAS_PX} px times d", lambda _z, d: (0.0, BIAS_PX * d)),
    Case(f"off by {BIAS_PX} px, turning once in {SLOW_SECTIONS} sections", _turning),
    Case(
        f"no bias; coarse places wander by 20 px once in {SLOW_SECTIONS} sections",
        lambda _z, _d: (0.0, 0.0),
        wander_px=20.0,
    ),
)


class Drift(NamedTuple):
    """What became of one stack, px."""

    largest: float
    """Largest distance of the smoothed mean place of a section from where it should be."""
    peak_to_peak: float
    """Along the worse of the two axes."""
    neighbours: float
    """Median distance between the tissue of neighbours."""


def biased_matches(
    truth: KnownFields, case: Case, side_px: int, far: Sequence[int]
) -> list[PairMatches]:
    """Return the matches of all pairs with their neighbours and of every eighth with those far."""
    found = []
    for d in (*NEAR, *far):
        for pair in truth.matches(side_px, SPACING_PX, d=d):
            if d in far and pair.z % EVERY:
                continue
            bias = np.float32(case.bias_yx(pair.z, d))[:, None, None]
            sure = np.full(pair.displacement.shape[1:], SURE, np.float32)
            weight = solver_weight(sure) * np.float32(EVERY if d in far else 1)  # as the stage does
            found.append(PairMatches(pair.z, d, pair.displacement + bias, weight=weight))
    return found


def measure(
    case: Case, far: Sequence[int] = (), *, anchor: float, sections: int = 500, nodes: int = 6
) -> Drift:
    """Align a stack with something wrong, and say how far it drifted."""
    truth = WanderingFields(sections, wander_px=case.wander_px)
    side = (nodes - 1) * SPACING_PX + 1
    config = RelaxConfig(node_spacing_px=SPACING_PX, anchor=anchor)
    pairs = biased_matches(truth, case, side, far)
    relaxed = relax_stack(pairs, sections, (side, side), SPACING_PX, config)
    misplaced = truth.misplaced(relaxed.field, SPACING_PX, inner_points(side))
    slow = low_pass(misplaced.mean(axis=1))
    slow -= slow.mean(axis=0)
    return Drift(
        float(np.hypot(*slow.T).max()),
        float(np.ptp(slow, axis=0).max()),
        float(np.median(neighbour_errors(misplaced))),
    )


def rows(sections: int) -> Iterator[str]:
    """Yield a row a case and choice of long-range matches."""
    for case in CASES:
        for name, far in FAR.items():
            found = [measure(case, far, anchor=anchor, sections=sections) for anchor in ANCHORS]
            cells = (f"{f.largest:.1f} / {f.peak_to_peak:.1f}, {f.neighbours:.2f}" for f in found)
            yield f"| {case.name} | {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table, and write it into the page unless it is of a shorter stack."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.accuracy.drift")
    parser.add_argument("--sections", type=int, default=500)
    options = parser.parse_args()
    print(_HEAD, flush=True)
    table = [_HEAD]
    for row in rows(options.sections):
        print(row, flush=True)
        table.append(row)
    if options.sections == 500:
        write_table(PAGE, "wander", "\n".join(table))


if __name__ == "__main__":
    main()
