"""Order: sections that are swapped, misplaced, reversed or there twice, told by likeness alone.

Sections resemble each other the less, the more tissue lies between them. The logarithm of the
likeness of sections i and j is modelled as::

    x(i, j) = profile(|place i - place j|) + quality i + quality j + noise

The profile is what most pairs of the stack show; the qualities, one a section, absorb damage and
poor staining, so a bad section is not called misplaced. Rearrangements that put likelier sections
side by side are tried as in the travelling salesman's problem: a run is turned round, or moved
[1]_. One is reported if it explains the likenesses of all the pairs that it concerns far better.

References
----------
.. [1] S. Lin, B. W. Kernighan, "An effective heuristic algorithm for the traveling-salesman
   problem", Operations Research, 1973. Ordering by likeness is known as seriation:
   W. S. Robinson, "A method for chronologically ordering archaeological deposits", 1951.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.findings import Finding, Kind
from alignment.likeness import Likeness
from alignment.repeats import find_duplicates

Pairs = Mapping[tuple[int, int], Likeness]
"""(z, d) to the likeness of section z with section z - d."""

MIN_SCORE = 0.3
"""Least share of the misfit that a rearrangement must explain."""
MIN_GAIN = 10.0
"""Least misfit that it must explain, in squared standard deviations of the stack's own noise."""
_CHANCE = 0.05  # likeness that strangers may have, too: differences below say little
_PROFILE = 3  # distances that have a likeness of their own
_FAR = _PROFILE + 1  # this and all beyond
_LEAST_STEP = 0.02  # of the profile; a flatter one tells no order
_MOST_NOISE = 0.15
_LEAST_NOISE = 0.05  # standard deviation of x
_LEAST_SPREAD, _MOST_SPREAD = 0.05, 0.5  # standard deviation of the sections' qualities
_HUBER = 3.0  # standard deviations
_ROUNDS = 4
_WEAK = 0.5  # steps of the profile: a link this much too weak may be no link
_MOST_LINKS = 24  # weak links that are combined with each other
_MOST_FINDINGS = 16
_EQUAL_GAIN = 1.0  # rearrangements that differ by less explain the same
_WINDOW = 100  # sections fitted at once


def find_order_faults(likeness: Pairs, sections: Sequence[int]) -> list[Finding]:
    """Name sections that are there twice, swapped, misplaced, or in a reversed run.

    Parameters
    ----------
    likeness : mapping of (z, d) to Likeness
        Of sections z and z - d. Usually of all neighbours to z - 3; pairs from `far_pairs` tell
        where a section belongs that is out of place by more. What is not measured is not known.
    sections : sequence of int
        The sections that are there, ascending; a gap is tissue that was lost.

    Returns
    -------
    list of Finding
        Duplicates first, then rearrangements, the surest first. Empty for a stack that is in
        order, and for one whose likenesses tell no order (fewer than four sections, or no pairs
        beyond the direct neighbours).
    """
    duplicates = find_duplicates(likeness, sections)
    copies = {finding.sections[1] for finding in duplicates}
    # Of a section that resembles none, nothing tells the place: it is as good as lost.
    alike = {end for (z, d), pair in likeness.items() if pair.tissue > 0 for end in (z, z - d)}
    stack = _Stack(likeness, [z for z in sections if z in alike - copies], copies)
    found: list[Finding] = []
    while stack.can_tell and len(found) < _MOST_FINDINGS:
        all_better = list(stack.rearrangements())
        if not all_better:
            break
        most = max(better.gain for better in all_better)
        # Of those that explain as much, the one that moves the fewest sections.
        good = [b for b in all_better if b.gain >= most - _EQUAL_GAIN]
        best = min(good, key=lambda b: (b.span, b.stop - b.start, -b.gain, b.order))
        found.append(stack.finding(best))
        stack.order = list(best.order)
    return duplicates + sorted(found, key=lambda f: (-f.score, f.sections))


