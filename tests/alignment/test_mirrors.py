"""Mirrors: which sections are mirrored follows from their pairs, as does their frame."""

from __future__ import annotations

import numpy as np

from alignment.affines import apply_affine, compose_affines, invert_affine
from alignment.mirrors import (
    mirror,
    mirrored_again,
    mirrored_sections,
    more_alike,
    pairs_to_mirror,
    unmirrored,
)
from alignment.posefit import PairAffine

WIDTH = 200


def shifted(dy, dx):
    return np.array([[1.0, 0, dy], [0, 1, dx]])


def stack(count, mirrored=(), neighbours=3, seed=0):
    """Return C_z of a stack with mirrored sections, and all of its pairs."""
    random = np.random.default_rng(seed)
    places = [shifted(*random.normal(0, 9, 2)) for _ in range(count)]
    for z in mirrored:
        places[z] = compose_affines(mirror(WIDTH), places[z])
    pairs = {
        (z, d): PairAffine(
            compose_affines(places[z], invert_affine(places[z - d])), 0.6 / d, 50, "made up"
        )
        for z in range(count)
        for d in range(1, min(neighbours, z) + 1)
    }
    return places, pairs


def is_plain(pair):
    return np.linalg.det(pair.matrix[:, :2]) > 0


def test_pixels_land_where_the_flipped_array_has_them():
    image = np.arange(12).reshape(3, 4)
    places = np.array([[y, x] for y in range(3) for x in range(4)], float)
    y, x = np.rint(apply_affine(mirror(4), places)).astype(int).T
    np.testing.assert_array_equal(image[:, ::-1].ravel(), image[y, x])


def test_only_pairs_between_unlinked_groups_are_compared_mirrored():
    _, pairs = stack(12, mirrored=(4, 5))
    plain = [key for key, pair in pairs.items() if is_plain(pair)]
    wanted = pairs_to_mirror(sorted(pairs), plain, range(12))
    # 4 and 5 have no plain link but the one between them, so that one is doubtful too.
    assert set(wanted) == set(pairs) - set(plain) | {(5, 1)}
    assert pairs_to_mirror(sorted(pairs), sorted(pairs), range(12)) == []


def test_the_fewer_sections_are_the_mirrored_ones():
    assert mirrored_sections(stack(12, mirrored=(4, 5))[1]) == (4, 5)
    assert mirrored_sections(stack(12, mirrored=(0,))[1]) == (0,)
    most = [z for z in range(12) if z not in (3, 9)]
    assert mirrored_sections(stack(12, mirrored=most)[1]) == (3, 9)
    assert mirrored_sections(stack(2, mirrored=(0,))[1]) == (1,)
    assert mirrored_sections(stack(5)[1]) == ()
    assert mirrored_sections({}) == ()


def test_a_weak_wrong_pair_does_not_turn_sections_over():
    _, pairs = stack(12, mirrored=(6,))
    pairs[9, 3] = PairAffine(np.eye(2, 3), 0.1, 20, "wrong")
    assert mirrored_sections(pairs) == (6,)
    assert (9, 3) not in unmirrored(pairs, (6,), WIDTH)
    assert set(unmirrored(pairs, (6,), WIDTH)) == set(pairs) - {(9, 3)}


def test_solved_in_the_plain_frame_sections_end_up_as_they_really_are():
    mirrored = (1, 4)
    places, pairs = stack(6, mirrored=mirrored)
    plain = unmirrored(pairs, mirrored, WIDTH)
    assert all(is_plain(pair) for pair in plain.values())
    frames = [
        compose_affines(mirror(WIDTH), p) if z in mirrored else p for z, p in enumerate(places)
    ]
    for (z, d), pair in plain.items():
        there = compose_affines(pair.matrix, frames[z - d])
        np.testing.assert_allclose(there, frames[z], atol=1e-9)
    back = mirrored_again(np.array(frames), mirrored, WIDTH)
    np.testing.assert_allclose(back, places, atol=1e-9)


def test_a_section_with_a_single_link_is_looked_at_as_well():
    found = [(z, 1) for z in range(1, 12) if z != 5]
    compared = [(z, d) for z in range(12) for d in (1, 2) if z >= d]
    wanted = pairs_to_mirror(compared, found, range(12))
    # 4 and 5 are the ends of two groups, as 0 and 11 are of the stack.
    assert {(5, 1), (4, 1), (6, 1), (4, 2), (5, 2), (6, 2)} <= set(wanted)
    assert not {(8, 1), (9, 1), (9, 2)} & set(wanted)


def test_a_chance_match_does_not_turn_a_part_of_the_stack_over():
    """Only neighbours are alike: a mirrored section that matches one by chance cuts the stack."""
    _, pairs = stack(12, mirrored=(6,), neighbours=1)
    plain = {key: pair for key, pair in pairs.items() if is_plain(pair)}
    plain[6, 1] = PairAffine(np.eye(2, 3), 0.3, 20, "chance")
    wanted = pairs_to_mirror(sorted(pairs), plain, range(12))
    seen = {key: pair for key, pair in pairs.items() if key in wanted and not is_plain(pair)}
    assert mirrored_sections(more_alike(plain, seen)) == (6,)
    assert more_alike(plain, {}) == plain
