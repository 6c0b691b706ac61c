"""The residual of the tables of relaxation, and the fit of sigma, on answers that are known."""

from dataclasses import replace

import numpy as np
import pytest

from tests.accuracy.recipes import SectionMap
from tests.accuracy.relax_cases import AS_IS, Case, cases, swapped
from tests.accuracy.relax_matched import Matched, with_outliers
from tests.accuracy.relax_measures import FAR_SECTIONS, residuals, show
from tests.accuracy.sigma_table import fit, within
from tests.accuracy.stacks import make_stack

SIDE, SPACING = 128, 32


class Slid(SectionMap):
    """A section that shows the tissue some px further down."""

    def __init__(self, down_px):
        super().__init__(AS_IS, (SIDE, SIDE), 0, [1])
        self.shift = np.array([down_px, 0.0])


@pytest.fixture
def drifting():
    """Six sections, each 2 px further down than the one before."""
    count = FAR_SECTIONS + 1
    return Matched(
        matrices=np.tile(np.eye(2, 3), (count, 1, 1)),
        canvas=(SIDE, SIDE),
        matches={},
        defects=np.zeros((count, SIDE // 2, SIDE // 2), np.uint8),
        gone=(),
        lost=0,
        maps=tuple(Slid(2.0 * z) for z in range(count)),
        base=tuple(range(count)),
        images=np.zeros((count, SIDE, SIDE), np.uint8),
    )


def fields(count, **shifts):
    made = np.zeros((count, 2, SIDE // SPACING + 1, SIDE // SPACING + 1), np.float32)
    for name, px in shifts.items():
        made[:, 0] += px if name == "all" else 0
        made[int(name[1:]) if name[0] == "z" else [], 0] += px
    return made


def test_sections_that_lie_as_they_came_are_apart_by_what_the_maps_say(drifting):
    found = residuals([show(drifting, fields(6), SPACING)])
    np.testing.assert_allclose(found.everywhere, 2.0, atol=1e-9)
    np.testing.assert_allclose(found.far, 2.0 * FAR_SECTIONS, atol=1e-9)
    np.testing.assert_allclose([*found.upright, *found.far_upright], 0.0, atol=1e-9)


def test_a_shift_of_the_whole_volume_changes_nothing_and_one_of_a_section_does(drifting):
    whole = residuals([show(drifting, fields(6, all=3.0), SPACING)])
    np.testing.assert_allclose(whole.everywhere, 2.0, atol=1e-9)
    one = residuals([show(drifting, fields(6, z5=-2.0), SPACING)])
    assert one.pair_medians[-1] == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(one.pair_medians[:-1], 2.0, atol=1e-9)


def test_a_missing_section_is_left_out_and_its_neighbours_are_compared(drifting):
    found = residuals([show(replace(drifting, gone=(2,)), fields(6), SPACING)])
    assert found.pair_medians == pytest.approx([2, 4, 2, 2])


def test_outliers_are_a_tenth_and_the_same_every_time():
    matches = np.zeros((14, 40, 40), np.float32)
    made = with_outliers(matches, seed=[3, 1])
    assert np.count_nonzero(made[0]) / 1600 == pytest.approx(0.1, abs=0.02)
    np.testing.assert_array_equal(made, with_outliers(matches, seed=[3, 1]))
    assert np.hypot(*made[:2]).max() <= 40


def test_re_ordered_sections_keep_their_own_maps():
    base = np.full((3, 96, 96), 128, np.uint8)
    stack = make_stack(base, "neighbours", AS_IS, seed=1)
    other = swapped(stack, 1)
    assert other.base == (0, 2, 1)
    assert other.maps[1] is stack.maps[2]


def test_every_set_has_its_control_and_copies_of_a_section_have_no_order():
    made = cases(["vnc", "phantom"], ["none", "re-ordered"])
    assert Case("vnc", "neighbours", "as is") in made
    assert not [case for case in made if case.truth == "twins" and case.flaw == "re-ordered"]
    assert len({case.label for case in made}) == len(made)


def test_the_fit_finds_the_curve_that_errors_follow():
    random = np.random.default_rng(0)
    sigma = np.exp(random.normal(-1.5, 1, 20_000))
    errors = random.normal(size=(20_000, 2)) * (2.0 * sigma**0.8)[:, np.newaxis]
    factor, exponent = fit({Case("vnc", "twins", "std"): (errors, sigma)})
    assert factor == pytest.approx(2.0, rel=0.05)
    assert exponent == pytest.approx(0.8, rel=0.05)
    assert within(errors, 2.0 * sigma**0.8) == pytest.approx((0.683, 0.954), abs=0.01)
