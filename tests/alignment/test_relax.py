import numpy as np
import pytest

from alignment import relax
from alignment.config import RelaxConfig
from alignment.errors import ConfigError, ConvergenceError, DataError, ShapeError
from alignment.fields import STEPS_PER_PX, evaluate, flipped_cells, grid_points, node_grid
from alignment.relax import PairMatches, relax_stack
from tests.known_fields import KnownFields, inner_points, neighbour_errors

SIDE = 384
SPACING = 32
NODES = node_grid((SIDE, SIDE), SPACING)


def relaxed(matches, nz, *, match_spacing=SPACING, missing=(), torn=None, held=None, **settings):
    defaults = {"node_spacing_px": SPACING, "stiffness": 2.0, "anchor": 0.01, "huber_px": 3.0}
    config = RelaxConfig(**{**defaults, **settings})
    return relax_stack(
        *(matches, nz, (SIDE, SIDE), match_spacing, config),
        missing=missing,
        stiffness_map=torn,
        held=held,
    )


def uniform(z, d, match, *, known=1.0, seed=0):
    """A pair that measures one displacement everywhere, or at a share of the nodes."""
    displacement = np.tile(np.float32(match)[:, None, None], (1, *NODES))
    displacement[:, np.random.default_rng((seed, z, d)).random(NODES) > known] = np.nan
    return PairMatches(z, d, displacement)


@pytest.fixture(scope="module")
def truth():
    return KnownFields(8)


@pytest.fixture(scope="module")
def matches(truth):
    return truth.matches(SIDE, SPACING, d=1) + truth.matches(SIDE, SPACING, d=2)


@pytest.fixture(scope="module")
def result(matches):
    return relaxed(matches, 8)


def test_known_fields_are_recovered_through_noise_outliers_and_holes(truth, result):
    points = inner_points(SIDE)
    before = neighbour_errors(np.stack([truth.push(z, points) for z in range(8)]))
    after = neighbour_errors(truth.misplaced(result.field, SPACING, points))
    assert np.median(before) > 5
    assert np.median(after) < 1.2
    assert np.percentile(after, 99) < 3.5


def test_smooth_fields_are_recovered_to_half_a_pixel():
    truth = KnownFields(8, px=20, length_px=400)
    pairs = truth.matches(SIDE, SPACING, d=1) + truth.matches(SIDE, SPACING, d=2)
    after = neighbour_errors(truth.misplaced(relaxed(pairs, 8).field, SPACING, inner_points(SIDE)))
    assert np.median(after) < 0.5


def test_the_order_of_the_matches_does_not_matter(matches, result):
    again = relaxed(matches[::-1], 8)
    np.testing.assert_array_equal(again.field, result.field)
    np.testing.assert_array_equal(again.sigma, result.sigma)
    for one, other in zip(again.residual_px[::-1], result.residual_px, strict=True):
        np.testing.assert_array_equal(one, other)


def test_sections_without_a_pull_stay_where_they_are():
    still = relaxed([uniform(z, 1, (0, 0)) for z in range(1, 5)], 5)
    np.testing.assert_array_equal(still.field, 0)
    assert still.minimum.energy.total == still.minimum.steps == 0
    assert still.minimum.reason == "nothing to do"


def test_a_shift_between_two_sections_is_shared_and_costs_no_elastic_energy():
    both = relaxed([uniform(1, 1, (4, -6))], 2, anchor=1e-4)
    # p + U_1 = p + m + U_0, and the anchor keeps the mean of the two at 0.
    np.testing.assert_allclose(both.push[1, 0], 2, atol=0.01)
    np.testing.assert_allclose(both.push[0, 1], 3, atol=0.01)
    assert both.minimum.energy.elastic < 1e-4
    np.testing.assert_allclose(both.residual_px[0], 0, atol=0.01)


def test_a_drift_that_all_matches_agree_on_becomes_a_ramp():
    pairs = [uniform(z, d, (0.5 * d, -1.0 * d)) for d in (1, 2) for z in range(d, 6)]
    push = relaxed(pairs, 6, anchor=1e-6).push
    expected = np.multiply.outer(np.arange(6) - 2.5, [0.5, -1.0])
    np.testing.assert_allclose(push.mean(axis=(2, 3)), expected, atol=0.02)


def test_the_anchor_bounds_the_drift_of_a_long_stack():
    nz = 200
    pairs = [uniform(z, 1, (0.1, 0)) for z in range(1, nz)]
    free, held = (
        np.abs(relaxed(pairs, nz, anchor=a, node_spacing_px=128).push).max() for a in (1e-6, 0.01)
    )
    assert free > 8, "0.1 px a section add up"
    assert held < 1.2, "0.1 px times the length sqrt(1 / anchor) of the chain"


def test_field_is_the_quantised_inverse_of_push(result):
    nodes = grid_points(*NODES, SPACING)
    for push, field in zip(result.push, result.field, strict=True):
        np.testing.assert_array_equal(field * STEPS_PER_PX, np.rint(field * STEPS_PER_PX))
        coarse = nodes + field.reshape(2, -1).T
        back = coarse + evaluate(push, SPACING, coarse)
        np.testing.assert_allclose(back, nodes, atol=0.05)


