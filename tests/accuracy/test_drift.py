"""The drift of 500 sections with biased matches is bounded; docs/drift.md has the whole table."""

import pytest

from tests.accuracy.drift import CASES, FAR, WanderingFields, biased_matches, measure

BIASED = CASES[:2]


@pytest.mark.parametrize("case", BIASED, ids=lambda case: case.name)
def test_biased_matches_do_not_let_500_sections_wander(case):
    drift = measure(case, FAR["8, 32"], anchor=0.01, nodes=4)
    assert drift.peak_to_peak < 5
    assert drift.neighbours < 0.7


def test_long_range_matches_hold_what_hardly_an_anchor_holds():
    near = measure(BIASED[0], anchor=1e-4, sections=250, nodes=4)
    far = measure(BIASED[0], FAR["8, 32"], anchor=1e-4, sections=250, nodes=4)
    assert far.largest < 0.85 * near.largest


def test_only_every_eighth_section_has_long_range_matches():
    truth = WanderingFields(40)
    pairs = biased_matches(truth, CASES[0], 97, (8, 32))
    far = [(p.z, p.d) for p in pairs if p.d > 2]
    assert far == [(8, 8), (16, 8), (24, 8), (32, 8), (32, 32)]
