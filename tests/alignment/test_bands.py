"""Bands: what is long and narrow is found at any angle and width, and nothing else is."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from alignment.bands import find_bands
from alignment.errors import ShapeError


def texture(shape=(256, 288), *, seed=0):
    """Return evidence like that of neuropil: blobs of a few px, most of it near 0."""
    random = np.random.default_rng(seed)
    blobs = cv2.GaussianBlur(random.normal(size=shape), (0, 0), 2.5)
    return (0.3 * blobs / blobs.std()).clip(-1, 1).astype(np.float32)


def line(shape, degrees, width, length=1000):
    """Return a bool image of a straight line through the middle."""
    canvas = np.zeros(shape, np.uint8)
    (ny, nx), angle = shape, math.radians(degrees)
    reach = np.array([math.cos(angle), math.sin(angle)]) * length / 2
    ends = [tuple(int(v) for v in np.array([nx, ny]) / 2 + sign * reach) for sign in (-1, 1)]
    cv2.line(canvas, *ends, 1, thickness=width)
    return canvas > 0


def whole(band, shape):
    """Return the pixels of a band as an image."""
    full = np.zeros(shape, bool)
    full[band.part] = band.core
    return full


def find(evidence, **changed):
    return find_bands(evidence, **{"min_length_px": 150, "max_width_px": 40, **changed})


def test_texture_has_no_band():
    for seed in range(5):
        assert find(texture(seed=seed)) == []


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("degrees", "width"), [(0, 4), (10, 3), (37, 5), (90, 4), (135, 8), (160, 20)]
)
def test_a_band_is_found_at_any_angle_and_width(sign, degrees, width):
    evidence = texture()
    truth = line(evidence.shape, degrees, width)
    evidence[truth] = sign
    [band] = find(evidence)
    assert band.sign == sign
    core = whole(band, truth.shape)
    assert core[truth].mean() > 0.85
    assert (core & ~truth).sum() < 0.35 * truth.sum()
    assert band.width_px == pytest.approx(width, rel=0.4, abs=4)


def test_a_short_line_is_tissue():
    evidence = texture()
    evidence[line(evidence.shape, 30, 5, length=100)] = 1
    assert find(evidence) == []
    assert len(find(evidence, min_length_px=80)) == 1


def test_the_edge_of_a_dark_area_is_no_band():
    evidence = texture()
    evidence[:, 140:] = 1
    assert find(evidence) == []


def test_a_band_at_the_border_has_but_one_side():
    evidence = texture()
    evidence[:6] = 1
    assert find(evidence) == []


def test_a_wall_between_opposites_is_no_band():
    evidence = texture()
    evidence[100:103] = 1
    assert len(find(evidence)) == 1
    evidence[103:160] = -1  # the lumen behind a vessel's wall
    assert find(evidence) == []


def test_a_dashed_line_is_no_band():
    evidence = np.zeros((256, 288), np.float32)
    truth = line(evidence.shape, 0, 4)
    truth[:, np.arange(288) % 40 < 24] = False
    evidence[truth] = 1
    assert find(evidence) == []


def test_the_longest_comes_first():
    evidence = texture(shape=(288, 288))
    evidence[60:64, 40:240] = 1
    evidence[200:204] = 1
    first, second = find(evidence)
    assert first.length_px > second.length_px
    assert whole(first, evidence.shape)[202].any()


def test_tiny_images_have_none():
    assert find(np.ones((20, 400), np.float32)) == []


def test_what_is_no_evidence_is_refused():
    with pytest.raises(ShapeError, match=r"float32 image \(y, x\), got uint8"):
        find(np.zeros((64, 64), np.uint8))
