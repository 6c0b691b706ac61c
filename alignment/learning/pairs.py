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
from itertools import islice
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError
from alignment.learning.config import PairsConfig
from alignment.learning.stacks import Stacks
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
    stacks: Stacks,
    config: PairsConfig,
    training: NCCTrainingConfig,
    *,
    tell: Callable[[int, int], None] = lambda _found, _wanted: None,
) -> Pairs:
    """Draw windows until there are pairs enough, as many from each stack.

    Parameters
    ----------
    tell : callable
        Receives how many pairs are found, and wanted.

    Raises
    ------
    DataError
        If a stack is smaller than a search image, or has too few hard pairs.
    """
    rejected: Counter[str] = Counter()
    found: list[tuple[PairPlace, ...]] = []
    for is_held_out, number in enumerate((config.pairs, config.held_out)):
        places: list[PairPlace] = []
        ends = np.linspace(0, number, len(stacks.parts) + 1).round().astype(int)
        for k, share in enumerate(np.diff(ends).tolist()):
            before = sum(map(len, found)) + len(places)
            search = _Search(stacks, k, bool(is_held_out), config, training)
            for place in search.places(share, rejected):
                places.append(place)
                tell(before + 1, config.pairs + config.held_out)
                before += 1
        if len(places) < min(number, training.batch):
            kind = "held-out" if is_held_out else "training"
            raise DataError(
                f"only {len(places)} of {number} {kind} pairs are hard enough: {dict(rejected)}; "
                "raise max_r_delta, or give a larger stack"
            )
        found.append(tuple(places))
    train, held_out = found
    return Pairs(train, held_out, dict(rejected))


@dataclass(frozen=True)
class _Search:
    """Looks for pairs in one stack, in its sections to train on or in those held out."""

    stacks: Stacks
    part: int
    is_held_out: bool
    config: PairsConfig
    training: NCCTrainingConfig

    def places(self, number: int, rejected: Counter[str]) -> Iterator[PairPlace]:
        """Yield up to `number` pairs, and count what was not taken."""
        found = 0
        for place in islice(self._drawn(), self.config.tries * number):
            if found == number:
                return
            reason = _reason(self.stacks, place, self.config, self.training)
            if reason:
                rejected[reason] += 1
            else:
                found += 1
                yield place

    def _drawn(self) -> Iterator[PairPlace]:
        """Yield windows without end; both their sections lie where they may."""
        stack, side = self.stacks.parts[self.part], self.training.window_px
        nz, ny, nx = stack.shape
        if min(ny, nx) < side:
            raise DataError(
                f"{stack.uri} has sections of {ny} x {nx} px at mip {stack.mip}, but a search "
                f"image has {side} with its rim; give a finer mip, or a smaller search_px or "
                "template_px"
            )
        held = max(round(nz * (1 - self.config.held_out_sections)), 1)
        first, stop = (held, nz) if self.is_held_out else (0, held)
        distances = [d for d in self.config.distances if first + d < stop]
        start = self.stacks.starts[self.part]
        random = random_of(self.config.seed, int(self.is_held_out), self.part)
        while distances:
            d = int(random.choice(distances))
            z = int(random.integers(first + d, stop)) + start
            y, x = (int(random.integers(0, n - side + 1)) for n in (ny, nx))
            yield PairPlace(z, d, y, x)


def _reason(
    stacks: Stacks, place: PairPlace, config: PairsConfig, training: NCCTrainingConfig
) -> str:
    """Return why a window is not taken, empty if it is."""
    search, moving = (
        stacks(z, place.y, place.x, training.window_px) for z in (place.z - place.d, place.z)
    )
    if any(_blank_share(image) > config.max_blank for image in (search, moving)):
        return "no tissue"
    rim, first = training.rim_px, (training.window_px - training.template_px) // 2
    template = moving[first:, first:][: training.template_px, : training.template_px]
    searched = search[rim:, rim:][: training.search_px, : training.search_px]
    r_delta = raw_r_delta(searched, template, training.radius_px)
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
