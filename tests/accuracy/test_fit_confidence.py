import numpy as np
import pytest

from alignment.confidence import STATISTICS
from alignment.confidence_model import Model
from tests.accuracy.changing import COPIES, make_changing
from tests.accuracy.fit_confidence import Sample, calibration, fit, monotone, predict
from tests.accuracy.recipes import RECIPES


def made_up(count=6000, seed=0):
    """Matches whose probability to be right is a known function of two statistics."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, len(STATISTICS)))
    logit = 2 * x[:, STATISTICS.index("score")] - x[:, STATISTICS.index("spread")] + 0.5
    true = 1 / (1 + np.exp(-logit))
    error = np.where(random.random(count) < true, 0.5, 3.0)
    return Sample(x, error), true


def test_a_known_probability_is_found_from_matches_that_are_right_or_wrong():
    sample, true = made_up()
    model = fit([sample])
    assert model.weights["score"] == pytest.approx(2, rel=0.1)
    assert model.weights["spread"] == pytest.approx(-1, rel=0.2)
    other, true = made_up(seed=1)
    predicted = predict(model, other.statistics)
    assert np.abs(predicted - true).mean() < 0.02
    assert calibration(predicted, other.right).error < 0.025


def test_a_statistic_may_not_count_against_what_it_means():
    sample, _ = made_up()
    turned = sample.statistics.copy()
    turned[:, STATISTICS.index("score")] *= -1
    model = fit([Sample(turned, sample.error_px)])
    assert model.weights["score"] == 0
    assert model.weights["spread"] < 0


def test_every_sample_counts_the_same():
    small, _ = made_up(500)
    wrong = Sample(small.statistics, np.full(500, 9.0))
    large = Sample(np.tile(wrong.statistics, (40, 1)), np.full(20000, 9.0))
    share = predict(fit([small, large]), small.statistics).mean()
    assert share == pytest.approx(small.right.mean() / 2, abs=0.02)


def test_the_curve_rises_and_pools_what_would_fall():
    logit = np.arange(1000.0)
    right = np.zeros(1000, bool)
    right[150:300] = right[500:] = True  # rises, falls and rises
    knots, values = monotone(logit, right, np.ones(1000))
    assert knots == sorted(knots)
    assert values == sorted(values)
    assert len(set(values)) == len(values) < 6
    assert (values[0], values[-1]) == (0.001, 0.999)


def test_the_calibration_error_is_what_predictions_are_off_by():
    right = np.arange(10000) % 10 < 7
    c = calibration(np.full(10000, 0.6), right)
    assert c.error == pytest.approx(0.1, abs=0.01)
    assert c.count.sum() == 10000
    weights = dict.fromkeys(STATISTICS, 0.0)
    flat = Model(0.0, weights, (-1.0, 1.0), (0.6, 0.8))
    assert predict(flat, np.zeros((3, len(STATISTICS)))) == pytest.approx(0.7)


def test_copies_share_their_tissue_and_their_truth_is_exact():
    random = np.random.default_rng(3)
    base = np.clip(128 + 40 * random.normal(size=(6, 40, 40)).repeat(8, 1).repeat(8, 2), 0, 255)
    stack = make_changing(base.astype(np.uint8), RECIPES["std"], seed=4, groups=2)
    assert len(stack.images) == 2 * COPIES
    assert stack.base == (0, 0, 0, 5, 5, 5)
    assert [list(group) for group in stack.groups] == [[0, 1, 2], [3, 4, 5]]
    points = np.array([[60.0, 70.0], [90.0, 80.0]])
    there = stack.place_in(0, 1, points)
    np.testing.assert_allclose(
        stack.maps[0].tissue_at(there), stack.maps[1].tissue_at(points), atol=1e-4
    )
    again = make_changing(base.astype(np.uint8), RECIPES["std"], seed=4, groups=2)
    np.testing.assert_array_equal(stack.images, again.images)
