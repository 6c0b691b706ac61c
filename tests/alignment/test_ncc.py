"""The engine of matching against its definition in numpy, and against what must not matter."""

import numpy as np
import pytest

from alignment.correlation import (
    box_taper,
    find_peaks,
    ncc_surface,
    tent_taper,
)
from alignment.errors import ShapeError
from alignment.ncc import STEP, FeatureImage, Job, find_matches, score_surfaces, transform_px
from tests.feature_images import SIZES, features, jobs_over, pair, sizes


def cut(image, start, side):
    padded = np.pad(image, 200)
    y, x = start + 200
    return padded[y : y + side, x : x + side]


def by_definition(images, jobs, template_px, search_radius_px, weights, *, turn=1):
    taper = tent_taper(template_px) if weights == "tent" else box_taper(template_px)
    window_px = template_px + 2 * search_radius_px
    parts = [
        (
            cut(images[1].grey, job[4:], template_px)[::turn, ::turn],
            cut(images[1].valid, job[4:], template_px)[::turn, ::turn],
            cut(images[0].grey, job[1:3], window_px),
            cut(images[0].valid, job[1:3], window_px),
        )
        for job in jobs
    ]
    t, tv, w, wv = (np.stack(part) for part in zip(*parts, strict=True))
    step = np.float32(STEP)
    return ncc_surface(t * step, tv > 0, w * step, wv > 0, taper=taper, min_overlap=0.3)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("weights", ["tent", "box"])
