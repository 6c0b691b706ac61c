"""False matches are counted right: where the truth is known by construction."""

import numpy as np
import pytest
import tifffile

from alignment.errors import DataError
from alignment.learning.evaluation import (
    EvaluationConfig,
    Matches,
    evaluate,
    false_rate,
    rate_difference,
    rejected_at_zero_false,
    rejection_curve,
)
from alignment.learning.stacks import open_stack

NOISE = np.random.default_rng(0).integers(1, 255, (300, 280)).astype(np.uint8)


def as_features(image, valid):
    return np.round((image.astype(np.float32) - 128) / 74 * 256) / 256 * valid


def blind(image, valid):
    return (
        np.random.default_rng(int(image[0, 0])).normal(size=image.shape).astype(np.float32) * valid
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Four sections that show the same smooth tissue."""
    import cv2

    tissue = cv2.GaussianBlur(NOISE.astype(np.float32), (0, 0), 2)
    tissue = ((tissue - tissue.mean()) / tissue.std() * 40 + 128).clip(1, 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("same") / "raw.tif"
    tifffile.imwrite(path, np.stack([tissue] * 4), photometric="minisblack")
    return open_stack(path.as_uri(), 0)


def config(**changes):
    settings = {"template_px": 48, "search_radius_px": 32, "matches": 300, "tolerance_px": 4}
    return EvaluationConfig(**settings | {"warp_px": 6} | changes)


def test_matches_lie_where_the_warp_and_the_offset_put_them(stack):
    told = []
    found = evaluate(
        stack, {"tissue": as_features, "blind": blind}, config(), tell=lambda *n: told.append(n)
    )
    right = found["tissue"]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert np.median(right.error_px) < 0.7
    assert false_rate(right, 4).share < 0.02
    assert false_rate(found["blind"], 4).share > 0.9
    assert np.bincount(right.pair).tolist() == [100, 100, 100]


def test_without_a_warp_the_tissue_is_found_to_a_fraction_of_a_pixel(stack):
    found = evaluate(stack, {"tissue": as_features}, config(warp_px=0))["tissue"]
    assert found.error_px.max() < 0.05


def test_windows_that_do_not_fit_are_refused(stack):
    with pytest.raises(DataError, match="lower template_px or search_radius_px"):
        evaluate(stack, {}, config(template_px=256))
    with pytest.raises(DataError, match="none of them 4 apart"):
        evaluate(stack, {}, config(distance=4))


def some(false, r_delta, pair=None):
    error = np.where(np.array(false), 99.0, 0.0)
    pairs = np.arange(len(false)) if pair is None else np.array(pair)
    return Matches(pairs, error, np.array(r_delta, np.float64))


def test_rejecting_by_r_delta_trades_true_matches_for_false_ones():
    matches = some([True, False, True, False, False], [0.1, 0.2, 0.3, 0.4, 0.5])
    rejected, left = rejection_curve(matches, 20)
    np.testing.assert_allclose(rejected, [0, 0, 1 / 3, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(left, [0.4, 0.2, 0.2, 0, 0, 0])
    assert rejected_at_zero_false(matches, 20) == pytest.approx(1 / 3)


def test_intervals_are_of_pairs_not_of_matches():
    apart = some([True] * 10 + [False] * 90, np.zeros(100))
    together = some([True] * 10 + [False] * 90, np.zeros(100), np.repeat(np.arange(10), 10))
    narrow, wide = false_rate(apart, 20), false_rate(together, 20)
    assert narrow.share == wide.share == 0.1
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    better = some([True] * 2 + [False] * 98, np.zeros(100), together.pair)
    difference, low, high = rate_difference(together, better, 20)
    assert difference == pytest.approx(0.08)
    assert 0 <= low < difference < high
