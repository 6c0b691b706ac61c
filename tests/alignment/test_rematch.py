import numpy as np
import pytest
from scipy import ndimage as ndi

from alignment.config import MatchConfig, MatchLevel
from alignment.match import CHANNELS, Patch, grid_shape, match_block
from alignment.rematch import add_guide, pull, reach_nodes, smooth_guide

SPACING = 32
CONFIG = MatchConfig(
    levels=(MatchLevel(mip=0, template_px=96, search_radius_px=12, node_spacing_px=SPACING),),
    refine=(),
)


def texture(shape=(420, 450), seed=0):
    image = ndi.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return (image / image.std()).astype(np.float32)


def patch(image, origin=(0, 0)):
    return Patch(image, np.ones(image.shape, bool), origin, 0)


def matches_of(shifts):
    whole = np.ones((len(CHANNELS), *shifts.shape[1:]), np.float32)
    whole[:2] = shifts
    whole[:, np.isnan(shifts[0])] = np.nan
    return whole


def swirl(y, x, size_px=6.0, length_px=60.0):
    """A displacement that changes much within one template."""
    return size_px * np.sin(x / length_px), size_px * np.cos(y / length_px)


def test_a_constant_answer_with_holes_and_one_outlier_is_smoothed_to_the_constant():
    shifts = np.full((2, 12, 14), 3.0, np.float32)
    shifts[1] = -2.0
    shifts[:, 2:5, 6:9] = np.nan
    shifts[:, 8, 3] = 40.0
    guide = smooth_guide(matches_of(shifts), 1.5, spacing_px=SPACING)
    np.testing.assert_allclose(guide, np.stack([np.full((12, 14), v) for v in (3, -2)]), atol=1e-4)


def test_a_slope_goes_on_to_the_edge_of_the_matches():
    # A mean of neighbours would be off by the slope times the way to their middle, 3 px and more.
    i, j = np.mgrid[0:14, 0:16].astype(np.float32)
    slope = np.stack([2.4 * i - 1.6 * j, -2.0 * i + 3.2 * j])
    shifts = slope.copy()
    shifts[:, :, 12:] = np.nan
    shifts[:, 5:8, 4:6] = np.nan
    matches = matches_of(shifts)
    matches[CHANNELS.index("cov_yy")] = matches[CHANNELS.index("cov_xx")] = 100.0
    guide = smooth_guide(matches, 1.5, spacing_px=SPACING)
    known = ~np.isnan(shifts[0])
    assert np.hypot(*(guide - slope))[known].max() < 0.4
    assert np.hypot(*(guide - slope))[5:8, 4:6].max() < 0.4


def test_detail_is_kept_where_matches_are_precise_and_smoothed_where_they_are_not():
    i, j = np.mgrid[0:20, 0:20].astype(np.float32)
    waves = np.stack([1.5 * np.sin(i * 0.9), 1.5 * np.cos(j * 0.9)])
    kept = {}
    for variance in (0.01, 100.0):
        matches = matches_of(waves)
        matches[CHANNELS.index("cov_yy")] = matches[CHANNELS.index("cov_xx")] = variance
        guide = smooth_guide(matches, 1.5, spacing_px=SPACING)
        kept[variance] = (guide * waves).sum() / np.square(waves).sum()
    assert kept[0.01] > 0.7
    assert kept[100.0] < 0.5


def test_a_block_within_its_reach_has_the_guide_of_the_whole_section():
    random = np.random.default_rng(0)
    shifts = random.normal(scale=4, size=(2, 40, 50)).astype(np.float32)
    shifts[:, random.random((40, 50)) < 0.3] = np.nan
    shifts[:, :, 25:33] = np.nan  # wide enough for the wider Gaussian to take over
    matches = matches_of(shifts)
    sigma, (i, j) = 0.8, (20, 29)
    whole = smooth_guide(matches, sigma, spacing_px=SPACING)
    reach = reach_nodes(sigma)
    part = matches[:, i - reach : i + reach + 1, j - reach : j + reach + 1]
    found = smooth_guide(part, sigma, spacing_px=SPACING)[:, reach, reach]
    np.testing.assert_allclose(found, whole[:, i, j], atol=1e-4)


def test_without_any_match_the_guide_is_zero():
    assert not smooth_guide(
        matches_of(np.full((2, 5, 6), np.nan, np.float32)), 1.5, spacing_px=SPACING
    ).any()


def test_pulling_by_whole_pixels_moves_the_picture_and_its_valid_part():
    image = texture((64, 80))
    guide = np.stack([np.full((4, 4), v, np.float32) for v in (5, -3)])
    pulled = pull(patch(image, (7, -9)), guide, (0, 0), SPACING)
    np.testing.assert_allclose(pulled.features[10:50, 10:70], image[15:55, 7:67], atol=1e-5)
    assert pulled.valid[10:50, 10:70].all()
    assert not pulled.valid[60:].any()
    assert pulled.origin == (7, -9)


def test_displacements_are_composed_where_the_tissue_lies():
    ny, nx = 6, 7
    y, x = np.mgrid[0:ny, 0:nx].astype(np.float32) * SPACING
    guide = np.stack([0.1 * x, -0.2 * y]).astype(np.float32)
    shift = np.stack([np.full((3, 4), 2.0), np.full((3, 4), -1.0)]).astype(np.float32)
    whole = add_guide(matches_of(shift), guide, (2, 1), (0, 0), SPACING)
    at_y, at_x = y[2:5, 1:5] + 2, x[2:5, 1:5] - 1
    np.testing.assert_allclose(whole[0], 2 + 0.1 * at_x, atol=1e-4)
    np.testing.assert_allclose(whole[1], -1 - 0.2 * at_y, atol=1e-4)


def test_an_unknown_match_stays_unknown():
    matches = matches_of(np.full((2, 3, 3), np.nan, np.float32))
    guide = np.ones((2, 3, 3), np.float32)
    assert np.isnan(add_guide(matches, guide, (0, 0), (0, 0), SPACING)).all()


def test_a_second_look_at_the_pulled_section_is_nearer_to_the_known_warp():
    fixed = texture()
    y, x = np.mgrid[0:420, 0:450].astype(float)
    dy, dx = swirl(y, x)
    moving = ndi.map_coordinates(fixed, [y + dy, x + dx], order=3, mode="nearest")
    grid = grid_shape(fixed.shape, CONFIG)
    box = ((3, 3), (grid[0] - 3, grid[1] - 3))
    inner = np.s_[3 : grid[0] - 3, 3 : grid[1] - 3]
    nodes = np.mgrid[0 : grid[0], 0 : grid[1]].astype(float) * SPACING
    truth = np.stack(swirl(*nodes))[(slice(None), *inner)]

    first = match_block({0: patch(fixed)}, {0: patch(moving)}, ((0, 0), grid), grid, CONFIG)
    guide = smooth_guide(first, 0.5, spacing_px=SPACING)
    again = match_block(
        {0: pull(patch(fixed), guide, (0, 0), SPACING)}, {0: patch(moving)}, box, grid, CONFIG
    )
    second = add_guide(again, guide, box[0], (0, 0), SPACING)

    def error(found):
        return np.nanpercentile(np.hypot(*(found[:2] - truth)), 90)

    assert error(second) < 0.6 * error(first[(slice(None), *inner)])
    assert error(second) == pytest.approx(0, abs=0.5)
