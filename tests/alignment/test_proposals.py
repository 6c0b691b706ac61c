"""Proposals, views and block fits: each finds a known place in made-up texture by itself."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from alignment.affines import apply_affine, compose_affines, invert_affine
from alignment.blockfit import Level, refine
from alignment.proposals import DECISIVE, feature_search, rotation_search
from alignment.views import Correlator, make_view, pull, warped

SIDE = 160
CORNERS = np.array([[0.0, 0], [0, SIDE - 1], [SIDE - 1, 0], [SIDE - 1, SIDE - 1]])


def texture(seed=0, side=SIDE):
    noise = np.random.default_rng(seed).normal(size=(side, side))
    blobs = sum(cv2.GaussianBlur(noise, (0, 0), sigma) * sigma for sigma in (2, 4, 8))
    return (128 + 40 * blobs / blobs.std()).clip(1, 254).astype(np.uint8)


def view(image, valid=None, *, side_px=SIDE):
    valid = np.ones(image.shape, np.bool_) if valid is None else valid
    return make_view(image, valid, side_px=side_px, sigma_fine_px=1.5, sigma_coarse_px=8.0)


def affine(degrees, shift=(0.0, 0.0), scale=1.0):
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    linear = np.array([[c, -s], [s, c]])
    centre = np.full(2, (SIDE - 1) / 2)
    return np.column_stack([linear, centre + shift - linear @ centre])


def taken_at(image, truth, *, inverted=False):
    back = invert_affine(truth)
    valid = pull(np.ones(image.shape, np.float32), back, image.shape) > 0.99
    moved = np.rint(pull(image.astype(np.float32), back, image.shape)).astype(np.uint8)
    return view(255 - moved if inverted else moved, valid)


def miss_px(found, truth):
    return float(np.abs(apply_affine(found, CORNERS) - apply_affine(truth, CORNERS)).max())


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("degrees", [0.0, 63.0, -170.0])
def test_correlation_proposes_the_place_first(degrees, inverted):
    truth = affine(degrees, (12.0, -18.0))
    moving = taken_at(texture(), truth, inverted=inverted)
    best, *others = rotation_search(view(texture()), moving, max_rotation_deg=180)
    assert best.strength > DECISIVE
    assert best.is_inverted == inverted
    # Half a step of the angle, at the corner.
    assert miss_px(best.matrix, truth) < 6
    assert len(others) <= 2
    assert all(other.strength < best.strength for other in others)


def test_correlation_stays_within_the_rotation_allowed():
    moving = taken_at(texture(), affine(63.0))
    for proposal in rotation_search(view(texture()), moving, max_rotation_deg=20):
        angle = math.degrees(math.atan2(proposal.matrix[1, 0], proposal.matrix[0, 0]))
        assert abs(angle) <= 20
        assert proposal.strength < DECISIVE


@pytest.mark.parametrize("inverted", [False, True])
def test_features_find_a_change_of_scale(inverted):
    truth = affine(100.0, (5.0, 9.0), scale=1.13)
    moving = taken_at(texture(), truth, inverted=inverted)
    best = feature_search(view(texture()), moving, max_rotation_deg=180, max_scale_change=0.15)[0]
    assert best.is_inverted == inverted
    assert best.strength >= 10
    assert miss_px(best.matrix, truth) < 6


@pytest.mark.parametrize(("turn_deg", "change"), [(60.0, 0.15), (180.0, 0.05)])
def test_features_stay_within_the_limits(turn_deg, change):
    moving = taken_at(texture(), affine(100.0, scale=1.13))
    found = feature_search(
        view(texture()), moving, max_rotation_deg=turn_deg, max_scale_change=change
    )
    for proposal in found:
        angle = math.degrees(math.atan2(proposal.matrix[1, 0], proposal.matrix[0, 0]))
        assert abs(angle) <= turn_deg
        assert abs(math.sqrt(np.linalg.det(proposal.matrix[:, :2])) - 1) <= change
        assert miss_px(proposal.matrix, affine(100.0, scale=1.13)) > 6


def test_images_without_features_have_none():
    blank = view(np.full((SIDE, SIDE), 90, np.uint8))
    assert feature_search(blank, blank, max_rotation_deg=180, max_scale_change=0.15) == []


def test_places_are_in_pixels_of_the_sections():
    """The views are smaller than the sections, and not by the same factor in y and x."""
    large = texture(side=400)[:, :301]
    moving = view(large[20:, 10:], side_px=144)
    fixed = view(large[:380, :291], side_px=144)
    best = rotation_search(fixed, moving, max_rotation_deg=10)[0]
    truth = np.array([[1.0, 0, -20], [0, 1, -10]])
    points = np.array([[100.0, 100], [300, 200]])
    assert np.abs(apply_affine(best.matrix, points) - apply_affine(truth, points)).max() < 3


def test_significance_peaks_at_the_shift():
    fixed = view(texture())
    correlator = Correlator(fixed, (SIDE, SIDE))
    image, covered = warped(fixed, np.array([[1.0, 0, -7], [0, 1, 11]]), (SIDE, SIDE))
    surface = correlator(image, covered, SIDE * SIDE)
    assert correlator.shift(int(surface.argmax())) == (-7, 11)
    assert surface.max() > 20


def test_significance_of_strangers_is_low_and_standardised():
    correlator = Correlator(view(texture()), (SIDE, SIDE))
    stranger = view(texture(seed=1))
    surface = correlator(stranger.image, stranger.valid.astype(np.float32), SIDE * SIDE)
    known = surface[surface != 0]
    assert np.square(known).mean() == pytest.approx(1.0, abs=1e-3)
    assert np.abs(known).max() < 6


def test_too_little_overlap_proves_nothing():
    fixed = view(texture())
    correlator = Correlator(fixed, (SIDE, SIDE))
    image, covered = warped(fixed, np.array([[1.0, 0, 135], [0, 1, 0]]), (SIDE, SIDE))
    assert covered.sum() < 0.2 * SIDE * SIDE
    assert not correlator(image, covered, SIDE * SIDE).any()
    # Of a section that small, it is all there is to see.
    assert correlator(image, covered, float(covered.sum())).max() > 9


def test_blocks_refine_an_affine_and_ignore_damage():
    truth = compose_affines(affine(2.0, (3.0, -4.0)), np.array([[1.02, 0, 0], [0, 0.985, 0]]))
    moving = taken_at(texture(), truth)
    damaged = moving.image.copy()
    damaged[:50] = view(texture(seed=5)).image[:50]
    level = Level(SIDE, 8.0, block_px=32, radius_px=10, is_affine=True)
    fixed = view(texture())
    found, inliers = refine(fixed, moving._replace(image=damaged), affine(0.0), level)
    assert miss_px(found, truth) < 1.0
    assert inliers > 80
    assert refine(fixed, moving._replace(valid=np.zeros_like(moving.valid)), truth, level) is None


def test_a_similarity_has_no_shear():
    moving = taken_at(texture(), affine(3.0, (2.0, 5.0), scale=1.02))
    level = Level(SIDE, 8.0, block_px=32, radius_px=10, is_affine=False)
    found, _ = refine(view(texture()), moving, affine(0.0), level)
    assert miss_px(found, affine(3.0, (2.0, 5.0), scale=1.02)) < 1.0
    np.testing.assert_allclose(found[0, :2], [found[1, 1], -found[1, 0]], rtol=1e-12)
