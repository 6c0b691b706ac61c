import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage as ndi

from alignment.config import FeaturesConfig
from alignment.errors import ShapeError
from alignment.features import LIMIT, STEP, halo_px, normalise

CONFIG = FeaturesConfig(sigma_fine_px=1.0, sigma_coarse_px=4.0)


def tissue(shape=(150, 170), seed=0, mean=128, std=30):
    smooth = ndi.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return np.clip(mean + smooth / smooth.std() * std, 1, 255).astype(np.uint8)


def everywhere(image):
    return np.ones(image.shape, bool)


def test_features_have_unit_strength_and_no_mean():
    features = normalise(tissue(), np.ones((150, 170), bool), CONFIG)
    assert features.dtype == np.float32
    assert features.std() == pytest.approx(1, abs=0.05)
    assert abs(features.mean()) < 0.02


def test_a_grating_inside_the_band_passes_and_others_are_stopped():
    x = np.arange(256)
    strength = {}
    for period in (2.2, 12, 400):
        image = np.tile(128 + 40 * np.sin(2 * np.pi * x / period), (128, 1))
        band = FeaturesConfig(sigma_fine_px=1.5, sigma_coarse_px=6.0)
        # The floor of the local strength, 2 grey values, keeps what is stopped from being blown up.
        inner = normalise(image.astype(np.uint8), everywhere(image), band)[40:-40, 40:-40]
        strength[period] = inner.std()
    assert strength[12] == pytest.approx(1, abs=0.1)
    assert max(strength[2.2], strength[400]) < 0.35


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2), st.integers(0, 20), st.integers(0, 99))
def test_gain_and_offset_of_the_image_change_nothing(gain, offset, seed):
    image = tissue(seed=seed, mean=50, std=12)
    changed = (gain * image.astype(int) + offset).astype(np.uint8)
    assert gain * int(image.max()) + offset < 256
    np.testing.assert_allclose(
        normalise(changed, everywhere(image), CONFIG),
        normalise(image, everywhere(image), CONFIG),
        atol=STEP,
    )


def test_what_is_masked_is_zero_and_has_no_influence():
    image, valid = tissue(), np.ones((150, 170), bool)
    valid[40:90, 60:100] = False
    valid[:, 150:] = False
    other = np.where(valid, image, np.random.default_rng(1).integers(0, 256, image.shape))
    features = normalise(image, valid, CONFIG)
    assert not features[~valid].any()
    assert features[valid].std() == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(features, normalise(other.astype(np.uint8), valid, CONFIG))


def test_a_masked_area_leaves_no_edge_around_it():
    # Grey everywhere, with a black hole: without weights its rim would be the strongest feature.
    image, valid = np.full((100, 100), 180, np.uint8), np.ones((100, 100), bool)
    image[30:60, 30:60], valid[30:60, 30:60] = 0, False
    assert not normalise(image, valid, CONFIG).any()


def test_flat_images_and_fully_masked_ones_have_no_features():
    flat = np.full((40, 50), 77, np.uint8)
    assert not normalise(flat, np.ones((40, 50), bool), CONFIG).any()
    assert not normalise(tissue((40, 50)), np.zeros((40, 50), bool), CONFIG).any()


def test_faint_noise_is_not_blown_up_to_tissue():
    noise = np.random.default_rng(0).integers(127, 130, (100, 100)).astype(np.uint8)
    assert normalise(noise, everywhere(noise), CONFIG).std() < 0.3


def test_values_survive_float16_and_stay_in_range():
    features = normalise(tissue(std=60), np.ones((150, 170), bool), CONFIG)
    np.testing.assert_array_equal(features.astype(np.float16).astype(np.float32), features)
    np.testing.assert_array_equal(features / STEP, np.rint(features / STEP))
    assert np.abs(features).max() <= LIMIT
    assert not np.signbit(features[features == 0]).any()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 140),
    st.integers(0, 160),
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([0.0, 0.7, 1.0, 2.0]),
)
def test_result_does_not_depend_on_the_tiling(y, x, height, width, sigma):
    config = FeaturesConfig(sigma_fine_px=sigma, sigma_coarse_px=4.0)
    image, valid = tissue(), np.random.default_rng(3).random((150, 170)) > 0.02
    whole = normalise(image, valid, config)
    halo = halo_px(config)
    y0, x0 = max(y - halo, 0), max(x - halo, 0)
    part = np.s_[y0 : y + height + halo, x0 : x + width + halo]
    block = normalise(image[part], valid[part], config)
    inner = np.s_[y - y0 : y - y0 + height, x - x0 : x - x0 + width]
    np.testing.assert_array_equal(block[inner], whole[y : y + height, x : x + width])


def test_the_halo_is_as_wide_as_it_needs_to_be():
    image = tissue()
    whole = normalise(image, everywhere(image), CONFIG)
    changed = image.copy()
    changed[:, 100:] = tissue(seed=5)[:, 100:]
    differs = (normalise(changed, everywhere(image), CONFIG) != whole).any(0)
    assert not differs[: 100 - halo_px(CONFIG)].any()
    assert differs[100 - halo_px(CONFIG) // 2 : 100].all()


def test_inputs_are_not_modified():
    image, valid = tissue(), np.ones((150, 170), bool)
    valid[:20] = False
    before = image.copy(), valid.copy()
    normalise(image, valid, CONFIG)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(valid, before[1])


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match=r"same shape \(y, x\), got \(150, 170\) and \(5, 5\)"):
        normalise(tissue(), np.ones((5, 5), bool), CONFIG)
