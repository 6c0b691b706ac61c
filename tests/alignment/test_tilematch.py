"""Pairs of tiles: known shifts to a fraction of a pixel, refusals, real tiles."""

import numpy as np
import pytest
import tifffile

from alignment.errors import ShapeError
from alignment.montage import MontageConfig, is_believed
from alignment.tilematch import match_views, view_tile
from alignment.tilerefine import refine_match
from tests.camera import photograph, real_data

SIDE = (256, 256)


def find(first, second, nominal=None, search_px=64.0, valid=(None, None), largest=None):
    """Match two tiles from end to end."""
    largest = largest or tuple(np.maximum(first.shape, second.shape))
    views = [view_tile(t, v, largest) for t, v in zip((first, second), valid, strict=True)]
    match = match_views(*views, nominal, search_px)
    if match is None or is_believed(match, MontageConfig()):
        return match
    return refine_match((first, valid[0]), (second, valid[1]), match, views[0].mip)


def test_shifts_are_found_to_a_fraction_of_a_pixel_wherever_the_overlap_is():
    rng = np.random.default_rng(1)
    errors = []
    for k in range(24):
        start = rng.uniform(300, 500, 2)
        shift = rng.uniform(-12, 12, 2) + [(0, 200), (200, 0), (-205, 0), (150, -150)][k % 4]
        first, second = photograph(start, seed=2 * k), photograph(start + shift, seed=2 * k + 1)
        match = find(first, second, tuple(shift + rng.uniform(-20, 20, 2)))
        errors.append(np.hypot(*(match.shift_yx - shift)))
    assert np.percentile(errors, 95) <= 0.1


def test_a_shift_is_found_without_any_nominal_place():
    first, second = photograph((200, 200), seed=1), photograph((430.4, 207.7), seed=2)
    match = find(first, second, None)
    assert match.shift_yx == pytest.approx((230.4, 7.7), abs=0.15)
    assert match.overlap == pytest.approx(25.6 * 248.3 / 256**2, abs=0.02)


def test_the_shift_of_the_exchanged_tiles_is_the_opposite():
    first, second = photograph((200, 200), seed=1), photograph((215.3, 390.8), seed=2)
    there, back = find(first, second, (15, 190)), find(second, first, (-15, -190))
    np.testing.assert_allclose(there.shift_yx, -np.array(back.shift_yx), atol=0.02)


def test_tiles_larger_than_the_working_size_keep_their_precision():
    first = photograph((10, 10), side=700, seed=1)
    second = photograph((30.3, 375.6), side=700, seed=2)
    match = find(first, second, (0, 400), search_px=150)
    assert match.shift_yx == pytest.approx((20.3, 365.6), abs=0.1)


def test_tiles_of_different_shapes_match():
    first = photograph((200, 200), seed=1)
    second = photograph((220.5, 380.2), seed=2)[:180, :220]
    assert find(first, second, (20, 180)).shift_yx == pytest.approx((20.5, 180.2), abs=0.1)


def test_contrast_and_brightness_do_not_count():
    first, second = photograph((200, 200), seed=1), photograph((210, 390), seed=2)
    faint = (second * 0.4 + 120).astype(np.uint8)
    assert find(first, faint, (10, 190)).shift_yx == pytest.approx((10, 190), abs=0.1)


@pytest.mark.parametrize("blank", [0, 130, 255])
def test_a_blank_tile_matches_nothing(blank):
    empty = np.full(SIDE, blank, np.uint8)
    assert find(photograph((200, 200)), empty, (0, 200)) is None


def test_unrelated_tissue_and_mere_noise_are_not_believed():
    rng = np.random.default_rng(0)
    first = photograph((100, 100), seed=1)
    for other in (photograph((600, 700), seed=2), rng.integers(1, 255, SIDE).astype(np.uint8)):
        match = find(first, other, None)
        assert match is None or is_believed(match, MontageConfig())


def test_a_repeated_pattern_is_refused_because_two_places_are_alike():
    y, x = np.mgrid[:800, :800]
    pattern = (128 + 40 * np.sin(y / 3) * np.sin(x / 3)).astype(np.float32)
    tiles = [photograph(p, seed=s, scene=pattern) for p, s in [((10, 10), 1), ((15, 200), 2)]]
    match = find(*tiles, (5, 190))
    assert "two places are alike" in is_believed(match, MontageConfig())


def test_what_a_mask_hides_does_not_count():
    first, second = photograph((200, 200), seed=1), photograph((205, 380), seed=2)
    dirt = photograph((700, 100), seed=3)[:, :40]  # the same dirt on the camera in both
    valid = np.ones(SIDE, bool)
    valid[:, 200:240] = False
    for tile in (first, second):
        tile[:, 200:240] = dirt
    match = find(first, second, (5, 180), valid=(valid, valid))
    assert match.shift_yx == pytest.approx((5, 180), abs=0.15)


def test_a_peak_at_the_rim_of_the_search_is_no_match():
    first, second = photograph((200, 200), seed=1), photograph((200, 390), seed=2)
    assert find(first, second, (0, 170), search_px=20) is None


def test_a_tile_beyond_the_largest_is_refused():
    with pytest.raises(ShapeError, match="exceeds"):
        view_tile(np.zeros((300, 200), np.uint8), None, SIDE)


def test_nornir_tiles_are_found_without_positions():
    tiles = tifffile.imread(real_data("nornir_tiles") / "raw.tif")
    assert find(tiles[0], tiles[1]).shift_yx == pytest.approx((864, 8), abs=1)
    assert find(tiles[1], tiles[2]).shift_yx == pytest.approx((912, -5), abs=1)
    assert is_believed(find(tiles[0], tiles[2]), MontageConfig())  # these two do not touch
