"""Find pairs that are hard to match: what NCCNet learns from.

Windows are drawn anywhere in the stack. A pair is hard if raw correlation hardly prefers its best
match: r_delta, the score of the best peak less that of the best one elsewhere, lies between two
bounds. Only the place of the window is kept, never where the match lay.

References
----------
.. [1] D. Buniatyan et al., "Deep Learning Improves Template Matching by Normalized Cross
   Correlation", arXiv:1705.08593, 2017.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError
from alignment.learning.config import PairsConfig
from alignment.learning.stacks import Stack
from inference.config import NCCTrainingConfig
from inference.pair_samples import PairPlace, random_of

BLANK, GLARE = 0, 250
"""Grey values that no tissue has: of no data, and beyond."""


@dataclass(frozen=True)
class Pairs:
    """What was found."""

    train: tuple[PairPlace, ...]
    held_out: tuple[PairPlace, ...]
    rejected: dict[str, int]
    """Windows that were looked at and not taken, by reason."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "train": [list(place) for place in self.train],
            "held_out": [list(place) for place in self.held_out],
            "rejected": self.rejected,
        }

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Pairs:
        """Return what `as_dict` gave."""
        train, held_out = (
            tuple(PairPlace(*place) for place in found[name]) for name in ("train", "held_out")
        )
        return cls(train, held_out, found["rejected"])


def find_pairs(
    stack: Stack,
    config: PairsConfig,
    training: NCCTrainingConfig,
    *,
    tell: Callable[[int, int], None] = lambda _found, _wanted: None,
) -> Pairs:
    """Draw windows until there are pairs enough.

    Parameters
    ----------
    tell : callable
        Receives how many pairs are found, and wanted.

    Raises
    ------
    DataError
        If the stack is smaller than a search image, or has too few hard pairs.
    """
    side, (nz, ny, nx) = training.search_px, stack.shape
    if min(ny, nx) < side:
        raise DataError(
            f"{stack.uri} has sections of {ny} x {nx} px at mip {stack.mip}, but a search image "
            f"has {side}; give a finer mip, or a smaller search_px and template_px"
        )
    first_held = max(round(nz * (1 - config.held_out_sections)), 1)
    rejected: Counter[str] = Counter()
    wanted = config.pairs + config.held_out
    found: list[list[PairPlace]] = []
    for part, (number, sections) in enumerate(
        ((config.pairs, (0, first_held)), (config.held_out, (first_held, nz)))
    ):
        before = sum(map(len, found))
        places: list[PairPlace] = []
        for place in _drawn(stack, sections, config, side, part):
            if len(places) == number:
                break
            reason = _reason(stack, place, config, training)
            if reason:
                rejected[reason] += 1
                continue
            places.append(place)
            tell(before + len(places), wanted)
        found.append(places)
        if len(places) < min(number, training.batch):
            raise DataError(
                f"of sections {sections[0]} to {sections[1] - 1} only {len(places)} of {number} "
                f"pairs are hard enough: {dict(rejected)}; raise max_r_delta, or give a larger "
                "stack"
            )
    return Pairs(tuple(found[0]), tuple(found[1]), dict(rejected))


def _drawn(
    stack: Stack, sections: tuple[int, int], config: PairsConfig, side: int, part: int
) -> Iterator[PairPlace]:
    """Yield windows whose two sections both lie in a range of sections."""
    (first, stop), (_, ny, nx) = sections, stack.shape
    distances = [d for d in config.distances if first + d < stop]
    if not distances:
        return
    random = random_of(config.seed, part)
    number = config.held_out if part else config.pairs
    for _ in range(config.tries * number):
        d = int(random.choice(distances))
        z = int(random.integers(first + d, stop))
        yield PairPlace(
            z, d, int(random.integers(0, ny - side + 1)), int(random.integers(0, nx - side + 1))
        )


def _reason(
    stack: Stack, place: PairPlace, config: PairsConfig, training: NCCTrainingConfig
) -> str:
    """Return why a window is not taken, empty if it is."""
    search, moving = (
        stack(z, place.y, place.x, training.search_px) for z in (place.z - place.d, place.z)
    )
    if any(_blank_share(image) > config.max_blank for image in (search, moving)):
        return "no tissue"
    first = (training.search_px - training.template_px) // 2
    last = first + training.template_px
    r_delta = raw_r_delta(search, moving[first:last, first:last], training.radius_px)
    if r_delta < config.min_r_delta:
        return "no peak"
    return "easy" if r_delta > config.max_r_delta else ""


def _blank_share(image: NDArray[np.uint8]) -> float:
    return float(np.mean((image == BLANK) | (image > GLARE)))


def raw_r_delta(search: NDArray[np.uint8], template: NDArray[np.uint8], radius_px: int) -> float:
    """Return by how much the best peak of Pearson's correlation exceeds the best one elsewhere.

    Elsewhere is farther than `radius_px` along y or x. 0 where the template is flat.
    """
    if template.std() == 0:
        return 0.0
    scores = cv2.matchTemplate(search, template, cv2.TM_CCOEFF_NORMED)
    _, best, _, (x, y) = cv2.minMaxLoc(scores)
    near = np.s_[
        max(y - radius_px, 0) : y + radius_px + 1, max(x - radius_px, 0) : x + radius_px + 1
    ]
    scores[near] = -1.0
    return float(best - scores.max())