@pytest.mark.parametrize(("mesh", "match_spacing"), [(16, 32), (48, 32), (32, 16), (32, 48)])
def test_stiffness_means_the_same_on_any_mesh_and_any_grid_of_matches(mesh, match_spacing):
    truth = KnownFields(4, px=8, length_px=150)
    points = inner_points(SIDE)
    places = []
    for h, s in ((SPACING, SPACING), (mesh, match_spacing)):
        pairs = truth.matches(SIDE, s, d=1, noise_px=0, wrong=0, missing=0)
        field = relaxed(pairs, 4, match_spacing=s, node_spacing_px=h, stiffness=4.0).field
        places.append(truth.misplaced(field, h, points))
    assert np.median(neighbour_errors(places[0])) > 0.5, "stiff enough to be felt"
    apart = places[0] - places[1]
    assert np.abs(apart).mean() < 0.2 * np.abs(places[0] - places[0].mean(axis=0)).mean()


def test_wrong_matches_pull_no_harder_the_more_they_are_wrong():
    pushes = []
    for wrong in (12, 24):
        pair = uniform(1, 1, (1, 1))
        pair.displacement[:, 5, 5] = wrong
        push = relaxed([pair], 2).push
        pushes.append(push[1] - push[0])
    np.testing.assert_allclose(pushes[0], 1, atol=1.3)
    np.testing.assert_allclose(pushes[0], pushes[1], atol=0.25)


def test_a_match_sure_across_a_membrane_only_pulls_across_it():
    def pull(covariance):
        displacement = np.zeros((2, *NODES), np.float32)
        displacement[:, 5:7, 5:7] = 2.0
        spread = np.ones((3, *NODES), np.float32)
        spread[1] = 0
        spread[:, 5:7, 5:7] = np.float32(covariance)[:, None, None]
        push = relaxed([PairMatches(1, 1, displacement, spread)], 2, huber_px=10).push
        return (push[1] - push[0])[:, 5:7, 5:7].mean(axis=(1, 2))

    alike, dy_sure = pull((1, 0, 1)), pull((0.1, 0, 10))
    assert alike[0] == pytest.approx(alike[1], rel=0.01)
    assert dy_sure[0] > 1.1 * alike[0]
    assert dy_sure[1] < 0.6 * alike[1]


def test_the_weight_of_a_match_counts():
    light, heavy = uniform(1, 1, (0, 0)), uniform(1, 1, (0, 0))
    for pair in (light, heavy):
        pair.displacement[0, 5, 5] = 1
    weight = np.ones(NODES, np.float32)
    weight[5, 5] = 5
    heavy = PairMatches(1, 1, heavy.displacement, weight=weight)
    moved = [np.ptp(relaxed([pair], 2).push[1, 0]) for pair in (light, heavy)]
    assert moved[1] > 1.5 * moved[0]
    none = PairMatches(1, 1, light.displacement, weight=np.zeros(NODES, np.float32))
    assert relaxed([none], 2).bridged == (0, 1)


def test_missing_sections_are_interpolated_and_their_matches_ignored():
    pairs = [uniform(z, 1, (1, 0)) for z in (1, 4)] + [uniform(4, 3, (9, 0))]
    pairs += [uniform(2, 1, (500, 500)), uniform(3, 1, (500, 500))]
    result = relaxed(pairs, 5, missing={2, 3}, anchor=1e-5)
    assert result.bridged == (2, 3)
    means = result.push[:, 0].mean(axis=(1, 2))
    np.testing.assert_allclose(np.diff(means[[0, 1, 4]]), [1, 9], atol=0.1)
    np.testing.assert_allclose(means[2:4], means[1] + np.array([1, 2]) / 3 * 9, atol=0.1)
    assert np.isnan(result.sigma[2:4]).all()
    assert np.isfinite(result.sigma[[0, 1, 4]]).all()
    assert np.isnan(result.residual_px[3]).all()


def test_locked_sections_stay_and_the_others_come_to_them():
    pairs = [uniform(z, 1, (3, 0)) for z in (1, 2)]
    push = relaxed(pairs, 3, locked=(1,), anchor=1e-5).push
    np.testing.assert_array_equal(push[1], 0)
    np.testing.assert_allclose(push[2, 0], 3, atol=0.01)
    np.testing.assert_allclose(push[0, 0], -3, atol=0.01)
    with pytest.raises(ConfigError, match=r"relax\.locked names section 3"):
        relaxed(pairs, 3, locked=(3,))


def test_between_fields_that_hold_the_others_come_to_lie_as_in_the_whole_stack(matches, result):
    held = {z: result.push[z] for z in (0, 1, 5, 6, 7)}
    between = relaxed(matches, 8, held=held)
    np.testing.assert_allclose(between.push, result.push, atol=2e-3)
    with pytest.raises(ShapeError, match=r"section 1 is held by must have shape"):
        relaxed(matches, 8, held={1: result.push[1, :, 1:]})


