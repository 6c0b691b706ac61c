"""Background and exposure."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from alignment.config import MasksConfig
from alignment.defects import Defect, area_fractions
from alignment.illumination import clipped_areas, dark_areas, local_background, shading
from alignment.masks import estimate_valid


def tissue(shape=(256, 256), *, seed=0):
    random = np.random.default_rng(seed)
    blobs = cv2.GaussianBlur(random.normal(size=shape), (0, 0), 3)
    return 128 + 30 * blobs / blobs.std() + random.normal(0, 6, shape)


def as_image(grey):
    return grey.clip(1, 250).astype(np.uint8)


def test_background_follows_shading_but_not_a_band():
    grey = (tissue((512, 512)) + np.linspace(-30, 30, 512)).astype(np.float32)
    grey[200:212] = 0
    background = local_background(grey, np.ones(grey.shape, bool))
    assert abs(float(background.median[100, 50]) - 104) < 10
    assert abs(float(background.median[206, 460]) - 152) < 12
    assert float(background.below.min()) >= 4


def test_the_unknown_does_not_count():
    grey = np.full((128, 128), 100, np.float32)
    grey[:, :64] = 0
    known = grey > 0
    assert (local_background(grey, known).median == 100).all()
    assert (local_background(grey, np.zeros_like(known)).median == 128).all()


def test_shading_ignores_what_stands_out():
    grey = np.full((640, 640), 120, np.float32)
    assert shading(grey, np.ones(grey.shape, bool)) == 0
    grey[64:128, 64:192] = 0
    assert shading(grey, np.ones(grey.shape, bool)) < 0.01
    assert shading(grey, np.zeros(grey.shape, bool)) == 0


def test_gloom_is_underexposed():
    grey = tissue()
    grey[:100] = 0.1 * grey[:100]  # mean 13 of 128, contrast a tenth
    _, reasons = estimate_valid(as_image(grey), MasksConfig(flat_std=0.0, grow_px=0))
    assert (reasons[:80] == Defect.UNDEREXPOSED).all()
    assert not reasons[120:].any()


def test_gloom_that_is_flat_too_has_both_reasons():
    grey = tissue()
    grey[:100] = 0.04 * grey[:100] + 4
    _, reasons = estimate_valid(as_image(grey), MasksConfig(grow_px=0))
    assert (reasons[:80] == Defect.UNDEREXPOSED | Defect.FLAT).all()


def test_dark_but_lively_tissue_is_not():
    grey = tissue()
    grey[:100] -= 70
    valid, _ = estimate_valid(as_image(grey), MasksConfig())
    assert valid.all()


def test_dark_windows_with_contrast_are_tissue():
    shape = (8, 8)
    mean, contrast = np.full(shape, 100, np.float32), np.full(shape, 20, np.float32)
    mean[:2] = 10
    contrast[0] = 2
    everywhere = np.ones(shape, bool)
    found = dark_areas(mean, contrast, everywhere, everywhere, 0.25)
    assert found[0].all()
    assert not found[1:].any()


@pytest.mark.parametrize(("end", "reason"), [(0, Defect.UNDEREXPOSED), (255, Defect.SATURATED)])
def test_tissue_clipped_at_an_end_is_wrongly_exposed(end, reason):
    image = as_image(tissue())
    y, x = np.indices(image.shape)
    image[((y + 2 * x) % 7 < 3) & (y < 100)] = end  # 43 %, and no solid area
    config = MasksConfig(grow_px=0, flat_std=0.0, underexposed_fraction=0.0)
    assert estimate_valid(image, config)[0].all()
    _, reasons = estimate_valid(image, config.model_copy(update={"clipped_share": 0.4}))
    assert ((reasons[:90] & reason) > 0).mean() > 0.9
    assert not reasons[130:].any()


def test_windows_are_judged_by_what_is_known():
    at_end = np.zeros((64, 64), bool)
    at_end[:, :32] = True
    known = np.ones((64, 64), bool)
    assert clipped_areas(at_end, known, 0.5, 9)[:, :28].all()
    assert not clipped_areas(at_end, known, 0.5, 9)[:, 40:].any()
    assert not clipped_areas(at_end, ~at_end, 0.5, 9).any()
    assert not clipped_areas(at_end[:5], known[:5], 0.5, 9).any()


def test_every_reason_has_its_share():
    reasons = np.arange(256, dtype=np.uint8).reshape(16, 16)
    shares = area_fractions(reasons)
    assert list(shares) == [defect.name for defect in Defect]
    assert set(shares.values()) == {0.5}
