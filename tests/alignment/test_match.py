import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from scipy import ndimage as ndi

from alignment.config import FeaturesConfig, FilterConfig, MatchConfig, MatchLevel
from alignment.correlation import find_peaks, ncc_surface, peak_covariance, tent_taper
from alignment.errors import DataError, ShapeError
from alignment.features import normalise
from alignment.filter import reject_outliers
from alignment.match import (
    CHANNELS,
    SAMPLE_PX2,
    Patch,
    gate,
    grid_shape,
    grid_spacing_px,
    halo_px,
    local_median,
    match_block,
)
from alignment.pyramid import downsample

SCORE, R_DELTA, CURVATURE = (
    CHANNELS.index(name) for name in ("score", "r_delta_5", "curvature_ratio")
)
FEATURES = FeaturesConfig(sigma_fine_px=1.0, sigma_coarse_px=6.0)


def levels(*levels, min_overlap=0.5):
    """Configuration with levels of (mip, template, search radius, node spacing)."""
    names = "mip", "template_px", "search_radius_px", "node_spacing_px"
    made = tuple(MatchLevel(**dict(zip(names, level, strict=True))) for level in levels)
    return MatchConfig(levels=made, refine=(), min_overlap=min_overlap)


CONFIG = levels((2, 32, 8, 16), (1, 32, 6, 16))


def tissue(shape=(384, 416), seed=0, sigma=3.0):
    smooth = ndi.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return np.clip(128 + smooth / smooth.std() * 35, 1, 255).astype(np.uint8)