def far_pairs(likeness: Pairs, sections: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Return pairs (z, d) beyond those measured that would tell where misplaced sections belong.

    Sections on both sides of weak links are compared with each other, then sections between two
    weak links with all others; a stack that is in order has few of them.

    Parameters
    ----------
    likeness : mapping of (z, d) to Likeness
        Of the neighbours.
    sections : sequence of int
        The sections that are there, ascending.
    most : int
        Pairs that may be returned at most.
    """
    copies = {finding.sections[1] for finding in find_duplicates(likeness, sections)}
    stack = _Stack(likeness, [z for z in sections if z not in copies], copies)
    weak = [k for k in stack.weak_links() if 0 < k < len(stack.order)]
    # A run that was turned round at the start or the end of the stack joins on by its far side.
    beside = [0, len(stack.order) - 1] if weak else []
    ends = sorted({stack.order[k] for k in [*beside, *weak, *(k - 1 for k in weak)]})
    lost = [stack.order[k] for k in weak if k + 1 in weak or k + 1 == len(stack.order)]
    wanted = [(a, b) for i, a in enumerate(ends) for b in ends[i + 1 :]]
    wanted += [(min(a, b), max(a, b)) for a in lost for b in stack.order if a != b]
    unknown = {(b, b - a): None for a, b in wanted if (b, b - a) not in likeness}
    return sorted(list(unknown)[:most])


class _Rearrangement(NamedTuple):
    """Another order; compared by what it explains."""

    gain: float
    score: float
    span: int
    """Sections from the first to the last that changes its place."""
    order: tuple[int, ...]
    start: int
    stop: int
    """The run of the present order that moves."""


class _Stack:
    """Sections in some order, and what their likenesses say about it."""

    def __init__(self, likeness: Pairs, order: list[int], copies: set[int]) -> None:
        self.order = order
        # A copy takes no room: the sections after it are nearer to those before it than z says.
        self.slots = [z - sum(copy < z for copy in copies) for z in order]
        known = set(order)
        self.x = {
            (z - d, z): math.log(max(pair.tissue, 0.0) + _CHANCE)
            for (z, d), pair in sorted(likeness.items())
            if z in known and z - d in known
        }
        self.pairs = np.array(sorted(self.x), np.intp).reshape(-1, 2)
        self.values = np.array([self.x[i, j] for i, j in self.pairs.tolist()])
        distance = self._distance(order)
        by_distance = [self.values[distance == d] for d in range(1, _PROFILE + 1)]
        self.can_tell = len(order) >= 4 and all(len(values) for values in by_distance[:2])
        if not self.can_tell:
            return
        # Neighbours are liker than the next ones, whatever a small sample says.
        profile = [float(np.median(values)) if len(values) else -np.inf for values in by_distance]
        self.step = max(profile[0] - profile[1], _LEAST_STEP)
        for k in range(1, _PROFILE):
            profile[k] = min(profile[k - 1], max(profile[k], profile[k - 1] - self.step))
        far = max(profile[-1] - (profile[-2] - profile[-1]), math.log(_CHANCE))
        self.profile = np.array([*profile, far])
        self.least_link = profile[0] - _WEAK * self.step
        self.noise, self.spread = _MOST_NOISE, _MOST_SPREAD
        self.quality: dict[int, float] = {}
        self.noise, self.spread = self._noise(distance)

    def _noise(self, distance: NDArray[np.intp]) -> tuple[float, float]:
        """Return the robust standard deviations of what the model leaves and of the qualities."""
        rests, qualities = [], []
        for first in range(0, len(self.order), _WINDOW):
            window = np.isin(self.pairs, self.order[first : first + _WINDOW]).all(axis=1)
            use = window & (distance < _FAR)
            if use.any():
                _, rest, quality = self._fit(use, distance)
                rests.append(rest)
                qualities.append(quality)
                self.quality |= zip(np.unique(self.pairs[use]).tolist(), quality, strict=True)
        noise, spread = (_deviation(np.concatenate(values)) for values in (rests, qualities))
        least = max(_LEAST_NOISE, self.step / 6)
        return max(noise, least), min(max(spread, _LEAST_SPREAD), _MOST_SPREAD)

    def weak_links(self) -> list[int]:
        """Return k for each link between places k - 1 and k that may be no link; ends count."""
        if not self.can_tell:
            return []
        n = len(self.order)
        strength = [self._strength(k) for k in range(1, n)]
        weak = sorted((s, k) for k, s in enumerate(strength, 1) if s < 0)
        return sorted([0, n, *(k for _, k in weak[:_MOST_LINKS])])

    def _strength(self, k: int) -> float:
        """Return by how much link k is stronger than one between strangers, or than one beside it.

        Below 0 it is weak. Where sections are thin, the next but one may be likelier than direct
        neighbours are elsewhere, so links are compared with those beside them as well.
        """
        a, b = self.order[k - 1], self.order[k]
        link = self._link(a, b)
        if link is None:
            return -math.inf
        beside = [self._link(a, c) for c in self.order[k + 1 : k + 3]]
        beside += [self._link(c, b) for c in self.order[max(k - 3, 0) : k - 1]]
        least = max([self.least_link, *(x for x in beside if x is not None)])
        return link - least

    def rearrangements(self) -> Iterator[_Rearrangement]:
        """Yield the orders that explain the likenesses far better than the present one."""
        weak = self.weak_links()
        places = self._places(weak)
        before = self._distance(self.order)
        for n, start in enumerate(weak):
            for stop in weak[n + 1 :]:
                for place in places:
                    if start < place <= stop:
                        continue
                    for is_turned in (False, True):
                        order = self._rearranged(start, stop, place, is_turned=is_turned)
                        if order is not None:
                            yield from self._weighed(order, before, start, stop)

    def _places(self, weak: list[int]) -> list[int]:
        """Return the links into which a run may be moved: weak ones, and those beside its like.

        Where a thin section was taken out, the link that is left may be as strong as others.
        """
        rank = {z: k for k, z in enumerate(self.order)}
        at = np.sort([[rank[a], rank[b]] for a, b in self.pairs.tolist()], axis=1)
        alike = at[(self.values >= self.least_link) & (at[:, 1] - at[:, 0] >= _FAR)]
        return sorted({*weak, *(k for at in alike[:_MOST_LINKS].flat for k in (at, at + 1))})

    def finding(self, found: _Rearrangement) -> Finding:
        """Return what a rearrangement of the present order is called."""
        old, new = self.order, list(found.order)
        differs = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
        low, high = differs[0], differs[-1] + 1
        span = old[low:high]
        kind: Kind
        if new[low:high] == span[::-1]:
            kind, run = ("swapped", span) if len(span) == 2 else ("reversed", span)
            at = low
        else:
            moved = set(old[found.start : found.stop])
            kind, run = "misplaced", [z for z in new if z in moved]
            at = new.index(run[0])
        shown = new[max(at - 1, 0) : at + len(run) + 1]
        return Finding(kind, tuple(run), round(found.score, 4), tuple(shown))

    def _rearranged(
        self, start: int, stop: int, place: int, *, is_turned: bool
    ) -> list[int] | None:
        """Return the order with [start, stop) moved before `place`; None if that is no better."""
        old = self.order
        run = old[start:stop][::-1] if is_turned else old[start:stop]
        if (place == start and not is_turned) or (is_turned and len(run) == 1):
            return None
        ends: list[int | None] = [None, *old, None]  # ends[k] and ends[k + 1] are joined by link k
        cut = [(ends[start], ends[start + 1]), (ends[stop], ends[stop + 1])]
        if place == start:
            made = [(ends[start], run[0]), (run[-1], ends[stop + 1])]
        else:
            cut.append((ends[place], ends[place + 1]))
            made = [
                (ends[start], ends[stop + 1]),
                (ends[place], run[0]),
                (run[-1], ends[place + 1]),
            ]
        gained = [self._link(a, b) for a, b in made if a is not None and b is not None]
        known = [x for x in gained if x is not None]
        shown = sum(known)
        if len(known) == len(made):
            # At an end of the stack a place and a quality may explain the same; elsewhere not.
            shown -= sum(self.quality.get(z, 0.0) for link in made for z in link if z is not None)
        if not known or len(known) < len(gained) or shown < len(known) * self.least_link:
            return None
        lost = [self._link(a, b) for a, b in cut if a is not None and b is not None]
        far = float(self.profile[-1])
        if sum(known) <= sum(far if x is None else x for x in lost):
            return None
        if place <= start:
            return [*old[:place], *run, *old[place:start], *old[stop:]]
        return [*old[:start], *old[stop:place], *run, *old[place:]]

    def _weighed(
        self, order: list[int], before: NDArray[np.intp], start: int, stop: int
    ) -> Iterator[_Rearrangement]:
        after = self._distance(order)
        touched = np.unique(self.pairs[np.minimum(before, _FAR) != np.minimum(after, _FAR)])
        use = np.isin(self.pairs, touched).any(axis=1)
        if not use.any():
            return
        cost_before, cost_after = (self._fit(use, distance)[0] for distance in (before, after))
        gain = cost_before - cost_after
        score = gain / max(cost_before, 1e-9)
        if gain >= MIN_GAIN and score >= MIN_SCORE:
            differs = [i for i, (a, b) in enumerate(zip(self.order, order, strict=True)) if a != b]
            span = differs[-1] - differs[0] + 1
            yield _Rearrangement(round(gain, 6), score, span, tuple(order), start, stop)

    def _link(self, a: int, b: int) -> float | None:
        return self.x.get((min(a, b), max(a, b)))

    def _distance(self, order: Sequence[int]) -> NDArray[np.intp]:
        """Return how many sections apart each measured pair lies in an order."""
        slot = dict(zip(order, self.slots, strict=True))
        places = np.array([[slot[i], slot[j]] for i, j in self.pairs.tolist()], np.intp)
        return np.abs(np.subtract(*places.reshape(-1, 2).T))

    def _fit(
        self, use: NDArray[np.bool_], distance: NDArray[np.intp]
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Fit the sections' qualities; return misfit, what is left of each pair, the qualities."""
        sections, row = np.unique(self.pairs[use], return_inverse=True)
        row = row.reshape(-1, 2)
        apart = np.minimum(distance[use], _FAR)
        excess = self.values[use] - self.profile[apart - 1]
        design = np.zeros((len(excess), len(sections)))
        design[np.arange(len(excess)), row[:, 0]] = 1
        design[np.arange(len(excess)), row[:, 1]] += 1
        rest, quality = excess, np.zeros(len(sections))
        for _ in range(_ROUNDS):
            # Far sections may be as different as they like, only not alike.
            trust = _trust(rest / self.noise) * ((apart < _FAR) | (rest > 0))
            weighted = design * trust[:, None] / self.noise**2
            prior = _trust(quality / self.spread) / self.spread**2
            quality = np.linalg.solve(weighted.T @ design + np.diag(prior), weighted.T @ excess)
            rest = excess - design @ quality
        counted = np.where((apart == _FAR) & (rest < 0), 0.0, rest)
        misfit = _huber(counted / self.noise).sum() + _huber(quality / self.spread).sum()
        return float(misfit), rest, quality


def _trust(size: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights with which least squares minimises `_huber`."""
    return _HUBER / np.maximum(np.abs(size), _HUBER)


def _huber(size: NDArray[np.float64]) -> NDArray[np.float64]:
    large = np.maximum(np.abs(size) - _HUBER, 0.0)
    small = np.abs(size) - large
    return small**2 + 2 * _HUBER * large


def _deviation(values: NDArray[np.float64]) -> float:
    return float(np.median(np.abs(values - np.median(values)))) / 0.6745
