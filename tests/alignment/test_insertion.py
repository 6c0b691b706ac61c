"""Insertion: sections placed anew among others that stay, on stacks whose transforms are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alignment.affines import apply_affine
from alignment.insertion import insert_sections
from alignment.placement import solve_stack
from tests.alignment.test_placement import (
    CONFIG,
    CORNERS,
    SHAPE,
    about_centre,
    measured,
    recorded,
    turn,
)


@pytest.fixture(scope="module")
def stack():
    transforms = recorded(12, stretch=0.004, turns={5: 170})
    pairs = measured(transforms, noise_px=0.2, noise=1e-4)
    return pairs, solve_stack(pairs, 12, SHAPE, (), CONFIG)


def off_px(found, wanted):
    return np.abs(apply_affine(found, CORNERS) - apply_affine(wanted, CORNERS)).max()


@pytest.mark.parametrize("anew", [(4,), (5,), (0,), (11,), (10, 11), (3, 4, 8)])
def test_sections_come_to_lie_where_the_whole_stack_would_have_put_them(stack, anew):
    pairs, whole = stack
    known = {z: whole.matrices[z] for z in range(12) if z not in anew}
    found = insert_sections(pairs, known, 12, SHAPE, (), CONFIG)
    for z in known:
        np.testing.assert_array_equal(found.matrices[z], whole.matrices[z])
    assert max(off_px(found.matrices[z], whole.matrices[z]) for z in anew) < 1.0
    assert found.parts == whole.parts
    assert found.bridged == ()


def test_a_wrong_pair_does_not_move_the_new_section(stack):
    pairs, whole = stack
    wrong = replace(pairs[7, 1], matrix=about_centre(turn(40), (60.0, 0)), score=0.4)
    known = {z: whole.matrices[z] for z in range(12) if z != 7}
    found = insert_sections({**pairs, (7, 1): wrong}, known, 12, SHAPE, (), CONFIG)
    assert found.rejected == ((7, 1),)
    assert off_px(found.matrices[7], whole.matrices[7]) < 1.0


def test_a_new_section_without_pairs_lies_between_its_neighbours(stack):
    pairs, whole = stack
    without = {key: pair for key, pair in pairs.items() if 6 not in (key[0], key[0] - key[1])}
    known = {z: whole.matrices[z] for z in range(12) if z != 6}
    found = insert_sections(without, known, 12, SHAPE, (), CONFIG)
    assert found.bridged == (6,)
    middle = (apply_affine(known[7], CORNERS) + apply_affine(known[5], CORNERS)) / 2
    alone = apply_affine(known[7], CORNERS)  # section 5 is turned over: the exception
    got = apply_affine(found.matrices[6], CORNERS)
    assert min(np.abs(got - middle).max(), np.abs(got - alone).max()) < 1e-3


def test_a_missing_section_keeps_its_known_place_and_pairs_with_it_are_ignored(stack):
    pairs, whole = stack
    known = {z: whole.matrices[z] for z in range(12) if z != 3}
    found = insert_sections(pairs, known, 12, SHAPE, {2}, CONFIG)
    np.testing.assert_array_equal(found.matrices[2], whole.matrices[2])
    assert found.bridged == (2,)
    assert off_px(found.matrices[3], whole.matrices[3]) < 1.5
