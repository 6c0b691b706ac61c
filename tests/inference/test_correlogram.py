from __future__ import annotations

import numpy as np
import pytest

from inference.errors import ShapeError

tf = pytest.importorskip("tensorflow", reason="the extra `train` is not installed")

from inference.correlogram import find_peaks  # noqa: E402


def _by_definition(surface, radius):
    """First and second peak of one surface (y, x), place by place."""
    first = surface.max()
    left = surface.copy()
    for y, x in np.argwhere(surface >= first - 1e-4):
        left[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1] = -1
    return first, left.max()


@pytest.mark.parametrize("radius", [0, 1, 5])
def test_peaks_are_those_of_the_definition(radius):
    scores = np.random.default_rng(1).uniform(-1, 1, (5, 23, 30, 3)).astype(np.float32)
    scores[1, 4, 4] = scores[1, 20, 3] = 1.5  # one first peak in two places
    peaks = find_peaks(tf.constant(scores), radius_px=radius)
    surfaces = scores.mean(-1)
    expected = np.array([_by_definition(s, radius) for s in surfaces])
    np.testing.assert_allclose(peaks.first, expected[:, 0], rtol=1e-6)
    np.testing.assert_allclose(peaks.second, expected[:, 1], rtol=1e-6)
    np.testing.assert_allclose(peaks.r_delta, expected[:, 0] - expected[:, 1], atol=1e-6)
    places = [np.unravel_index(s.argmax(), s.shape) for s in surfaces]
    np.testing.assert_array_equal(peaks.place, places)


def test_gradients_go_to_the_two_peaks_alone():
    scores = np.full((1, 20, 20, 2), -0.5, np.float32)
    scores[0, 3, 4], scores[0, 5, 6], scores[0, 15, 12] = 0.9, 0.8, 0.6
    scores = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        r_delta = find_peaks(scores, radius_px=2).r_delta
    assert float(r_delta[0]) == pytest.approx(0.3)
    expected = np.zeros((1, 20, 20, 2), np.float32)
    expected[0, 3, 4], expected[0, 15, 12] = 0.5, -0.5
    np.testing.assert_allclose(tape.gradient(r_delta, scores), expected)


def test_a_surface_within_the_exclusion_zone_has_no_second_peak():
    peaks = find_peaks(tf.zeros((2, 7, 7, 1)), radius_px=3)
    np.testing.assert_array_equal(peaks.second, [-1, -1])
    with pytest.raises(ShapeError, match="correlograms"):
        find_peaks(tf.zeros((7, 7)))


def test_half_precision_is_widened_first():
    scores = tf.cast(np.random.default_rng(2).uniform(0, 1, (1, 9, 9, 8)), tf.bfloat16)
    assert find_peaks(scores).first.dtype == tf.float32