def test_a_stack_without_matches_between_its_halves_says_so():
    result = relaxed([uniform(1, 1, (2, 0)), uniform(3, 1, (2, 0))], 5)
    assert result.parts == (0, 0, 1, 1, 2)
    assert result.bridged == (4,)
    np.testing.assert_allclose(result.push[:4, 0].mean(axis=(1, 2)), [-1, 1, -1, 1], atol=0.05)


@pytest.mark.parametrize("pairs", [[], [uniform(1, 1, (np.nan, np.nan))]])
def test_a_stack_without_matches_is_left_alone(pairs):
    result = relaxed(pairs, 3)
    np.testing.assert_array_equal(result.field, 0)
    assert np.isnan(result.sigma).all()
    assert result.bridged == (0, 1, 2)


def test_a_single_section_is_left_alone():
    assert relaxed([], 1).field.shape == (1, 2, *NODES)


def test_folds_are_repaired_and_counted():
    pair = uniform(1, 1, (0, 0))
    left = np.arange(NODES[1]) * SPACING < SIDE / 2
    pair.displacement[1] = np.where(left, 60, -60)  # the halves pass through each other
    result = relaxed([pair], 2, stiffness=1e-3, huber_px=200)
    assert result.flipped_repaired > 0
    for fields in (result.push, result.field):
        assert not any(flipped_cells(field, SPACING).any() for field in fields)


def test_stiffer_cells_repair_a_fold_without_smoothing(monkeypatch):
    monkeypatch.setattr(relax, "_SMOOTHING_ROUNDS", 1)  # fails where smoothing was needed
    pair = uniform(1, 1, (0, 0))
    pair.displacement[1, 5, 5:7] = (45, -45)
    result = relaxed([pair], 2, stiffness=0.1, huber_px=100)
    assert 0 < result.flipped_repaired < 20


def test_a_torn_section_opens_along_its_crack():
    pair = uniform(1, 1, (0, 0))
    crack = NODES[1] // 2
    pair.displacement[1, :, :crack] = -4
    pair.displacement[1, :, crack:] = 4
    torn = np.ones((2, NODES[0] - 1, NODES[1] - 1), np.float32)
    torn[:, :, crack - 1] = 0.001
    whole, opened = (relaxed([pair], 2, huber_px=50, torn=cells) for cells in (None, torn))
    assert np.nanmean(opened.residual_px[0]) < 0.2 * np.nanmean(whole.residual_px[0])


@pytest.mark.parametrize("stiffness", [0.3, 2.0])
def test_sigma_is_the_size_of_the_error(truth, matches, stiffness):
    result = relaxed(matches, 8, stiffness=stiffness)
    points = inner_points(SIDE)
    misplaced = truth.misplaced(result.field, SPACING, points)
    error = misplaced[1:-1] - (misplaced[:-2] + misplaced[2:]) / 2
    sigma = np.stack([evaluate(np.stack([s, s]), SPACING, points) for s in result.sigma[1:-1]])
    ratio = np.abs(error / sigma)
    assert 0.7 < np.sqrt((ratio**2).mean()) < 1.2
    assert 0.002 < (ratio > 2).mean() < 0.1, "0.05 if errors were normal and sigma right"


def test_sigma_grows_into_holes_and_with_the_noise():
    def sigma(noise_px):
        pairs = KnownFields(6, px=1).matches(
            SIDE, SPACING, d=1, noise_px=noise_px, wrong=0, missing=0
        )
        for pair in pairs:
            if 3 in (pair.z, pair.z - 1):
                pair.displacement[:, 3:10, 3:10] = np.nan
        return relaxed(pairs, 6).sigma

    quiet, noisy = sigma(0.5), sigma(1.5)
    assert quiet[3, 5:8, 5:8].mean() > 1.2 * quiet[3, 11:, :].mean()
    assert 2 < np.median(noisy) / np.median(quiet) < 4


def test_an_unreached_tolerance_names_the_settings(matches):
    with pytest.raises(ConvergenceError, match=r"raise relax\.max_iterations"):
        relaxed(matches, 8, max_iterations=1)


def test_arrays_that_do_not_fit_are_refused_by_name():
    with pytest.raises(DataError, match=r"pair \(z=1, d=2\) does not lie in a stack of 3"):
        relaxed([uniform(1, 2, (0, 0))], 3)
    with pytest.raises(ShapeError, match=r"pair \(z=1, d=1\).*covariance of shape \(2, 3\)"):
        relaxed([PairMatches(1, 1, np.zeros((2, 3, 3), np.float32), np.zeros((2, 3)))], 2)
    cells = (2, NODES[0] - 1, NODES[1] - 1)
    with pytest.raises(ShapeError, match="one value a cell"):
        relaxed([], 2, torn=np.ones(cells[1:], np.float32))
    with pytest.raises(DataError, match="above 0"):
        relaxed([], 2, torn=np.zeros(cells, np.float32))