@pytest.mark.parametrize(("template_px", "window_px"), [(8, 14), *SIZES[2:]])
def test_surfaces_and_peaks_are_those_of_the_definition(template_px, window_px, weights, holes):
    images = pair(holes=holes)
    settings = sizes(template_px, window_px, weights=weights)
    jobs = jobs_over(images, template_px, window_px)
    surfaces, mirrored = (
        by_definition(images, jobs, template_px, (window_px - template_px) // 2, weights, turn=turn)
        for turn in (1, -1)
    )
    for expected, is_turned in ((surfaces, False), (mirrored, True)):
        found = score_surfaces(images, jobs, **settings, is_turned=is_turned)
        np.testing.assert_allclose(found, expected, atol=2e-5)
    expected = find_peaks(surfaces, mirrored)
    peaks, overlap = find_matches(images, jobs, **settings)
    positive = expected.score > 0  # what correlates with nothing is no match
    assert positive.sum() >= (4 if template_px == 8 else 20)
    for name in ("score", "r_delta", "sharpness", "mirror"):
        np.testing.assert_allclose(
            getattr(peaks, name)[..., positive], getattr(expected, name)[..., positive], atol=1e-4
        )
    np.testing.assert_allclose(peaks.offset[:, positive], expected.offset[:, positive], atol=0.01)
    np.testing.assert_allclose(peaks.ratio[positive], expected.ratio[positive], rtol=1e-3)
    np.testing.assert_allclose(
        peaks.inverse_curvature[:, positive],
        expected.inverse_curvature[:, positive],
        rtol=0.02,
        atol=0.05,
    )
    taper = tent_taper(template_px) if weights == "tent" else box_taper(template_px)
    share = [
        (cut(images[1].valid, job[4:], template_px) * taper).sum() / taper.sum() for job in jobs
    ]
    known = ~np.isnan(overlap)
    np.testing.assert_allclose(overlap[known], np.array(share)[known], rtol=1e-5)


def test_a_match_does_not_depend_on_the_other_jobs_of_its_call():
    images = pair(holes=True)
    jobs = jobs_over(images, 32, 48)
    settings = sizes(32, 48)
    whole, overlap = find_matches(images, jobs, **settings)
    order = np.random.default_rng(0).permutation(len(jobs))
    shuffled, _ = find_matches(images, jobs[order], **settings)
    np.testing.assert_array_equal(shuffled.offset, whole.offset[:, order])
    np.testing.assert_array_equal(shuffled.r_delta, whole.r_delta[:, order])
    np.testing.assert_array_equal(shuffled.mirror, whole.mirror[order])
    for some in (slice(0, 1), slice(5, 9), slice(20, 40)):
        part, part_overlap = find_matches(images, jobs[some], **settings)
        np.testing.assert_array_equal(part.offset, whole.offset[:, some])
        np.testing.assert_array_equal(part.ratio, whole.ratio[some])
        np.testing.assert_array_equal(part.inverse_curvature, whole.inverse_curvature[:, some])
        np.testing.assert_array_equal(part_overlap, overlap[some])


def test_a_match_does_not_depend_on_where_its_image_was_cut():
    images = pair(holes=True)
    jobs = jobs_over(images, 32, 48)
    inside = (jobs[:, [1, 2]] >= 40).all(1) & (jobs[:, [1, 2]] + 48 <= (260, 300)).all(1)
    whole, _ = find_matches(images, jobs[inside], **sizes(32, 48))
    parts = [
        FeatureImage(
            np.ascontiguousarray(i.grey[40:260, 40:300]),
            np.ascontiguousarray(i.valid[40:260, 40:300]),
        )
        for i in images
    ]
    moved = jobs[inside] - np.array([0, 40, 40, 0, 40, 40], np.int32)
    part, _ = find_matches(parts, moved, **sizes(32, 48))
    assert inside.sum() > 10
    np.testing.assert_array_equal(part.offset, whole.offset)
    np.testing.assert_array_equal(part.score, whole.score)


def test_spectra_that_are_kept_are_those_of_their_own_patch():
    # More windows and templates in turn than the engine keeps.
    images = [*pair(holes=False), *pair(holes=True)]
    rows = jobs_over(images, 32, 48, step=90)
    chain = np.concatenate([rows + np.array([2 * k, 0, 0, 2 * k, 0, 0], np.int32) for k in (0, 1)])
    again = np.concatenate([chain, chain[::-1], chain])
    found, _ = find_matches(images, again, **sizes(32, 48))
    once, _ = find_matches(images, chain, **sizes(32, 48))
    expected = np.concatenate([once.offset, once.offset[:, ::-1], once.offset], axis=1)
    np.testing.assert_array_equal(found.offset, expected)


def test_the_known_shift_is_found_beside_holes():
    images = pair(holes=True)
    peaks, _ = find_matches(images, jobs_over(images, 64, 84), **sizes(64, 84))
    known = np.isfinite(peaks.score)
    assert known.mean() > 0.7
    error = peaks.offset[:, known] - 10 - np.array([[3], [-2]])
    assert np.percentile(np.hypot(*error), 95) < 0.3


def test_what_is_not_valid_is_not_looked_at():
    image, valid = features((120, 130), 3), np.ones((120, 130), bool)
    valid[46:60, 30:90] = False
    dirty = np.where(valid, image, np.float32(np.nan))
    jobs = np.array([Job(0, 20, 20, 1, 28, 28), Job(0, 42, 12, 1, 50, 20)], np.int32)
    clean, _ = find_matches([FeatureImage.of(image, valid)] * 2, jobs, **sizes(32, 48))
    found, _ = find_matches([FeatureImage.of(dirty, valid)] * 2, jobs, **sizes(32, 48))
    np.testing.assert_array_equal(found.offset, clean.offset)
    np.testing.assert_allclose(clean.offset, 8, atol=0.01)


def test_blank_and_lost_patches_have_no_match():
    image = features((100, 100), 4)
    blank = FeatureImage.of(np.zeros((100, 100), np.float32), np.ones((100, 100), bool))
    lost = FeatureImage.of(image, np.zeros((100, 100), bool))
    there = FeatureImage.of(image, np.ones((100, 100), bool))
    far = [Job(2, 5000, 0, 2, 20, 20), Job(2, 10, 10, 2, -300, 0)]
    pairs = [(0, 2), (2, 0), (1, 2), (2, 1), (0, 0), (1, 1)]
    jobs = np.array([*far, *(Job(a, 12, 12, b, 20, 20) for a, b in pairs)], np.int32)
    peaks, overlap = find_matches([blank, lost, there], jobs, **sizes(32, 48))
    assert np.isnan(peaks.score).all()
    assert np.isnan(peaks.offset).all()
    assert np.isnan(overlap).all()


@pytest.mark.parametrize(("window_px", "expected"), [(13, 32), (84, 96), (200, 224), (512, 512)])
def test_transforms_have_sizes_that_are_fast(window_px, expected):
    assert transform_px(window_px) == expected


def test_jobs_that_make_no_sense_are_refused():
    image = FeatureImage.of(features((64, 64), 0), np.ones((64, 64), bool))
    job = np.array([Job(0, 0, 0, 1, 4, 4)], np.int32)
    with pytest.raises(ShapeError, match="jobs name image 1 of 1"):
        find_matches([image], job, **sizes(16, 24))
    with pytest.raises(ShapeError, match="template_px"):
        find_matches([image, image], job, **sizes(1024, 1040))
    with pytest.raises(ShapeError, match="one shape"):
        FeatureImage.of(np.zeros((4, 5), np.float32), np.ones((5, 4), bool))
    with pytest.raises(ShapeError, match=r"\(n, 6\)"):
        find_matches([image], job[:, :4], **sizes(16, 24))
