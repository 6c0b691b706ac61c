import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage as ndi

from alignment.config import FilterConfig
from alignment.errors import ShapeError
from alignment.filter import (
    Reason,
    count_reasons,
    cycle_error,
    judge_section,
    reject_cycles,
    reject_outliers,
)
from alignment.match import CHANNELS

SPACING = 32
LIMITS = {
    "min_score": 0.2,
    "min_peak_ratio": 1.15,
    "min_r_delta": 0.03,
    "min_sharpness": 0.1,
    "min_mirror": 0.05,
    "max_curvature_ratio": 12.0,
    "max_median_deviation_px": 8.0,
    "max_strain": 0.35,
    "min_component_nodes": 4,
    "max_cycle_px": 6.0,
}
GOOD = {
    "score": 0.6,
    "peak_ratio": 2.0,
    "r_delta_5": 0.3,
    "r_delta_10": 0.35,
    "r_delta_15": 0.4,
    "sharpness": 0.8,
    "mirror": 0.5,
    "curvature_ratio": 4.5,
    "overlap": 1.0,
    "cov_yy": 0.1,
    "cov_yx": 0.0,
    "cov_xx": 0.1,
}


def matches(shift, **channels):
    """Matches of good quality with the displacements (2, ny, nx), unless said otherwise."""
    shift = np.asarray(shift, np.float32)
    made = np.empty((len(CHANNELS), *shift.shape[1:]), np.float32)
    made[:2] = shift
    for name, value in (GOOD | channels).items():
        made[CHANNELS.index(name)] = value
    made[:, np.isnan(shift[0])] = np.nan
    return made


def smooth_field(shape=(40, 50), amplitude=12.0, seed=0):
    noise = np.random.default_rng(seed).normal(size=(2, *shape))
    field = ndi.gaussian_filter(noise, (0, 5, 5))
    return field / np.abs(field).max() * amplitude


def judge(made, **limits):
    return reject_outliers(made, spacing_px=SPACING, config=FilterConfig(**LIMITS | limits))


def test_good_matches_pass_untouched():
    made = matches(smooth_field())
    trusted, reasons = judge(made)
    np.testing.assert_array_equal(trusted, made)
    assert trusted.dtype == np.float32
    assert reasons.dtype == np.uint16
    assert not reasons.any()


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.floats(-60, 60))
def test_a_stretched_turned_and_shifted_section_passes(stretch, shear, turn, shift):
    y, x = np.mgrid[:12, :15] * float(SPACING)
    made = matches([stretch * y + (shear - turn) * x + shift, (shear + turn) * y - stretch * x])
    trusted, _ = judge(made, max_median_deviation_px=1.0)
    np.testing.assert_array_equal(trusted, made)


@pytest.mark.parametrize("seed", range(3))
def test_a_tenth_of_wild_matches_is_found_and_the_others_are_kept(seed):
    random = np.random.default_rng(seed)
    field = smooth_field(seed=seed) + random.normal(0, 0.5, (2, 40, 50))
    wild = random.random((40, 50)) < 0.1
    angle, length = random.uniform(0, 2 * np.pi, (40, 50)), random.uniform(10, 40, (40, 50))
    field += np.where(wild, length * np.stack([np.sin(angle), np.cos(angle)]), 0)
    trusted, _ = judge(matches(field))
    rejected = np.isnan(trusted[0])
    assert rejected[wild].mean() >= 0.95
    assert rejected[~wild].mean() <= 0.02


def test_a_clump_of_wild_matches_is_outvoted():
    field = smooth_field()
    field[:, 20:22, 30:33] += 25
    trusted, reasons = judge(matches(field))
    assert np.isnan(trusted[:, 20:22, 30:33]).all()
    assert (reasons[20:22, 30:33] & Reason.MEDIAN).all()
    assert np.isnan(trusted[0]).sum() == 6


@pytest.mark.parametrize(
    ("channel", "bad", "reason"),
    [
        ("score", 0.1, Reason.SCORE),
        ("peak_ratio", 1.01, Reason.PEAK_RATIO),
        ("r_delta_5", 0.001, Reason.R_DELTA),
        ("sharpness", 0.05, Reason.SHARPNESS),
        ("mirror", 0.02, Reason.MIRROR),
        ("curvature_ratio", 30.0, Reason.CURVATURE),
    ],
)
def test_each_weakness_has_its_reason(channel, bad, reason):
    made = matches(smooth_field())
    made[CHANNELS.index(channel), 7, 9] = bad
    trusted, reasons = judge(made)
    assert reasons[7, 9] == reason
    assert np.isnan(trusted[:, 7, 9]).all()
    assert np.count_nonzero(reasons) == 1
    assert count_reasons(reasons)[reason.name] == 1


