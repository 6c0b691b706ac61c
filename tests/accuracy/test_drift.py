"""The drift of 500 sections with biased matches is bounded; docs/drift.md has the whole table."""

import pytest

from alignment.config import RelaxConfig
from tests.accuracy.drift import CASES, FAR, WanderingFields, biased_matches, measure

BIASED = (CASES[0], CASES[2])
"""Off by 0.2 px everywhere; and turning slowly."""


@pytest.mark.parametrize("case", BIASED, ids=lambda case: case.name)
def test_biased_matches_do_not_let_500_sections_wander(case):
    drift = measure(case, FAR["8, 32"], anchor=RelaxConfig().anchor, nodes=4)
    assert drift.largest < 5
    assert drift.neighbours < 0.8


def test_long_range_matches_hold_what_hardly_an_anchor_holds():
    near = measure(BIASED[0], anchor=1e-3, sections=250, nodes=4)
    far = measure(BIASED[0], FAR["8, 32"], anchor=1e-3, sections=250, nodes=4)
    assert far.largest < 0.85 * near.largest


def test_only_every_eighth_section_has_long_range_matches():
    truth = WanderingFields(40)
    pairs = biased_matches(truth, CASES[0], 97, (8, 32))
    far = [(p.z, p.d) for p in pairs if p.d > 2]
    assert far == [(8, 8), (16, 8), (24, 8), (32, 8), (32, 32)]
