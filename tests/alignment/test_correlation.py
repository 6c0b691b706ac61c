import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage as ndi

from alignment.correlation import (
    PEAK_RADIUS_PX,
    find_peaks,
    ncc_surface,
    peak_covariance,
    tent_taper,
)
from alignment.errors import ShapeError


def texture(random, n, side, sigma=1.5):
    noise = ndi.gaussian_filter(random.normal(size=(n, side, side)), (0, sigma, sigma))
    return (noise / noise.std()).astype(np.float32)


def every_pixel(patches):
    return np.ones(patches.shape, bool)


def reference_surface(template, template_valid, window, window_valid, taper, min_overlap):
    """Pearson's correlation position by position, in float64."""
    t, k = len(template), len(window) - len(template) + 1
    surface = np.full((k, k), np.nan)
    for y, x in np.ndindex(k, k):
        part = np.s_[y : y + t, x : x + t]
        weight = taper * (template_valid & window_valid[part])
        if weight.sum() < min_overlap * taper.sum():
            continue
        a, b = template - np.average(template, weights=weight), window[part].astype(float)
        b = b - np.average(b, weights=weight)
        norm = np.sqrt((weight * a * a).sum() * (weight * b * b).sum())
        surface[y, x] = (weight * a * b).sum() / norm
    return surface


@pytest.mark.parametrize("masked", ["neither", "template", "window", "both"])
@pytest.mark.parametrize("tapered", ["tapered", "box"])
@pytest.mark.parametrize(("t", "w"), [(8, 13), (11, 17)])
def test_agrees_with_correlation_done_position_by_position(masked, tapered, t, w):
    random = np.random.default_rng(t)
    templates, windows = texture(random, 5, t), texture(random, 5, w)
    template_valid, window_valid = every_pixel(templates), every_pixel(windows)
    if masked in ("template", "both"):
        template_valid[1:4] = random.random((3, t, t)) > 0.3
        template_valid[4, :, : t // 2] = False
    if masked in ("window", "both"):
        window_valid[2:] = random.random((3, w, w)) > 0.3
    taper = tent_taper(t) if tapered == "tapered" else np.ones((t, t), np.float32)
    found = ncc_surface(
        templates,
        template_valid,
        windows,
        window_valid,
        taper=None if tapered == "box" else taper,
        min_overlap=0.3,
    )
    expected = [
        reference_surface(*five, taper, 0.3)
        for five in zip(templates, template_valid, windows, window_valid, strict=True)
    ]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_short_way_for_whole_patches_gives_the_same_numbers():
    # A hole in a corner of the window takes the long way; positions off that corner must not care.
    random = np.random.default_rng(0)
    templates, windows = texture(random, 4, 32), texture(random, 4, 48)
    holed = every_pixel(windows)
    holed[:, :3, :3] = False
    short = ncc_surface(templates, every_pixel(templates), windows, every_pixel(windows))
    long = ncc_surface(templates, every_pixel(templates), windows, holed)
    np.testing.assert_allclose(long[:, 3:, 3:], short[:, 3:, 3:], atol=1e-4)


def test_a_template_cut_from_its_window_scores_one_where_it_was():
    windows = texture(np.random.default_rng(1), 3, 40)
    templates = windows[:, 5:29, 9:33]
    surfaces = ncc_surface(templates, every_pixel(templates), windows, every_pixel(windows))
    np.testing.assert_allclose(surfaces[:, 5, 9], 1, atol=1e-5)
    assert (surfaces.reshape(3, -1).argmax(1) == 5 * 17 + 9).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 50), st.floats(-1000, 1000), st.integers(0, 99))