def test_a_match_can_have_several_reasons_and_counts_once():
    made = matches(smooth_field(), score=0.01, r_delta_5=0.0)
    _, reasons = judge(made)
    assert (reasons == Reason.SCORE | Reason.R_DELTA).all()
    counts = count_reasons(reasons)
    assert counts.pop("SCORE") == reasons.size
    assert not any(counts.values())
    assert list(count_reasons(reasons)) == [
        "SCORE",
        "PEAK_RATIO",
        "R_DELTA",
        "SHARPNESS",
        "MIRROR",
        "CURVATURE",
        "MEDIAN",
        "STRAIN",
        "COMPONENT",
        "CYCLE",
        "CONFIDENCE",
        "DAMAGE",
    ]


def test_a_unique_peak_passes():
    made = matches(smooth_field(), peak_ratio=np.inf, r_delta_5=0.6)
    assert np.isfinite(judge(made)[0][0]).all()


def test_unknown_nodes_stay_unknown_without_a_reason():
    field = smooth_field()
    field[:, 5:9, 5:9] = np.nan
    trusted, reasons = judge(matches(field))
    assert np.isnan(trusted[:, 5:9, 5:9]).all()
    assert not reasons.any()


def test_holes_are_not_taken_for_displacements_of_zero():
    # A section that moved far, seen only in strips: with 0 for the holes every median would be 0.
    field = np.full((2, 20, 20), 90.0)
    field[:, :, 2::4] = field[:, :, 3::4] = np.nan
    trusted, reasons = judge(matches(field))
    assert not reasons.any()
    np.testing.assert_array_equal(trusted[:2], field.astype(np.float32))


def test_the_two_sides_of_a_crack_may_move_apart():
    field = np.zeros((2, 30, 30))
    field[0, 15:] = 40
    trusted, _ = judge(matches(field))
    assert np.isfinite(trusted[0]).all()


def test_strain_rejects_the_match_and_not_its_neighbours():
    field = np.zeros((2, 9, 9))
    field[1, 4, 4] = 7.0
    _, reasons = judge(matches(field), max_strain=0.15)
    assert reasons[4, 4] == Reason.STRAIN
    assert np.count_nonzero(reasons) == 1


def test_small_islands_are_dropped():
    field = np.full((2, 20, 20), np.nan)
    field[:, 2:12, 2:12] = 0
    field[:, 16, 16:19] = 0
    trusted, reasons = judge(matches(field), min_component_nodes=4)
    assert (reasons[16, 16:19] == Reason.COMPONENT).all()
    assert np.isfinite(trusted[0]).sum() == 100
    assert np.isfinite(judge(matches(field), min_component_nodes=3)[0][0]).sum() == 103


def test_islands_are_of_matches_in_step():
    # Two neighbours that lie side by side but contradict each other do not support each other.
    field = np.full((2, 8, 8), np.nan)
    field[:, 3, 3], field[:, 3, 4] = 0, 7
    field[:, 6, 3], field[:, 6, 4] = 0, 1
    _, reasons = judge(matches(field), max_strain=0.1, min_component_nodes=2)
    assert (reasons[3, 3:5] == Reason.STRAIN).all()
    assert not reasons[6].any()


def test_one_node_and_no_node_are_judged_too():
    assert judge(matches(np.zeros((2, 1, 1))), min_component_nodes=1)[1].item() == 0
    assert judge(matches(np.zeros((2, 1, 1))))[1].item() == Reason.COMPONENT
    assert np.isnan(judge(matches(np.full((2, 3, 3), np.nan)))[0]).all()


def test_inputs_are_not_modified():
    made = matches(smooth_field())
    made[:2, 3, 3] += 50
    before = made.copy()
    judge(made)
    reject_cycles(made, made, made, spacing_px=SPACING, config=FilterConfig())
    np.testing.assert_array_equal(made, before)


# --------------------------------------------------------------------------- cycles


def three_ways(seed=0):
    """Return matches z to z - 1, z - 1 to z - 2 and z to z - 2 of sections that agree."""
    near, link = smooth_field(seed=seed), smooth_field(seed=seed + 1)
    ny, nx = near.shape[1:]
    nodes = np.mgrid[:ny, :nx]
    at = nodes + near / SPACING
    moved = np.stack([ndi.map_coordinates(c, at, order=1, mode="nearest") for c in link])
    return matches(near), matches(link), matches(near + moved)


def close(near, link, far, **limits):
    return reject_cycles(
        near, link, far, spacing_px=SPACING, config=FilterConfig(**LIMITS | limits)
    )