def patches(image, valid=None, mips=(1, 2), features=FEATURES):
    """The feature images of a whole section, as the stages make them."""
    valid = np.ones(image.shape, bool) if valid is None else valid
    image = np.where(valid, image, 0).astype(np.uint8)
    made = {}
    for mip in range(max(mips) + 1):
        if mip in mips:
            made[mip] = Patch(normalise(image, valid, features), valid, (0, 0), mip)
        image = downsample(image[np.newaxis])[0]
        valid = valid.reshape(valid.shape[0] // 2, 2, valid.shape[1] // 2, 2).all((1, 3))
    return made


def match_all(fixed, moving, canvas, config=CONFIG):
    shape = grid_shape(canvas, config)
    return match_block(fixed, moving, ((0, 0), shape), shape, config)


def inside(canvas, margin, config=CONFIG):
    """Nodes at least `margin` px away from the border of the canvas."""
    nodes = np.indices(grid_shape(canvas, config)) * grid_spacing_px(config)
    last = np.array(canvas)[:, None, None] - 1
    return ((nodes >= margin) & (nodes <= last - margin)).all(0)


def smooth_warp(shape, length, p95, seed):
    """Displacement (2, y, x), px, with 95 % below `p95` and correlation over `length` px."""
    random = np.random.default_rng(seed)
    coarse = ndi.gaussian_filter(random.normal(size=(2, shape[0] // 8, shape[1] // 8)), (0, 1, 1))
    coarse = ndi.gaussian_filter(coarse, (0, length / 8 / 2**0.5, length / 8 / 2**0.5))
    field = np.stack([cv2.resize(c, shape[::-1], interpolation=cv2.INTER_CUBIC) for c in coarse])
    return field * (p95 / np.percentile(np.hypot(*field), 95))


def warp(image, field):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + field
    moved = cv2.remap(image, x.astype("f4"), y.astype("f4"), cv2.INTER_LANCZOS4)
    valid = (y >= 0) & (x >= 0) & (y <= image.shape[0] - 1) & (x <= image.shape[1] - 1)
    return np.maximum(moved, 1), valid


def at_nodes(field, config):
    """Values of a dense field at the nodes of its canvas."""
    spacing = grid_spacing_px(config)
    nodes = np.indices(grid_shape(field.shape[1:], config)) * float(spacing)
    return np.stack([ndi.map_coordinates(c, nodes, order=1, mode="nearest") for c in field])


# --------------------------------------------------------------------------- known answers


@pytest.mark.parametrize("shift", [(0, 0), (12, -8), (-20, 24), (28, 0)])
def test_a_match_says_where_the_fixed_section_shows_the_tissue(shift):
    # fixed(p + m) = moving(p): the fixed section shows everything `shift` further on.
    moving = tissue()
    fixed = np.roll(moving, shift, axis=(0, 1))
    found = match_all(patches(fixed), patches(moving), moving.shape)
    nodes = inside(moving.shape, 100)
    error = found[:2, nodes] - np.array(shift)[:, None]
    assert error.shape[1] >= 30
    np.testing.assert_allclose(error, 0, atol=0.05)
    assert found[SCORE][nodes].min() > 0.98
    assert found[R_DELTA][nodes].min() > 0.3
    assert (np.abs(found[CURVATURE][nodes] - 4) < 4).all()


@pytest.mark.parametrize("shift", [(0.5, -0.25), (1.0, 0.75), (-3.3, 2.1)])
def test_shifts_of_a_fraction_of_a_pixel_are_found_without_bias(shift):
    moving = tissue()
    smooth = ndi.shift(moving.astype(float), shift, order=5, mode="nearest")
    fixed = np.clip(np.rint(smooth), 1, 255).astype(np.uint8)
    found = match_all(patches(fixed), patches(moving), moving.shape)
    error = found[:2, inside(moving.shape, 70)] - np.array(shift)[:, None]
    assert np.abs(np.mean(error, axis=1)).max() < 0.02
    assert np.percentile(np.hypot(*error), 95) < 0.15


def test_gain_and_offset_of_a_section_change_almost_nothing():
    moving = tissue()
    fixed = np.roll(moving, (5, 3), axis=(0, 1))
    faint = (fixed // 3 + 90).astype(np.uint8)
    nodes = inside(moving.shape, 60)
    plain, other = (
        match_all(patches(image), patches(moving), moving.shape)[:, nodes]
        for image in (fixed, faint)
    )
    np.testing.assert_allclose(other[:2], plain[:2], atol=0.2)
    np.testing.assert_allclose(other[SCORE], plain[SCORE], atol=0.02)


def test_what_moved_too_far_is_not_matched():
    moving = tissue()
    reach = 8 * 4 + 6 * 2
    fixed = np.roll(moving, reach + 10, axis=0)
    found = match_all(patches(fixed), patches(moving), moving.shape)
    true = np.hypot(found[0] - reach - 10, found[1]) < 5
    assert not true.any()
    trusted, _ = reject_outliers(
        found, spacing_px=grid_spacing_px(CONFIG), config=FilterConfig(max_median_deviation_px=4.0)
    )
    assert np.isfinite(trusted[0]).mean() < 0.15


def test_the_coarser_level_bridges_holes_for_the_finer_one():
    moving = tissue((512, 512), seed=3)
    fixed, valid = np.roll(moving, (30, 0), axis=(0, 1)), np.ones((512, 512), bool)
    valid[230:290, 200:300] = False
    found = match_all(patches(fixed, valid), patches(moving), moving.shape)
    nodes = inside(moving.shape, 100)
    known = np.isfinite(found[0])
    # Nodes whose answer lies in the hole have none; all around them do, at 30 px.
    assert known[nodes].mean() > 0.85
    np.testing.assert_allclose(found[0][nodes & known], 30, atol=0.5)


def test_a_match_is_the_peak_of_the_surface_round_its_node():
    # Node (5, 6) lies on pixel (160, 192), at mip 1 on (79.75, 95.75): its template's middle is
    # the nearest place, (79.5, 95.5), and the window reaches 6 px further.
    config = levels((1, 32, 6, 16))
    moving, valid = tissue(), np.ones((384, 416), bool)
    valid[:, 200:] = False
    fixed, moving = patches(np.roll(moving, (3, -5), axis=(0, 1)))[1], patches(moving, valid)[1]
    found = match_all({1: fixed}, {1: moving}, (384, 416), config)[:, 5, 6]
    template, window = np.s_[np.newaxis, 64:96, 80:112], np.s_[np.newaxis, 58:102, 74:118]
    taper = tent_taper(32)
    surface, mirrored = (
        ncc_surface(
            moving.features[template][:, ::turn, ::turn],
            moving.valid[template][:, ::turn, ::turn],
            fixed.features[window],
            fixed.valid[window],
            taper=taper,
        )
        for turn in (1, -1)
    )
    peaks = find_peaks(surface, mirrored)
    share = (taper * moving.valid[template]).sum() / taper.sum()
    assert 0.6 < share < 0.8
    np.testing.assert_allclose(found[:2], (peaks.offset[:, 0] - 6) * 2, rtol=1e-5)
    np.testing.assert_allclose(found[:2], (3, -5), atol=0.2)
    expected = (
        *(peaks.score, peaks.ratio, *peaks.r_delta),
        *(peaks.sharpness, peaks.mirror, peaks.curvature_ratio),
    )
    np.testing.assert_allclose(found[2:10], np.stack(expected)[:, 0], rtol=1e-4)
    assert found[CHANNELS.index("overlap")] == pytest.approx(share)
    covariance = peak_covariance(peaks, taper, px_per_sample=SAMPLE_PX2 / 4)[:, 0] * 4 / share
    np.testing.assert_allclose(found[11:], covariance, rtol=1e-3)


def test_answers_spread_into_holes_of_the_coarser_level():
    # The coarser features are blank over 5 x 5 of their nodes, the finer ones are not; without a
    # guide the finer level could not see 20 px.
    moving = tissue((704, 704), seed=4)
    made = [patches(np.roll(moving, (20, 0), axis=(0, 1))), patches(moving)]
    blank = made[0][2].features.copy()
    blank[32:144, 32:144] = 0
    made[0][2] = Patch(blank, made[0][2].valid, (0, 0), 2)
    found = match_all(*made, moving.shape)
    nodes = inside(moving.shape, 100)
    assert np.isfinite(found[0][nodes]).all()
    np.testing.assert_allclose(found[0][nodes], 20, atol=0.3)


# --------------------------------------------------------------------------- what has no answer


def test_flat_sections_have_no_matches():
    moving, flat = tissue(), np.full((384, 416), 128, np.uint8)
    for fixed_image, moving_image in ((flat, moving), (moving, flat), (flat, flat)):
        found = match_all(patches(fixed_image), patches(moving_image), moving.shape)
        assert np.isnan(found).all()


def test_unrelated_sections_are_not_trusted():
    found = match_all(patches(tissue(seed=1)), patches(tissue(seed=2)), (384, 416))
    trusted, _ = reject_outliers(
        found, spacing_px=grid_spacing_px(CONFIG), config=FilterConfig(max_median_deviation_px=4.0)
    )
    assert np.isfinite(trusted[0]).mean() < 0.1


def test_all_channels_are_known_or_none():
    valid = np.ones((384, 416), bool)
    valid[:, 250:] = False
    found = match_all(patches(tissue()), patches(tissue(), valid), (384, 416))
    known = np.isfinite(found[0])
    assert 0.3 < known.mean() < 0.8
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(~known, found.shape))
    assert not known[:, 9:].any()


def test_masked_pixels_have_no_influence_whatever_they_hold():
    moving = tissue()
    fixed, valid = np.roll(moving, (6, -4), axis=(0, 1)), np.ones(moving.shape, bool)
    valid[150:200, 180:260] = False
    clean_fixed, clean_moving = patches(fixed, valid), patches(moving, valid)
    dirty_fixed, dirty_moving = (
        {
            mip: Patch(np.where(p.valid, p.features, np.float32(np.nan)), p.valid, p.origin, p.mip)
            for mip, p in made.items()
        }
        for made in (clean_fixed, clean_moving)
    )
    np.testing.assert_array_equal(
        match_all(dirty_fixed, dirty_moving, moving.shape),
        match_all(clean_fixed, clean_moving, moving.shape),
    )


def test_beside_a_mask_matches_are_as_right_as_elsewhere():
    moving = tissue()
    fixed, valid = np.roll(moving, (6, -4), axis=(0, 1)), np.ones(moving.shape, bool)
    valid[:, 200:] = False
    found = match_all(patches(fixed), patches(moving, valid), moving.shape)
    beside = found[:2, inside(moving.shape, 70)[:, 5], 6]  # 8 px from the mask
    assert beside.shape[1] >= 6
    np.testing.assert_allclose(beside - np.array([[6], [-4]]), 0, atol=0.3)


# --------------------------------------------------------------------------- blocks


def crop(made, box, halo, spacing):
    """What a stage reads for a block: the sections around it, cut at their borders."""
    cut = {}
    for mip, patch in made.items():
        start, stop = [], []
        for first, last, side in zip(*box, patch.features.shape, strict=True):
            start.append(min(max((first * spacing - halo) >> mip, 0), side))
            stop.append(min(max(-((-(last - 1) * spacing - halo) >> mip) + 1, 0), side))
        part = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        cut[mip] = Patch(patch.features[part], patch.valid[part], (start[0], start[1]), mip)
    return cut


TILED = levels((2, 24, 6, 8), (1, 24, 4, 8))


@pytest.fixture(scope="module")
def bent_pair():
    """Two noisy sections, bent against each other, one with a hole; and all their matches."""
    shape = (512, 544)
    moving, fixed_valid = tissue(shape, seed=5), np.ones(shape, bool)
    fixed, valid = warp(moving, smooth_warp(shape, 120, 14, seed=6))
    fixed = np.clip(fixed + np.random.default_rng(7).normal(0, 20, shape), 1, 255)
    fixed_valid[300:340, 100:400] = False
    pair = patches(fixed.astype(np.uint8), valid & fixed_valid), patches(moving)
    return *pair, match_all(*pair, shape, TILED)


def match_alone(fixed, moving, box, halo):
    (i0, j0), (i1, j1) = box
    cut = (crop(made, ((i0, j0), (i1, j1)), halo, 16) for made in (fixed, moving))
    return match_block(*cut, box, grid_shape((512, 544), TILED), TILED)


@pytest.mark.parametrize("box", [((0, 0), (7, 9)), ((7, 9), (15, 16)), ((20, 25), (33, 35))])
def test_result_does_not_depend_on_the_tiling(bent_pair, box):
    fixed, moving, whole = bent_pair
    assert 0.7 < np.isfinite(whole[0]).mean() < 0.98
    (i0, j0), (i1, j1) = box
    block = match_alone(fixed, moving, box, halo_px(TILED))
    np.testing.assert_array_equal(block, whole[:, i0:i1, j0:j1])


def test_a_quarter_of_the_halo_would_not_do(bent_pair):
    fixed, moving, whole = bent_pair
    block = match_alone(fixed, moving, ((15, 15), (20, 20)), halo_px(TILED) // 4)
    assert not np.array_equal(block, whole[:, 15:20, 15:20], equal_nan=True)


def test_single_nodes_are_the_same_as_in_a_block(bent_pair):
    fixed, moving, whole = bent_pair
    shape = grid_shape((512, 544), TILED)
    for i, j in ((0, 0), (4, 11), (shape[0] - 1, 3)):
        one = match_block(fixed, moving, ((i, j), (i + 1, j + 1)), shape, TILED)
        np.testing.assert_array_equal(one[:, 0, 0], whole[:, i, j])
    assert match_block(fixed, moving, ((3, 3), (3, 5)), shape, TILED).shape == (len(CHANNELS), 0, 2)


def test_inputs_are_not_modified(bent_pair):
    images = [p.features for made in bent_pair[:2] for p in made.values()]
    before = [image.copy() for image in images]
    match_all(*bent_pair[:2], (512, 544))
    for a, b in zip(before, images, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nodes_reach_the_last_pixel_and_the_halo_the_search_window():
    assert grid_spacing_px(CONFIG) == 32
    assert grid_shape((384, 417), CONFIG) == (13, 14)
    assert grid_shape((385, 1), CONFIG) == (13, 1)
    one = levels((1, 32, 6, 16))
    assert 2 * (16 + 6) <= halo_px(one) <= 2 * (16 + 6 + 2)
    assert halo_px(CONFIG) > 4 * (16 + 8) + 64


def test_wrong_patches_and_boxes_are_refused():
    made = patches(tissue())
    with pytest.raises(DataError, match=r"needs a patch of mip 2; `moving` has \{1: 1\}"):
        match_all(made, {1: made[1]}, (384, 416))
    with pytest.raises(DataError, match=r"node_box .* leaves the grid of \(13, 13\) nodes"):
        match_block(made, made, ((0, 0), (14, 3)), (13, 13), CONFIG)
    with pytest.raises(ShapeError, match="features and valid of one shape"):
        Patch(np.zeros((3, 4), np.float32), np.ones((4, 3), bool), (0, 0), 0)


# --------------------------------------------------------------------------- guides


def test_weak_answers_guide_nobody_and_good_ones_reach_three_nodes():
    matches = np.full((len(CHANNELS), 1, 9), np.nan, np.float32)
    matches[:, 0, 0] = 0.5
    matches[:2, 0, 0] = 7, -3
    np.testing.assert_array_equal(gate(matches)[:, 0, :4], [[7] * 4, [-3] * 4])
    assert np.isnan(gate(matches)[:, 0, 4:]).all()
    for channel in (SCORE, R_DELTA):
        weak = matches.copy()
        weak[channel, 0, 0] = 0.01
        assert np.isnan(gate(weak)).all()


# --------------------------------------------------------------------------- local median


def test_the_local_median_leaves_unknown_nodes_out():
    values = np.array([[[1, 2, np.nan], [4, 100, np.nan], [3, 2, 5]]], np.float32)
    assert local_median(values)[0, 1, 1] == 3
    assert local_median(values, own=False)[0, 1, 1] == 2.5
    assert local_median(values)[0, 0, 2] == 51
    assert np.isnan(local_median(np.full((2, 3, 3), np.nan, np.float32))).all()


def test_the_local_median_along_a_slope_is_exact_at_the_edges():
    y, x = np.mgrid[:6, :7].astype(np.float32)
    plane = np.stack([3 * y - x, 2 * x])
    slope = np.stack([np.stack([0 * y + 3, 0 * y]), np.stack([0 * y - 1, 0 * y + 2])])
    found = local_median(plane, 2, own=False, slope=slope)
    np.testing.assert_allclose(found, plane, atol=1e-5)


# --------------------------------------------------------------------------- real tissue


def medulla(z):
    """One plane of the FIB-SEM medulla at twice its size: 500 x 500 px of 5 nm."""
    root = Path(os.environ.get("ALIGN_TEST_DATA", "../shared/data"))
    path = root / "fib_medulla_ts2" / "raw.tif"
    if not path.exists():
        pytest.skip(f"set fib_medulla_ts2 is not in {root}; see ALIGN_TEST_DATA")
    plane = tifffile.imread(path, key=z)
    return cv2.resize(plane, (496, 496), interpolation=cv2.INTER_CUBIC)


REAL = levels((2, 64, 16, 16), (1, 64, 8, 8), min_overlap=0.4)


@pytest.mark.parametrize(
    ("planes", "masked", "kept", "median_px", "p95_px", "p99_px"),
    [
        (0, False, 0.97, 0.4, 0.8, 1.0),
        (1, False, 0.97, 0.35, 0.9, 1.3),
        (1, True, 0.97, 0.35, 1.0, 1.4),
        (4, False, 0.85, 0.4, 1.2, 2.0),
        (4, True, 0.85, 0.4, 1.3, 2.6),
    ],
)
def test_a_known_warp_of_real_tissue_is_recovered(planes, masked, kept, median_px, p95_px, p99_px):
    # 0, 10 and 40 nm apart. Between planes the tissue itself moves, by up to some px; a match of
    # the unwarped planes, through the same masks, says how much, and is taken off.
    still, fixed = medulla(60), medulla(60 + planes)
    field = smooth_warp(still.shape, 150, 8, seed=planes)
    moving, valid = warp(still, field)
    fixed_valid, still_valid = np.ones(still.shape, bool), np.ones(still.shape, bool)
    if masked:
        fixed_valid[200:240, :300] = False
        still_valid[np.hypot(*(np.indices(still.shape) - 330)) < 40] = False
    features = FeaturesConfig()
    made = patches(fixed, fixed_valid, features=features)
    found, native = (
        match_all(made, patches(image, mask, features=features), still.shape, REAL)
        for image, mask in ((moving, valid & still_valid), (still, still_valid))
    )
    spacing = grid_spacing_px(REAL)
    trusted, _ = reject_outliers(
        found, spacing_px=spacing, config=FilterConfig(max_median_deviation_px=4.0)
    )
    true = at_nodes(field, REAL)
    ends = np.indices(true.shape[1:]) + true / spacing
    tissue_motion = np.stack(
        [ndi.map_coordinates(c, ends, order=1, cval=np.nan) for c in native[:2]]
    )
    error = np.hypot(*(trusted[:2] - true - tissue_motion))
    nodes = inside(still.shape, 24, REAL) & np.isfinite(tissue_motion[0])
    known = nodes & np.isfinite(error)
    assert known.sum() / nodes.sum() >= kept
    assert np.median(error[known]) <= median_px
    assert np.percentile(error[known], 95) <= p95_px
    assert np.percentile(error[known], 99) <= p99_px
    assert np.mean(error[known] > 5) <= 0.01