def test_gain_and_offset_of_either_patch_change_nothing(gain, offset, seed):
    random = np.random.default_rng(seed)
    templates, windows = texture(random, 2, 24), texture(random, 2, 36)
    valid = every_pixel(windows)
    valid[:, 20:24, 10:30] = False
    plain = ncc_surface(templates, every_pixel(templates), windows, valid)
    offset *= min(gain, 1)  # float32 leaves few digits for a faint texture on a large offset
    other = ncc_surface(
        np.float32(gain) * templates - np.float32(offset),
        every_pixel(templates),
        np.float32(gain) * windows + np.float32(offset),
        valid,
    )
    np.testing.assert_allclose(other, plain, atol=5e-3)


def test_masked_pixels_have_no_influence_whatever_they_hold():
    random = np.random.default_rng(2)
    templates, windows = texture(random, 3, 24), texture(random, 3, 36)
    template_valid, window_valid = every_pixel(templates), every_pixel(windows)
    template_valid[0, 4:9], window_valid[1, :, 10:14] = False, False
    plain = ncc_surface(templates, template_valid, windows, window_valid)
    templates, windows = templates.copy(), windows.copy()
    templates[~template_valid], windows[~window_valid] = np.nan, np.inf
    np.testing.assert_array_equal(
        ncc_surface(templates, template_valid, windows, window_valid), plain
    )


def test_flat_patches_and_small_overlaps_have_no_score():
    random = np.random.default_rng(3)
    templates, windows = texture(random, 4, 16), texture(random, 4, 24)
    template_valid, window_valid = every_pixel(templates), every_pixel(windows)
    templates[0] = 3.0
    windows[1] = 200.0
    template_valid[2, 6:] = False
    window_valid[3, :, :16] = False
    surfaces = ncc_surface(templates, template_valid, windows, window_valid, min_overlap=0.5)
    assert np.isnan(surfaces[:3]).all()
    assert np.isnan(surfaces[3, :, :8]).all()
    assert np.isfinite(surfaces[3, :, 8]).all()  # exactly half of the template


def test_flat_resin_beside_tissue_has_no_score():
    # FFT rounding of the bright tissue must not look like texture in the resin.
    window = texture(np.random.default_rng(4), 1, 64)
    window[:, :, :40] = 0
    template = texture(np.random.default_rng(5), 1, 24)
    surface = ncc_surface(template, every_pixel(template), 1000 * window, every_pixel(window))[0]
    assert np.isnan(surface[:, :16]).all()
    assert np.isfinite(surface[:, 20:]).all()


def test_rounding_of_the_features_is_not_texture():
    random = np.random.default_rng(8)
    steps = random.integers(-1, 2, (1, 24, 24)).astype(np.float32) / 256
    template = steps[:, :16, :16]
    surface = ncc_surface(template, every_pixel(template), steps, every_pixel(steps))
    assert np.isnan(surface).all()
    surface = ncc_surface(20 * template, every_pixel(template), 20 * steps, every_pixel(steps))
    assert np.isfinite(surface).all()


def test_a_surface_does_not_depend_on_its_batch():
    random = np.random.default_rng(6)
    templates, windows = texture(random, 37, 20), texture(random, 37, 31)
    template_valid, window_valid = every_pixel(templates), every_pixel(windows)
    template_valid[5:12, :6], window_valid[9:20, :, 25:] = False, False
    templates[30:33] *= 1e4
    windows[31:34] *= 1e4
    batch = templates, template_valid, windows, window_valid
    whole = ncc_surface(*batch)
    for part in (slice(0, 1), slice(11, 12), slice(3, 10), slice(18, 37)):
        np.testing.assert_array_equal(ncc_surface(*(a[part] for a in batch)), whole[part])
    reverse = ncc_surface(*(a[::-1] for a in batch))
    np.testing.assert_array_equal(reverse[::-1], whole)