def test_ways_that_agree_have_no_cycle_error_and_lose_nothing():
    near, link, far = three_ways()
    error = cycle_error(near, link, far, spacing_px=SPACING)
    np.testing.assert_allclose(error, 0, atol=1e-4)
    kept_near, kept_far, near_reasons, far_reasons = close(near, link, far)
    np.testing.assert_array_equal(kept_near, near)
    np.testing.assert_array_equal(kept_far, far)
    assert not near_reasons.any()
    assert not far_reasons.any()
    assert near_reasons.dtype == far_reasons.dtype == np.uint16


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("wrong", ["near", "link", "far"])
def test_a_wrong_match_is_blamed_by_its_neighbours(wrong, size):
    ways = dict(zip(("near", "link", "far"), three_ways(), strict=True))
    ways[wrong][:2, 20 : 20 + size, 30 : 30 + size] += 25
    _, _, near_reasons, far_reasons = close(**ways)
    expected = np.zeros((40, 50), np.uint16)
    if wrong != "link":
        expected[20 : 20 + size, 30 : 30 + size] = Reason.CYCLE
    np.testing.assert_array_equal(near_reasons, expected if wrong == "near" else 0 * expected)
    np.testing.assert_array_equal(far_reasons, expected if wrong == "far" else 0 * expected)


@pytest.mark.parametrize("wrong", ["near", "link", "far"])
def test_a_wrong_region_is_blamed_by_its_covariance(wrong):
    ways = dict(zip(("near", "link", "far"), three_ways(), strict=True))
    region = np.s_[15:23, 20:28]
    ways[wrong][:2, *region] += 25
    ways[wrong][-3:, *region] *= 10
    _, _, near_reasons, far_reasons = close(**ways)
    flagged = {"near": near_reasons > 0, "far": far_reasons > 0}
    for name, nodes in flagged.items():
        if name == wrong:
            assert nodes[region].all()
        assert np.count_nonzero(nodes) <= (64 if name == wrong else 6)


def test_what_is_blamed_is_removed_in_all_channels():
    near, link, far = three_ways()
    far[:2, 10, 10] -= 30
    kept_near, kept_far, _, _ = close(near, link, far)
    assert np.isnan(kept_far[:, 10, 10]).all()
    assert np.isfinite(kept_far).all(0).sum() == 40 * 50 - 1
    np.testing.assert_array_equal(kept_near, near)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_without_all_three_there_is_no_cycle_and_no_verdict(missing):
    ways = three_ways()
    ways[2][:2] += 100
    ways[missing][:] = np.nan
    _, _, near_reasons, far_reasons = close(*ways)
    assert not near_reasons.any()
    assert not far_reasons.any()


def test_disagreement_within_the_limit_is_tolerated():
    near, link, far = three_ways()
    far[0] += 5
    assert not close(near, link, far, max_cycle_px=5.5)[3].any()
    assert close(near, link, far, max_cycle_px=4.5)[3].any()


# --------------------------------------------------------------------------- sections


def judge_all(near, link, far, **limits):
    return judge_section(
        {1: near, 2: far},
        {(1, 2): link},
        spacing_px=SPACING,
        config=FilterConfig(**LIMITS | limits),
    )


def test_a_section_is_judged_by_all_filters_in_order():
    near, link, far = three_ways()
    near[CHANNELS.index("score"), 3, 3] = 0.01
    far[0, 10, 10] -= 7  # little enough for the median, too much for the cycle
    link[CHANNELS.index("score"), 20, 20] = 0.01
    judged = judge_all(near, link, far)
    assert judged[1].reasons[3, 3] == Reason.SCORE
    assert judged[2].reasons[10, 10] == Reason.CYCLE
    assert np.count_nonzero(judged[1].reasons) == np.count_nonzero(judged[2].reasons) == 1
    for one, matches in ((judged[1], near), (judged[2], far)):
        kept = one.reasons == 0
        np.testing.assert_array_equal(one.matches, np.where(kept, matches, np.nan))
        assert np.isnan(one.cycle_px[~kept]).all()
    # No cycle goes over a link that is not trusted itself.
    assert np.isnan(judged[1].cycle_px).sum() > 2
    assert np.nanmax(judged[1].cycle_px) < 1e-3


def test_a_match_is_as_far_off_as_its_best_cycle_says():
    near, link, far = three_ways()
    other = far.copy()
    other[0] += 3
    judged = judge_section(
        {1: near, 2: far, 3: other},
        {(1, 2): link, (1, 3): link},
        spacing_px=SPACING,
        config=FilterConfig(**LIMITS),
    )
    np.testing.assert_allclose(judged[1].cycle_px, 0, atol=1e-4)
    np.testing.assert_allclose(judged[3].cycle_px, 3, atol=1e-4)


def test_matches_with_other_channels_or_nodes_are_refused():
    near, link, far = three_ways()
    with pytest.raises(
        ShapeError, match=r"matches must have shape \(14, ny, nx\), channels dy, dx"
    ):
        judge(near[:4])
    with pytest.raises(ShapeError, match=r"far must have the nodes of near \(14, 40, 50\)"):
        close(near, link, far[:, :5])
