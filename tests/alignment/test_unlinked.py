"""Unlinked sections are named with what they were compared with."""

from __future__ import annotations

from alignment.unlinked import find_unlinked

PAIRS = [(z, d) for z in range(8) for d in (1, 2) if z >= d]


def told(parts, sections=range(8), **changes):
    return [(f.kind, f.sections) for f in find_unlinked(parts, sections, PAIRS, **changes)]


def test_nothing_is_said_where_all_hold_together():
    assert told([range(8)]) == []
    assert told([(0, 1, 2, 3), (3, 4), (4, 5, 6, 7)]) == []


def test_a_section_that_fits_none_is_named_with_the_pairs_that_were_tried():
    (finding,) = find_unlinked([(0, 1, 2, 4, 5, 6, 7)], range(8), PAIRS)
    assert finding.sections == (3,)
    assert "section 3 fits none of its neighbours" in finding.sentence
    assert "no believable match with 1, 2, 4, 5" in finding.sentence


def test_the_smaller_part_is_named():
    (finding,) = find_unlinked([(0, 1, 2, 3, 4), (5, 6, 7)], range(8), PAIRS)
    assert finding.sections == (5, 6, 7)
    assert "sections 5 to 7 fit each other, but no other section" in finding.sentence


def test_a_pair_of_strangers_is_named_from_both_sides():
    assert told([], sections=[0, 1]) == [("unlinked", (0,)), ("unlinked", (1,))]


def test_one_section_alone_misses_nobody():
    assert told([], sections=[0]) == []
    assert told([], sections=[]) == []


def test_what_is_explained_otherwise_is_not_told_again():
    assert told([(0, 1, 2, 4, 5, 6, 7)], explained={3}) == []
    assert told([(0, 1, 2, 4, 5, 6)], explained={3}) == [("unlinked", (7,))]