def test_batches_that_do_not_fit_are_refused():
    window = np.zeros((2, 20, 20), np.float32)
    large = np.zeros((2, 30, 30), np.float32)
    with pytest.raises(ShapeError, match=r"got \(2, 30, 30\)"):
        ncc_surface(large, every_pixel(large), window, every_pixel(window))
    with pytest.raises(ShapeError, match="w >= t"):
        ncc_surface(window[:1], every_pixel(window[:1]), window, every_pixel(window))
    none = np.zeros((0, 8, 8), np.float32)
    assert ncc_surface(none, every_pixel(none), window[:0], every_pixel(window[:0])).shape == (
        0,
        13,
        13,
    )


# --------------------------------------------------------------------------- peaks


def bumps(k, *peaks, width=2.0):
    """Surface with Gaussian peaks of (y, x, height)."""
    y, x = np.mgrid[:k, :k]
    surface = np.zeros((k, k))
    for py, px, height in peaks:
        blob = height * np.exp(-((y - py) ** 2 + (x - px) ** 2) / (2 * width**2))
        surface = np.maximum(surface, blob)
    return surface[np.newaxis].astype(np.float32)


def peaks_of(surfaces, mirrored=None):
    return find_peaks(surfaces, np.zeros_like(surfaces) if mirrored is None else mirrored)


@given(st.floats(4, 12), st.floats(4, 12), st.floats(0.5, 3), st.floats(0.5, 3), st.floats(-1, 1))
def test_the_top_of_a_quadratic_is_found_exactly(py, px, cyy, cxx, correlation):
    cyx = 0.9 * correlation * np.sqrt(cyy * cxx)
    dy, dx = np.mgrid[:17, :17] - np.array([py, px])[:, None, None]
    surface = 1 - (cyy * dy * dy + 2 * cyx * dy * dx + cxx * dx * dx) / 1000
    peaks = peaks_of(surface[np.newaxis].astype(np.float32))
    steep = abs(cyx) < 0.4 * min(cyy, cxx)  # else the best pixel may lie further along the ridge
    if steep:
        np.testing.assert_allclose(peaks.offset[:, 0], (py, px), atol=0.01)
        trace, det = 2 * (cyy + cxx), 4 * (cyy * cxx - cyx**2)
        assert peaks.curvature_ratio[0] == pytest.approx(trace**2 / det, rel=0.02)
        expected = np.array([cxx, -cyx, cyy]) / (cyy * cxx - cyx**2) * 500
        np.testing.assert_allclose(peaks.inverse_curvature[:, 0], expected, rtol=0.02, atol=2)


def test_the_ratio_compares_the_two_best_peaks():
    peaks = peaks_of(bumps(31, (8, 8, 0.8), (20, 22, 0.5), (8, 25, 0.2)))
    assert peaks.ratio[0] == pytest.approx(1.6)
    assert peaks.score[0] == pytest.approx(0.8)


def test_r_delta_is_what_the_score_falls_by_outside_each_radius():
    # Rivals 7, 12 and 17 px away, along y, x and both; nothing but them counts from there on.
    rivals = (9, 16, 0.6), (16, 28, 0.5), (33, 33, 0.3)
    surface = bumps(40, (16, 16, 0.8), *rivals, width=0.8)
    np.testing.assert_allclose(peaks_of(surface).r_delta[:, 0], [0.2, 0.3, 0.5], atol=1e-6)


def test_r_delta_sees_a_shoulder_that_is_no_peak():
    wide = peaks_of(bumps(31, (15, 15, 0.8), width=6))
    assert wide.ratio[0] == np.inf
    assert wide.r_delta[0, 0] == pytest.approx(0.8 - 0.8 * np.exp(-0.5), abs=1e-6)


def test_a_single_peak_is_unique_and_its_r_delta_is_its_score():
    surface = bumps(21, (10, 10, 0.7)) - np.float32(0.1)
    peaks = peaks_of(surface)
    assert peaks.ratio[0] == np.inf
    assert (peaks.r_delta[:, 0] == peaks.score[0]).all()
    assert peaks.score[0] == pytest.approx(0.6)
    # Nothing lies outside of 5 px on a surface of 9 x 9, and nothing known outside of 5 px here.
    small = bumps(9, (4, 4, 0.7), width=4)
    surface = np.where(np.hypot(*np.mgrid[-10:11, -10:11]) > 4, np.float32(np.nan), surface)
    for alone in (small, surface):
        peaks = peaks_of(alone)
        assert (peaks.r_delta[:, 0] == peaks.score[0]).all()


