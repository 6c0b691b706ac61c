"""Seams: steps of grey or contrast are found where they are; cells and folds are none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from alignment.config import MasksConfig
from alignment.defects import Defect
from alignment.masks import examine_section
from alignment.seams import Seam, draw_seams, find_seams


def tissue(shape=(640, 700), *, seed=0):
    """Return blobs and noise of the grey of neuropil, float64."""
    random = np.random.default_rng(seed)
    blobs = cv2.GaussianBlur(random.normal(size=shape), (0, 0), 4)
    return 140 + 30 * blobs / blobs.std() + random.normal(0, 8, shape)


def examined(grey, **changed):
    return examine_section(grey.clip(1, 250).astype(np.uint8), MasksConfig(**changed))


def test_tissue_has_no_seam():
    for seed in range(4):
        assert examined(tissue(seed=seed)).seams == []


def test_a_step_of_grey_is_found_and_costs_a_strip():
    grey = tissue()
    grey[:, 301:] += 40
    found = examined(grey)
    [seam] = found.seams
    assert (seam.x0, seam.x1) == pytest.approx((150.3, 150.3), abs=1.5)
    assert seam.y0 < 48
    assert seam.y1 > 272
    assert seam.step == pytest.approx(0.47, abs=0.15)
    strip = (found.reasons & Defect.SEAM) > 0
    assert strip[:, 301].mean() > 0.75
    assert strip.mean() < 0.025
    assert found.valid[:, 320:].all()
    assert found.valid[:, :280].all()


def test_a_step_of_contrast_is_found():
    grey = tissue()
    grey[352:] = 140 + (grey[352:] - 140) * 0.4
    found = examined(grey)
    assert found.seams
    assert all(abs(seam.y0 - 175.5) < 3 for seam in found.seams)
    assert ((found.reasons & Defect.SEAM) > 0)[352].mean() > 0.75


def test_a_tilted_seam_is_followed():
    grey = tissue()
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]]
    grey[x > 300 + 0.04 * y] += 40
    seam = examined(grey).seams[0]
    assert 2 * seam.x0 == pytest.approx(300 + 0.04 * 2 * seam.y0, abs=4)
    assert 2 * seam.x1 == pytest.approx(300 + 0.04 * 2 * seam.y1, abs=4)


def test_a_seam_that_ends_is_marked_only_where_it_is():
    grey = tissue((1024, 700))
    grey[:600, 301:] += 45
    seam = examined(grey).seams[0]
    assert 2 * seam.y1 == pytest.approx(600, abs=80)


def test_a_fold_is_no_seam():
    grey = tissue()
    grey[:, 300:320] = 20
    found = examined(grey)
    assert found.seams == []
    assert {tear.kind for tear in found.tears} <= {Defect.FOLD, Defect.CRACK}
    assert found.tears


def test_a_gradient_is_no_seam():
    grey = tissue() + np.linspace(-40, 40, 700)
    found = examined(grey)
    assert found.seams == []
    assert found.shading > 0.3


def test_seams_can_be_turned_off():
    grey = tissue()
    grey[:, 301:] += 40
    assert examined(grey, seam_min_length_px=0).seams == []


def test_a_small_section_has_none():
    image = tissue((200, 200)).astype(np.float32)
    image[:, 100:] += 60
    assert find_seams(image, np.ones(image.shape, bool), MasksConfig()) == []


def test_a_strip_is_drawn_in_the_larger_image():
    strip = draw_seams([Seam(-0.5, 9.5, 19.5, 9.5, 1.0, 20.0)], (40, 40), scale=2, width_px=3)
    columns = np.flatnonzero(strip[20])
    assert columns.min() >= 18
    assert columns.max() <= 22
    assert 19.5 <= columns.mean() <= 20.5
    assert strip[[0, 39], 20].all()
