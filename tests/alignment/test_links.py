import numpy as np
import pytest

from alignment.links import PairMatches, residual
from tests.assembled import precisions
from tests.known_fields import KnownFields


def uncertain(seed=0, shape=(4, 5)):
    root = np.random.default_rng(seed).normal(size=(*shape, 2, 2))
    yy, yx, xx = (
        np.einsum("...ik,...jk->...ij", root, root)[..., i, j] for i, j in ((0, 0), (0, 1), (1, 1))
    )
    return np.stack([yy, yx, xx]).astype(np.float32)


def pair(covariance=None, weight=None, d=1):
    displacement = np.random.default_rng(1).normal(size=(2, 4, 5)).astype(np.float32)
    displacement[:, 0, 0] = np.nan
    return PairMatches(2, d, displacement, covariance, weight)


def test_a_match_weighs_the_area_it_stands_for_and_less_from_afar():
    assert pair().links(32).weight[1, 1] == 1
    assert pair().links(16).weight[1, 1] == 0.25
    assert pair(d=2).links(32).weight[1, 1] == 0.25
    own = np.full((4, 5), 3, np.float32)
    own[2, 2], own[2, 3] = np.nan, 0
    weights = pair(weight=own).links(32).weight
    assert weights[1, 1] == 3
    assert not weights[[0, 2, 2], [0, 2, 3]].any(), "no match, no weight"


def test_without_covariances_all_matches_are_typical():
    assert pair().links(32).precision is None
    same = np.float32([7, 0, 7])[:, None, None] * np.ones((1, 4, 5), np.float32)
    np.testing.assert_allclose(
        pair(same).links(32).precision, np.float32([1, 0, 1])[:, None, None] * np.ones((3, 4, 5))
    )


def test_the_precision_is_that_of_the_oracle_and_its_scale_does_not_count():
    found = pair(uncertain()).links(32).precision
    flat = uncertain().reshape(3, -1).T.astype(float)
    flat[0] = np.nan
    np.testing.assert_allclose(found.reshape(3, -1).T, precisions(flat), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        pair(100 * uncertain()).links(32).precision, found, rtol=1e-4, atol=1e-5
    )
    assert np.ptp(found[0]) > 0.1


def test_uncertain_matches_weigh_less_and_the_axes_are_kept():
    covariance = np.float32([1, 0, 1])[:, None, None] * np.ones((1, 4, 5), np.float32)
    covariance[:, 3] = np.float32([0.1, 0, 10])[:, None]
    precision = pair(covariance).links(32).precision
    assert (precision[0, 3] > 1.2).all()
    assert (precision[2, 3] < 0.4).all()
    np.testing.assert_allclose(precision[1, 3], 0, atol=1e-7)
    np.testing.assert_allclose(
        pair(covariance[::-1].copy()).links(32).precision, precision[::-1], rtol=1e-6
    )


@pytest.mark.parametrize("bad", [np.nan, 0, -1])
def test_unusable_covariances_count_as_typical(bad):
    covariance = uncertain()
    covariance[:, 2, 3] = bad
    np.testing.assert_array_equal(pair(covariance).links(32).precision[:, 2, 3], [1, 0, 1])


def test_the_truth_leaves_no_residual():
    truth = KnownFields(3, px=4, length_px=400)
    match = truth.matches(256, 32, d=1, noise_px=0, wrong=0, missing=0.2)[0]
    nodes = np.indices((9, 9)).reshape(2, -1).T * 32.0
    moving, fixed = (truth.push(z, nodes).T.reshape(2, 9, 9) for z in (1, 0))
    left = residual(match.links(32), moving, fixed, node_spacing_px=32, match_spacing_px=32)
    np.testing.assert_array_equal(np.isnan(left), np.isnan(match.displacement))
    inner = left[:, 1:-1, 1:-1]
    assert np.nanmax(np.abs(inner)) < 0.05, "bilinear between nodes"