def test_sharpness_is_the_share_of_the_score_that_is_lost_near_the_peak():
    surface = bumps(31, (15, 15, 0.8), width=3)
    corner = np.exp(-(5**2 + 5**2) / (2 * 3**2))
    assert peaks_of(surface).sharpness[0] == pytest.approx(1 - corner, abs=1e-5)
    surface[0, 12, 12] = -0.4
    assert peaks_of(surface).sharpness[0] == pytest.approx(1.5, abs=1e-5)
    surface[0, 12, 12], surface[0, 15, 21] = np.nan, -0.9
    assert peaks_of(surface).sharpness[0] == pytest.approx(1 - corner, abs=1e-5)


def test_the_mirror_is_the_share_of_the_score_that_chance_does_not_reach():
    surface = np.repeat(bumps(15, (7, 7, 0.8)), 5, axis=0)
    mirrored = np.full_like(surface, -0.3)
    mirrored[0, 3, 9], mirrored[1, 0, 0], mirrored[3] = 0.2, 0.9, np.nan
    mirrored[4], mirrored[4, 2, 2] = np.nan, 0.4
    np.testing.assert_allclose(peaks_of(surface, mirrored).mirror, [0.75, 0, 1, 1, 0.5], atol=1e-6)


def test_a_peak_that_is_not_above_zero_stands_out_from_nothing():
    peaks = peaks_of(bumps(21, (10, 10, 0.7)) - np.float32(0.8))
    assert peaks.score[0] == pytest.approx(-0.1, abs=1e-6)
    assert peaks.sharpness[0] == peaks.mirror[0] == 0
    assert (peaks.r_delta[:, 0] == peaks.score[0]).all()


def test_a_template_from_its_window_beats_its_mirror_image_and_one_from_elsewhere_does_not():
    random = np.random.default_rng(9)
    windows, others = texture(random, 40, 96), texture(random, 40, 64)
    mirror = []
    for templates in (windows[:, 16:80, 16:80], others):
        turned = templates[:, ::-1, ::-1]
        valid = every_pixel(templates), windows, every_pixel(windows)
        peaks = find_peaks(ncc_surface(templates, *valid), ncc_surface(turned, *valid))
        mirror.append(peaks.mirror)
    assert np.nanmin(mirror[0]) > 0.6
    assert np.nanmedian(mirror[1]) < 0.15


def test_a_second_maximum_beside_the_peak_belongs_to_it():
    near, far = PEAK_RADIUS_PX, PEAK_RADIUS_PX + 1
    close = peaks_of(bumps(31, (10, 10, 0.8), (10 + near, 10, 0.7), width=1))
    apart = peaks_of(bumps(31, (10, 10, 0.8), (10 + far, 10, 0.7), width=1))
    assert close.ratio[0] == np.inf
    assert apart.ratio[0] == pytest.approx(0.8 / 0.7)


@pytest.mark.parametrize("place", [(0, 7), (14, 7), (7, 0), (7, 14)])
def test_a_peak_on_the_rim_is_none(place):
    peaks = peaks_of(bumps(15, (*place, 0.8)))
    for value in vars(peaks).values():
        assert np.isnan(value).all()


def test_a_peak_beside_an_unknown_position_is_none():
    surface = bumps(15, (7, 7, 0.8))
    surface[0, 6, 8] = np.nan
    assert np.isnan(peaks_of(surface).score[0])
    surface[0, 6, 8], surface[0, 5, 8] = 0, np.nan
    assert np.isfinite(peaks_of(surface).score[0])


