"""Order: made-up likenesses of stacks whose faults are known, and of stacks without any."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alignment.likeness import Likeness
from alignment.order import far_pairs, find_order_faults

NEIGHBOURS = 3


class Tissue:
    """Sections whose likeness falls with their true distance, times their own quality."""

    def __init__(self, count, *, seed=0, step=0.5, noise=0.03, spread=0.08):
        random = np.random.default_rng(seed)
        self.quality = np.exp(random.normal(0, spread, count))
        self.noise = np.exp(random.normal(0, noise, (count, count)))
        self.step = step

    def alike(self, a, b):
        """Return the likeness of true sections a and b."""
        if a == b:
            return Likeness(1.0, 1.0)
        a, b = min(a, b), max(a, b)
        odds = self.quality[a] * self.quality[b] * self.noise[a, b]
        odds *= 2 * math.exp(-self.step * (b - a))
        return Likeness(float(odds / (1 + odds)), 0.1)


def found_in(order, tissue=None, *, neighbours=NEIGHBOURS, missing=(), without=()):
    """Return what is found in a stack whose section z is the true section ``order[z]``."""
    tissue = tissue or Tissue(max(order) + 1)
    present = [z for z in range(len(order)) if z not in missing]
    near = [
        (z, z - present[i - k])
        for i, z in enumerate(present)
        for k in range(1, neighbours + 1)
        if i >= k and (z, z - present[i - k]) not in without
    ]
    alike = {(z, d): tissue.alike(order[z], order[z - d]) for z, d in near}
    far = far_pairs(alike, present, 2 * len(order))
    assert not set(far) & set(near)
    alike |= {(z, d): tissue.alike(order[z], order[z - d]) for z, d in far}
    return find_order_faults(alike, present), far


def told(order, **changes):
    return [(f.kind, f.sections, f.order) for f in found_in(order, **changes)[0]]


def swap(count, *at):
    order = list(range(count))
    for k in at:
        order[k], order[k + 1] = order[k + 1], order[k]
    return order


def moved(count, start, to):
    order = list(range(count))
    order.insert(to, order.pop(start))
    return order


def test_two_swapped_sections_and_a_double_in_thirty_are_named():
    order = swap(30, 11)
    order.insert(21, order[20])
    assert told(order) == [
        ("duplicated", (20, 21), ()),
        ("swapped", (11, 12), (10, 12, 11, 13)),
    ]


@pytest.mark.parametrize("k", [0, 1, 10, 17, 18])
def test_swapped_sections_are_named_wherever_they_are(k):
    (finding,), _ = found_in(swap(20, k))
    assert (finding.kind, finding.sections) == ("swapped", (k, k + 1))
    assert finding.score > 0.5
    assert "swapped" in finding.sentence


def test_several_faults_are_told_apart():
    assert {f[:2] for f in told(swap(30, 3, 15, 24))} == {
        ("swapped", (3, 4)),
        ("swapped", (15, 16)),
        ("swapped", (24, 25)),
    }


@pytest.mark.parametrize(
    ("start", "to", "order"),
    [(10, 12, (9, 12, 10)), (4, 19, (3, 19, 4)), (19, 4, (19, 4, 20)), (0, 9, (9, 0))],
)
def test_a_section_out_of_place_is_told_where_it_belongs(start, to, order):
    assert told(moved(24, start, to)) == [("misplaced", (to,), order)]


def test_a_reversed_run_is_named_and_its_order_suggested():
    order = [*range(8), *range(15, 7, -1), *range(16, 24)]
    run = tuple(range(8, 16))
    assert told(order) == [("reversed", run, (7, *run[::-1], 16))]


@pytest.mark.parametrize("turned", [slice(None, 5), slice(-5, None)])
def test_a_reversed_run_at_an_end_is_named(turned):
    order = list(range(20))
    order[turned] = order[turned][::-1]
    ((kind, sections, _),) = told(order)
    assert (kind, sections) == ("reversed", tuple(range(20)[turned]))


def test_a_run_out_of_place_is_moved_as_a_whole():
    order = [*range(6), *range(10, 20), *range(6, 10), *range(20, 25)]
    assert told(order) == [("misplaced", (16, 17, 18, 19), (5, 16, 17, 18, 19, 6))]


def test_doubles_do_not_hide_a_swap_beside_them():
    order = swap(20, 8)
    order.insert(10, order[9])
    assert told(order) == [
        ("duplicated", (9, 10), ()),
        ("swapped", (8, 9), (7, 9, 8, 11)),
    ]


def test_a_section_recorded_again_is_a_double_though_its_noise_is_new():
    tissue = Tissue(20)
    tissue.alike = lambda a, b, alike=tissue.alike: Likeness(0.9, 0.15) if a == b else alike(a, b)
    order = list(range(20))
    order.insert(7, 6)
    (finding,), _ = found_in(order, tissue)
    assert (finding.kind, finding.sections) == ("duplicated", (6, 7))
    assert "recorded again" in finding.sentence


def test_a_stack_in_order_raises_hardly_ever_an_alarm():
    """At the ends of a stack a place and a poor section may explain the same: one in a thousand."""
    random = np.random.default_rng(5)
    alarms = []
    for seed in range(1000):
        count, step = int(random.integers(4, 41)), random.uniform(0.15, 0.8)
        spread = step * random.choice([random.uniform(0, 0.25), 0.25])
        tissue = Tissue(count, seed=seed, step=step, noise=step / 10, spread=spread)
        alarms += [(finding, count) for finding in told(range(count), tissue=tissue)]
    assert len(alarms) <= 2, alarms
    for (kind, sections, _), count in alarms:
        assert kind == "swapped"
        assert set(sections) in ({0, 1}, {count - 2, count - 1})


@pytest.mark.parametrize("quality", [0.5, 0.2, 0.05, 0.0])
@pytest.mark.parametrize("z", [0, 1, 9, 19])
def test_a_bad_section_is_not_called_misplaced(quality, z):
    tissue = Tissue(20)
    tissue.quality[z] *= quality
    assert told(range(20), tissue=tissue) == []


@pytest.mark.parametrize("factor", [0.5, 0.2, 0.0])
def test_one_bad_pair_is_no_fault_of_the_order(factor):
    tissue = Tissue(20)
    tissue.noise[8, 9] *= factor
    tissue.noise[18, 19] *= factor
    assert told(range(20), tissue=tissue) == []


def test_lost_sections_and_pairs_without_overlap_raise_no_alarm():
    assert told(range(20), missing=(5, 6, 11)) == []
    assert told(range(20), without={(9, 1), (9, 2), (10, 2), (9, 3), (10, 3), (11, 3)}) == []


@pytest.mark.parametrize("foreign", [0, 2, 5])
def test_a_section_that_resembles_none_says_nothing_about_the_others(foreign):
    tissue = Tissue(6)
    tissue.noise[foreign, :] = tissue.noise[:, foreign] = 0
    assert told(range(6), tissue=tissue) == []


def test_a_swap_across_a_gap_is_named():
    order = list(range(20))
    order[7], order[9] = 9, 7
    assert told(order, missing=(8,)) == [("swapped", (7, 9), (6, 9, 7, 10))]


def test_the_far_look_is_short_where_all_is_well():
    assert found_in(range(40))[1] == []
    far = found_in(moved(40, 4, 30))[1]
    assert 0 < len(far) <= 80
    assert {30 - d if z == 30 else z for z, d in far} >= {3, 4}


@pytest.mark.parametrize("order", [[], [0], [0, 1], [0, 1, 2], [1, 0, 2]])
def test_too_short_a_stack_tells_nothing(order):
    if order:
        assert told(order) == []
    assert find_order_faults({}, range(len(order))) == []
    assert far_pairs({}, range(len(order)), 10) == []


def test_direct_neighbours_alone_tell_no_order():
    assert told(swap(20, 8), neighbours=1) == []


def test_what_is_found_does_not_depend_on_the_order_of_the_pairs():
    tissue, order = Tissue(20), swap(20, 8)
    pairs = {
        (z, d): tissue.alike(order[z], order[z - d]) for z in range(20) for d in (1, 2, 3) if z >= d
    }
    assert find_order_faults(pairs, range(20)) == find_order_faults(
        dict(reversed(pairs.items())), range(20)
    )


@pytest.mark.parametrize("bad", [7, 8, 9, 10])
def test_a_bad_section_does_not_hide_a_swap(bad):
    """Its own likenesses are low wherever it is; only their ratios tell its place."""
    tissue = Tissue(20)
    tissue.quality[bad] *= 0.4
    assert told(swap(20, 8), tissue=tissue) == [("swapped", (8, 9), (7, 9, 8, 10))]
