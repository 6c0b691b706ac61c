"""Speed of the steps round matching, one core; of matching itself: `make bench-match`."""

import cv2
import numpy as np
import pytest
from scipy import ndimage as ndi

from alignment.config import FeaturesConfig, FilterConfig, MatchConfig
from alignment.features import normalise
from alignment.filter import reject_outliers
from alignment.match import Patch, grid_shape, grid_spacing_px, match_block
from alignment.pyramid import downsample


@pytest.fixture(autouse=True)
def like_a_worker():
    """One thread, and a section freed, after which glibc keeps freed memory for the next batch."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    np.ones((2048, 2048), np.float32).sum()
    yield
    cv2.setNumThreads(threads)


def tissue(shape, seed=0):
    smooth = ndi.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return (smooth / smooth.std()).astype(np.float32)


@pytest.fixture(scope="module")
def pair():
    """Features of two sections of 1024 px and the matches between them."""
    config, made = MatchConfig(), []
    image = np.clip(128 + 35 * tissue((1024, 1024)), 1, 255).astype(np.uint8)
    for section in (np.roll(image, (7, -5), axis=(0, 1)), image):
        made.append({})
        for mip in range(1 + max(level.mip for level in config.levels)):
            valid = np.ones(section.shape, bool)
            features = normalise(section, valid, FeaturesConfig())
            made[-1][mip] = Patch(features, valid, (0, 0), mip)
            section = downsample(section[np.newaxis])[0]
    shape = grid_shape((1024, 1024), config)
    return *made, shape


def test_one_pair_of_sections(benchmark, pair):
    """1024 x 1024 px with the default levels; a stack needs as many as sections x neighbours."""
    fixed, moving, shape = pair
    found = benchmark(match_block, fixed, moving, ((0, 0), shape), shape, MatchConfig())
    assert np.isfinite(found[0]).mean() > 0.9


def test_features_of_one_section(benchmark):
    """1024 x 1024 px at one mip."""
    image = np.clip(128 + 35 * tissue((1024, 1024)), 1, 255).astype(np.uint8)
    features = benchmark(normalise, image, np.ones(image.shape, bool), FeaturesConfig())
    assert features.std() == pytest.approx(1, abs=0.1)


def test_filter_of_one_pair(benchmark, pair):
    """33 x 33 nodes."""
    fixed, moving, shape = pair
    found = match_block(fixed, moving, ((0, 0), shape), shape, MatchConfig())
    trusted, _ = benchmark(
        reject_outliers,
        found,
        spacing_px=grid_spacing_px(MatchConfig()),
        config=FilterConfig(),
    )
    assert np.isfinite(trusted[0]).mean() > 0.9