def test_saddles_flats_and_nothing_are_none():
    y, x = np.mgrid[:9, :9] - 4.0
    along_a_line = 0.9 - 0.05 * (y - x) ** 2  # a ridge: no place along it is best
    flat, unknown = np.full((9, 9), 0.5), np.full((9, 9), np.nan)
    peaks = peaks_of(np.stack([along_a_line, flat, unknown]).astype(np.float32))
    assert np.isnan(peaks.score).all()
    assert np.isnan(peaks.offset).all()


def test_a_top_a_pixel_or_more_away_is_none():
    # A narrow ridge along the diagonal whose slope says that the top is further along it.
    around = np.array([[0.5, 0.88, 0.89], [0.72, 0.9, 0.88], [0.86, 0.72, 0.5]])
    surface = np.zeros((1, 7, 7), np.float32)
    surface[0, 2:5, 2:5] = around
    assert np.isnan(peaks_of(surface).score[0])
    surface[0, 2, 3] = surface[0, 3, 4] = 0.74
    assert np.isfinite(peaks_of(surface).score[0])


def test_surfaces_without_an_inside_are_refused():
    with pytest.raises(ShapeError, match=r"raise match.levels\[\].search_radius_px"):
        peaks_of(np.zeros((1, 2, 2), np.float32))
    with pytest.raises(ShapeError, match=r"mirrored must hold .* got \(2, 9, 9\)"):
        find_peaks(np.zeros((3, 9, 9), np.float32), np.zeros((2, 9, 9), np.float32))


def test_the_statistics_of_a_peak_do_not_depend_on_its_batch():
    surfaces, mirrored = (texture(np.random.default_rng(k), 23, 25, 2) / 3 for k in (10, 11))
    surfaces[5:9, 10:14] = np.nan
    surfaces[9], surfaces[10] = np.nan, 0.25
    whole = find_peaks(surfaces, mirrored)
    for part in (slice(0, 1), slice(4, 11), slice(22, 0, -3)):
        alone = find_peaks(surfaces[part], mirrored[part])
        for name, values in vars(alone).items():
            np.testing.assert_array_equal(values, getattr(whole, name)[..., part])


# --------------------------------------------------------------------------- uncertainty


def test_the_covariance_is_longest_along_a_ridge():
    y, x = np.mgrid[:15, :15] - 7.0
    surface = (0.8 - 0.02 * y * y - 0.002 * x * x)[np.newaxis].astype(np.float32)
    yy, yx, xx = peak_covariance(peaks_of(surface), tent_taper(32), px_per_sample=28)[:, 0]
    assert xx == pytest.approx(10 * yy, rel=0.01)
    assert abs(yx) < 1e-3 * yy


def test_errors_have_the_spread_that_the_covariance_says():
    # Two sections that share two thirds of their structure, all of it white noise under a Gaussian.
    random = np.random.default_rng(7)
    n, t, r, sigma = 400, 64, 8, 3.0
    common, one, other = (texture(random, n, t + 2 * r, sigma) for _ in range(3))
    windows, moving = common + 0.7 * one, common + 0.7 * other
    templates = moving[:, r : r + t, r : r + t]
    taper = tent_taper(t)
    peaks = peaks_of(
        ncc_surface(templates, every_pixel(templates), windows, every_pixel(windows), taper=taper)
    )
    yy, yx, xx = peak_covariance(peaks, taper, px_per_sample=np.pi * sigma**2)
    dy, dx = peaks.offset - r
    squared = (xx * dy * dy - 2 * yx * dy * dx + yy * dx * dx) / (yy * xx - yx * yx)
    known = np.isfinite(squared)
    assert known.mean() > 0.95
    # The median of chi-squared with two degrees of freedom is 2 ln 2.
    assert np.median(squared[known]) / (2 * np.log(2)) == pytest.approx(1, rel=0.35)
    assert abs(np.median(dy[known])) < 0.1
