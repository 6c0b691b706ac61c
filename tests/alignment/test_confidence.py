import numpy as np
import pytest

from alignment.confidence import STATISTICS, confidence, reject_unsure, solver_weight, statistics
from alignment.confidence_model import Model, parse_model, shipped_model
from alignment.config import FilterConfig
from alignment.errors import DataError, ShapeError
from alignment.filter import Judged, Reason
from alignment.match import CHANNELS

SPACING = 32
GOOD = {
    "score": 0.7,
    "peak_ratio": 3.0,
    "r_delta_5": 0.25,
    "r_delta_10": 0.5,
    "r_delta_15": 0.5,
    "sharpness": 0.8,
    "mirror": 0.7,
    "curvature_ratio": 4.5,
    "overlap": 1.0,
    "cov_yy": 0.15,
    "cov_yx": 0.0,
    "cov_xx": 0.15,
}


def matches(shape=(12, 14), **channels):
    """Good matches that all say the same, unless said otherwise."""
    made = np.empty((len(CHANNELS), *shape), np.float32)
    made[:2] = np.reshape([3, -2], (2, 1, 1))
    for name, value in (GOOD | channels).items():
        made[CHANNELS.index(name)] = value
    return made


def judge(made, cycle_px=None):
    return confidence(made, spacing_px=SPACING, cycle_px=cycle_px)


def values(made, cycle_px=None):
    found = statistics(made, spacing_px=SPACING, cycle_px=cycle_px)
    return dict(zip(STATISTICS, found, strict=True))


def model(**weights):
    full = dict.fromkeys(STATISTICS, 0.0) | weights
    return Model(0.5, full, (-1.0, 0.0, 2.0), (0.1, 0.4, 0.9))


def test_the_curve_is_linear_between_its_knots_and_constant_beyond():
    made = matches()
    made[CHANNELS.index("overlap"), 0, :5] = (-1.5, -1, 0.5, 1.5, 9)
    found = confidence(made, spacing_px=SPACING, model=model(overlap=1.0))[0, :5]
    # Logits -1, -0.5, 1, 2 and 9.5.
    np.testing.assert_allclose(found, [0.1, 0.25, 0.65, 0.9, 0.9], rtol=1e-6)


def test_good_matches_are_sure_and_bad_ones_are_not():
    sure = judge(matches(), np.full((12, 14), 0.1, np.float32))
    assert sure.dtype == np.float32
    assert sure.min() > 0.8
    wild = matches(score=0.2, r_delta_5=0.02, cov_yy=4.0, cov_xx=4.0)
    wild[:2] += np.random.default_rng(0).normal(0, 8, (2, 12, 14))
    assert judge(wild).max() < 0.5


def test_a_larger_covariance_is_less_sure():
    assert (judge(matches(cov_yy=6.0, cov_xx=6.0)) < judge(matches())).all()


def test_a_match_that_its_neighbours_or_a_third_section_contradict_is_less_sure():
    made = matches()
    made[0, 6, 7] += 6
    assert judge(made)[6, 7] < judge(matches())[6, 7]
    closed, broken = (np.full((12, 14), px, np.float32) for px in (0.2, 6.0))
    assert (judge(matches(), broken) < judge(matches(), closed)).all()


def test_where_there_is_no_match_there_is_no_confidence_and_no_influence():
    made = matches()
    made[:, 3:5, 3:8] = np.nan
    found = judge(made)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(made[0]))
    far = judge(matches())
    np.testing.assert_array_equal(found[9:], far[9:])


def test_statistics_are_finite_for_whatever_a_match_can_hold():
    made = matches(peak_ratio=np.inf, score=-0.3, sharpness=-1.0, curvature_ratio=np.inf)
    made[:, 1:] = np.nan
    made[:, :, 1::2] = np.nan  # lone matches
    found = statistics(made, spacing_px=SPACING)
    assert np.isfinite(found[:, 0, ::2]).all()
    assert values(made)["rival"][0, 0] == 0
    assert values(made)["open"][0, 0] == 1


def test_a_hole_in_the_cycles_is_filled_by_those_around_it():
    cycle_px = np.full((12, 14), 2.9, np.float32)
    cycle_px[6, 7] = np.nan
    found = values(matches(), cycle_px)
    assert found["cycle"][6, 7] == found["cycles"][6, 7] == pytest.approx(np.log(3))
    assert not found["open"].any()


def test_the_shipped_model_is_a_probability_that_rises():
    shipped = shipped_model()
    assert list(shipped.weights) == list(STATISTICS)
    assert (np.diff(shipped.logits) > 0).all()
    assert (np.diff(shipped.probabilities) >= 0).all()  # level only where it is capped
    assert (np.diff([p for p in shipped.probabilities if p < 0.999]) > 0).all()
    assert 0 < shipped.probabilities[0] < 0.2
    assert 0.9 < shipped.probabilities[-1] < 1
    assert "fit_confidence" in shipped.made_by


def test_unsure_matches_are_rejected_with_their_reason_and_the_others_keep_their_confidence():
    made = matches()
    made[CHANNELS.index("overlap"), 0, :4] = (-1.5, -1, 0.5, 1.5)
    judged = Judged(made, np.zeros((12, 14), np.uint16), np.full((12, 14), 0.5, np.float32))
    config = FilterConfig(min_confidence=0.3)
    left, sure = reject_unsure(judged, spacing_px=SPACING, config=config, model=model(overlap=1.0))
    assert list(left.reasons[0, :4]) == [Reason.CONFIDENCE, Reason.CONFIDENCE, 0, 0]
    np.testing.assert_allclose(sure[0, :4], [np.nan, np.nan, 0.65, 0.9], rtol=1e-6)
    assert np.isnan(left.matches[:, 0, :2]).all()
    np.testing.assert_array_equal(left.matches[:, 0, 2:], made[:, 0, 2:])
    assert left.reasons.dtype == np.uint16
    assert sure.dtype == left.cycle_px.dtype == np.float32


def test_the_surer_a_match_the_more_it_weighs_and_none_weighs_nothing():
    weights = solver_weight(np.array([0, 0.25, 0.5, 0.75, 1, np.nan], np.float32))
    expected = [1 / 1.1**2, 1 / 0.85**2, 1 / 0.6**2, 1 / 0.35**2, 100, np.nan]
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    assert weights.dtype == np.float32


def test_other_shapes_are_refused():
    with pytest.raises(ShapeError, match=r"\(14, ny, nx\), channels dy, dx"):
        judge(matches()[:9])
    with pytest.raises(ShapeError, match=r"cycle_px must have shape \(12, 14\), got \(3, 3\)"):
        judge(matches(), np.zeros((3, 3), np.float32))


def test_a_model_that_is_none_is_refused_in_words():
    assert parse_model(shipped_model().text()) == shipped_model()
    for text in ("", "[1]", '{"bias": 1}', '{"logits": [0], "probabilities": [1], "slope": 1}'):
        with pytest.raises(DataError, match="expected a model of confidence"):
            parse_model(text)
