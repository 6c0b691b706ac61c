"""Placement: made-up stacks whose every transform is known, with noise, errors and gaps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.affines import apply_affine, compose_affines, invert_affine
from alignment.config import CoarseConfig
from alignment.errors import DataError, ShapeError
from alignment.placement import fit_canvas, solve_stack
from alignment.posefit import PairAffine

SHAPE = (800, 1000)
CENTRE = (np.array(SHAPE) - 1) / 2
CORNERS = np.array([[0.0, 0], [0, SHAPE[1] - 1], [SHAPE[0] - 1, 0], [SHAPE[0] - 1, SHAPE[1] - 1]])
CONFIG = CoarseConfig()


def about_centre(linear, shift=(0.0, 0.0)):
    return np.column_stack([linear, CENTRE + shift - linear @ CENTRE])


def turn(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s], [s, c]])


def recorded(count, *, seed=0, stretch=0.0, turns=None):
    """Return C_z of a stack as the microscope might record it: jittered by 3 degrees and 30 px."""
    random = np.random.default_rng(seed)
    return [
        about_centre(
            turn(random.normal(0, 3) + (turns or {}).get(z, 0))
            @ (np.eye(2) + random.normal(0, stretch, (2, 2))),
            random.normal(0, 30, 2),
        )
        for z in range(count)
    ]


def measured(transforms, *, neighbours=3, seed=0, noise_px=0.0, noise=0.0, without=()):
    """Return the pairs of a stack; errors grow with the square root of the distance."""
    random = np.random.default_rng(seed + 1)
    pairs = {}
    for z in range(len(transforms)):
        for d in range(1, min(neighbours, z) + 1):
            error = math.sqrt(d) * random.normal(size=(2, 3)) * [noise, noise, noise_px]
            true = compose_affines(transforms[z], invert_affine(transforms[z - d]))
            matrix = compose_affines(about_centre(np.eye(2) + error[:, :2], error[:, 2]), true)
            if z not in without and z - d not in without:
                pairs[z, d] = PairAffine(
                    matrix, score=0.6 / math.sqrt(d), inliers=50, method="made up"
                )
    return pairs


def wrong(seed=0, score=0.3):
    random = np.random.default_rng(seed)
    matrix = about_centre(turn(random.uniform(40, 320)), random.uniform(-200, 200, 2))
    return PairAffine(matrix, score, inliers=20, method="made up")


def tissue(solution, transforms, points=CORNERS):
    """Return where the common frame shows the tissue that lies at `points` of the true frame."""
    return np.array(
        [
            apply_affine(invert_affine(found), apply_affine(true, points))
            for found, true in zip(solution.matrices, transforms, strict=True)
        ]
    )


def misfit_px(solution, transforms, distance=1):
    places = tissue(solution, transforms)
    return np.hypot(*np.moveaxis(places[distance:] - places[:-distance], -1, 0))


def test_exact_pairs_are_met_exactly():
    transforms = recorded(12)
    solution = solve_stack(measured(transforms), 12, SHAPE, [], CONFIG)
    assert solution.matrices.shape == (12, 2, 3)
    assert misfit_px(solution, transforms).max() < 0.01
    assert max(solution.residual_px.values()) < 0.01
    assert set(solution.residual_px) == set(measured(transforms))
    assert solution.rejected == solution.bridged == ()
    assert solution.parts == (tuple(range(12)),)


def test_the_solution_composes_like_its_pairs():
    transforms = recorded(6)
    pairs = measured(transforms)
    matrices = solve_stack(pairs, 6, SHAPE, [], CONFIG).matrices
    for (z, d), pair in pairs.items():
        chained = compose_affines(pair.matrix, matrices[z - d])
        np.testing.assert_allclose(
            apply_affine(chained, CORNERS), apply_affine(matrices[z], CORNERS), atol=0.01
        )


def test_one_wrong_pair_is_out_voted():
    transforms = recorded(20, stretch=0.01)
    pairs = measured(transforms, noise_px=1.0, noise=0.002)
    clean = solve_stack(pairs, 20, SHAPE, [], CONFIG)
    solution = solve_stack(pairs | {(9, 1): wrong(score=0.9)}, 20, SHAPE, [], CONFIG)
    assert solution.rejected == ((9, 1),)
    assert solution.residual_px[9, 1] > 100
    assert solution.parts == (tuple(range(20)),)
    assert misfit_px(solution, transforms).max() < misfit_px(clean, transforms).max() + 3


@pytest.mark.parametrize("share", [0.05, 0.15])
def test_scattered_wrong_pairs_are_out_voted(share):
    transforms = recorded(150, stretch=0.01)
    pairs = measured(transforms, noise_px=1.0, noise=0.002)
    random = np.random.default_rng(3)
    bad = {key: wrong(seed=i) for i, key in enumerate(pairs) if random.random() < share}
    solution = solve_stack(pairs | bad, 150, SHAPE, [], CONFIG)
    assert solution.rejected == tuple(sorted(bad))
    assert misfit_px(solution, transforms).max() < 20


def test_a_section_whose_pairs_are_all_wrong_harms_no_other():
    transforms = recorded(20, stretch=0.01)
    pairs = measured(transforms, noise_px=1.0, noise=0.002)
    bad = [key for key in pairs if 9 in (key[0], key[0] - key[1])]
    pairs |= {key: wrong(seed=n, score=0.6) for n, key in enumerate(bad)}
    solution = solve_stack(pairs, 20, SHAPE, [], CONFIG)
    assert len(set(bad) - set(solution.rejected)) <= 1
    assert set(solution.rejected) <= set(bad)
    without = {key: pair for key, pair in pairs.items() if key not in bad}
    alone = solve_stack(without, 20, SHAPE, [9], CONFIG)
    others = np.delete(np.arange(20), 9)
    apart = [
        apply_affine(a, CORNERS) - apply_affine(b, CORNERS)
        for a, b in zip(solution.matrices[others], alone.matrices[others], strict=True)
    ]
    assert np.abs(apart).max() < 2


def test_a_stretched_section_is_not_wrong_because_it_is_alone():
    """Each pair here is the only one of its section: nothing contradicts it but rigidity."""
    transforms = recorded(30)
    transforms[15] = compose_affines(transforms[15], about_centre(np.diag([1.12, 0.9])))
    faint = {
        key: PairAffine(pair.matrix, 0.1, 20, "made up")
        for key, pair in measured(transforms, neighbours=1).items()
    }
    solution = solve_stack(faint, 30, SHAPE, [], CONFIG)
    assert solution.rejected == ()
    assert solution.parts == (tuple(range(30)),)


def sizes(places):
    """Return how large the tissue appears in each section, against the first."""
    diagonal = np.linalg.norm(places[:, 3] - places[:, 0], axis=1)
    return diagonal / diagonal[0]


def test_scale_does_not_drift_over_500_sections():
    """Errors of 0.5 % a pair: a chain of the pairs doubles or halves the tissue on its way."""
    transforms = recorded(500)
    pairs = measured(transforms, noise_px=1.0, noise=0.005)
    # Every measurement a little too large, as when tissue swells along a neurite.
    swollen = {
        key: PairAffine(
            compose_affines(about_centre(np.eye(2) * 1.002), pair.matrix), pair.score, 50, ""
        )
        for key, pair in pairs.items()
    }
    solution = solve_stack(swollen, 500, SHAPE, [], CONFIG)
    chain = [transforms[0]]
    for z in range(1, 500):
        chain.append(compose_affines(swollen[z, 1].matrix, chain[-1]))
    pushed = np.array([invert_affine(c) for c in chain])
    chained = np.array(
        [apply_affine(g, apply_affine(c, CORNERS)) for g, c in zip(pushed, transforms, strict=True)]
    )
    assert np.abs(np.log(sizes(chained))).max() > 0.5
    assert np.abs(np.log(sizes(tissue(solution, transforms)))).max() < 0.02
    assert solution.rejected == ()
    # What is left is smooth: neighbours fit as well as their pairs say.
    assert np.median(misfit_px(solution, transforms)) < 5


def test_rigidity_is_obeyed():
    transforms = recorded(30, stretch=0.03)
    pairs = measured(transforms)
    strain = []
    for rigidity in (0.0, 0.1, 10.0):
        config = CoarseConfig(rigidity=rigidity)
        matrices = solve_stack(pairs, 30, SHAPE, [], config).matrices
        strain.append(np.abs(np.linalg.svd(matrices[:, :, :2], compute_uv=False) - 1).mean())
    assert strain[0] > strain[1] > 5 * strain[2]
    assert strain[0] < 0.05


def test_most_sections_keep_their_orientation_and_place():
    turns = {0: 90.0, 5: 180.0, 17: -120.0}
    transforms = recorded(25, turns=turns)
    solution = solve_stack(measured(transforms), 25, SHAPE, [], CONFIG)
    assert misfit_px(solution, transforms).max() < 0.01
    linear = solution.matrices[:, :, :2]
    angles = np.degrees(np.arctan2(linear[:, 1, 0] - linear[:, 0, 1], np.trace(linear.T)))
    for z, angle in enumerate(angles):
        assert abs((angle - turns.get(z, 0) + 180) % 360 - 180) < 10
    straight = [z for z in range(25) if z not in turns]
    assert abs(np.mean(angles[straight])) < 0.1
    places = [apply_affine(solution.matrices[z], CENTRE[np.newaxis])[0] for z in straight]
    assert np.abs(np.median(places, axis=0) - CENTRE).max() < 10


def test_a_missing_section_lies_between_its_neighbours():
    transforms = [about_centre(turn(10.0 * z), (4.0 * z, 0.0)) for z in range(5)]
    pairs = measured(transforms, without=[2])
    pairs[2, 1] = wrong()  # has no say
    solution = solve_stack(pairs, 5, SHAPE, [2], CONFIG)
    assert solution.bridged == (2,)
    assert solution.parts == ((0, 1, 3, 4),)
    assert (2, 1) not in solution.residual_px
    assert misfit_px(solution, transforms).max() < 1
    assert np.linalg.det(solution.matrices[2, :, :2]) == pytest.approx(1, abs=1e-3)


def test_a_bridged_section_does_not_average_opposite_neighbours():
    transforms = recorded(6, turns={3: 180.0})
    solution = solve_stack(measured(transforms, without=[4]), 6, SHAPE, [], CONFIG)
    assert solution.bridged == (4,)
    np.testing.assert_allclose(solution.matrices[4], solution.matrices[5])


def test_parts_without_a_link_are_placed_by_what_is_typical_of_them():
    transforms = recorded(40)
    pairs = measured(transforms)
    pairs = {(z, d): pair for (z, d), pair in pairs.items() if not z - d < 25 <= z}
    solution = solve_stack(pairs, 40, SHAPE, [], CONFIG)
    assert solution.parts == (tuple(range(25)), tuple(range(25, 40)))
    assert solution.bridged == ()
    misfit = misfit_px(solution, transforms)
    assert np.delete(misfit, 24, axis=0).max() < 0.01
    assert misfit[24].max() < 60  # jitter of 30 px and 3 degrees, averaged over 8 sections


@pytest.mark.parametrize("count", [0, 1, 4])
def test_without_pairs_sections_stay_where_their_images_are(count):
    solution = solve_stack({}, count, SHAPE, [], CONFIG)
    np.testing.assert_array_equal(solution.matrices, np.tile(np.eye(2, 3), (count, 1, 1)))
    assert solution.bridged == tuple(range(count))
    assert solution.parts == ()


def test_a_stack_of_missing_sections_is_no_error():
    solution = solve_stack({(1, 1): wrong()}, 2, SHAPE, {0, 1}, CONFIG)
    np.testing.assert_array_equal(solution.matrices, np.tile(np.eye(2, 3), (2, 1, 1)))
    assert solution.bridged == (0, 1)


def test_the_order_of_the_pairs_does_not_change_a_bit():
    pairs = measured(recorded(30, stretch=0.01), noise_px=2.0, noise=0.003) | {(7, 2): wrong()}
    first = solve_stack(pairs, 30, SHAPE, [11], CONFIG)
    second = solve_stack(dict(reversed(pairs.items())), 30, SHAPE, {11}, CONFIG)
    assert first.matrices.tobytes() == second.matrices.tobytes()
    assert first.rejected == second.rejected
    assert first.residual_px == second.residual_px
    np.testing.assert_array_equal(first.matrices * 2.0**30 % 1, 0)
    still = [about_centre(np.eye(2), (-7.0 * z, 0.0)) for z in range(5)]
    matrices = solve_stack(measured(still), 5, SHAPE, [], CONFIG).matrices
    assert np.count_nonzero(matrices == 0) == 16
    assert not np.signbit(matrices[matrices == 0]).any()


@pytest.mark.parametrize(
    ("key", "matrix", "message"),
    [
        ((5, 1), np.eye(2, 3), "needs sections 4 and 5 of 0..3"),
        ((1, 2), np.eye(2, 3), "needs sections -1 and 1"),
        ((2, 0), np.eye(2, 3), "with d >= 1"),
        ((2, 1), np.full((2, 3), np.nan), "finite"),
        ((2, 1), np.eye(2, 3)[::-1], "order .y, x."),
    ],
)
def test_impossible_pairs_are_refused(key, matrix, message):
    with pytest.raises(DataError, match=message):
        solve_stack({key: PairAffine(matrix, 0.5, 20, "")}, 4, SHAPE, [], CONFIG)


def test_sections_without_pixels_are_refused():
    with pytest.raises(ShapeError, match="at least one pixel"):
        solve_stack({}, 4, (0, 10), [], CONFIG)


@given(
    st.lists(
        st.tuples(st.floats(-180, 180), st.floats(-90, 90), st.floats(-90, 90)),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=50, deadline=None)
def test_the_canvas_holds_every_section_and_no_more(places):
    matrices = np.array([about_centre(turn(a), (dy, dx)) for a, dy, dx in places])
    moved, (ny, nx) = fit_canvas(matrices, SHAPE)
    reached = np.array([apply_affine(invert_affine(matrix), CORNERS) for matrix in moved])
    assert reached.min() > -0.01
    assert (reached.max(axis=(0, 1)) < np.array([ny, nx]) - 0.99).all()
    assert (reached.min(axis=(0, 1)) < 1.01).all()
    assert (reached.max(axis=(0, 1)) > np.array([ny, nx]) - 2.01).all()
    # The frame moves by whole pixels, the same ones for every section.
    origin = np.array(
        [
            apply_affine(invert_affine(old), new[np.newaxis, :, 2])[0]
            for old, new in zip(matrices, moved, strict=True)
        ]
    )
    np.testing.assert_allclose(origin, np.rint(origin[:1]).repeat(len(origin), axis=0), atol=1e-6)


def test_an_aligned_stack_keeps_its_canvas():
    matrices = np.tile(np.eye(2, 3), (3, 1, 1))
    moved, canvas = fit_canvas(matrices, SHAPE)
    np.testing.assert_array_equal(moved, matrices)
    assert canvas == SHAPE


def test_an_absurd_canvas_names_the_section_and_a_way_out():
    matrices = np.tile(np.eye(2, 3), (5, 1, 1))
    matrices[3, :, 2] = 2500, 100
    with pytest.raises(
        DataError, match=r"3300 x 1100 px .* Section 3 lies farthest .*coarse.max_scale_change"
    ):
        fit_canvas(matrices, SHAPE)
    assert fit_canvas(matrices, SHAPE, max_growth=4)[1] == (3300, 1100)
