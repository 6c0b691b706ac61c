"""Valid pixels: known defects in made-up tissue, and real sections that must stay whole."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.config import MasksConfig
from alignment.errors import ShapeError
from alignment.masks import Defect, estimate_valid, is_missing
from alignment.pyramid import downsample

EXACT = MasksConfig(grow_px=0)


def tissue(shape=(192, 224), *, seed=0, contrast=30.0):
    """Return smooth blobs and noise, like neuropil at 8 nm; nothing of it is a defect."""
    random = np.random.default_rng(seed)
    blobs = cv2.GaussianBlur(random.normal(size=shape), (0, 0), 3)
    grey = 128 + contrast * blobs / blobs.std() + random.normal(0, 6, shape)
    return grey.clip(1, 250).astype(np.uint8)


def only(reasons):
    """Return the flags that occur, as a set of sets."""
    return {Defect(int(value)) for value in np.unique(reasons)} - {Defect(0)}


def test_tissue_has_no_defect():
    valid, reasons = estimate_valid(tissue(), MasksConfig())
    assert valid.all()
    assert not reasons.any()


def test_dark_membranes_and_noise_are_tissue():
    image = tissue()
    image[8::16, :] = 0  # a connected network of lines, far more than min_object_px
    image[9::16, :] = 0
    image[:, 10::20] = 0
    image[np.random.default_rng(1).random(image.shape) < 0.05] = 0
    assert np.count_nonzero(image == 0) > 10 * EXACT.min_object_px
    assert estimate_valid(image, MasksConfig())[0].all()


@pytest.mark.parametrize(("grey", "reason"), [(0, Defect.NO_DATA), (255, Defect.SATURATED)])
def test_a_hole_is_found_to_the_pixel(grey, reason):
    image = tissue()
    image[60:100, 70:130] = grey
    valid, reasons = estimate_valid(image, EXACT)
    expected = np.zeros(image.shape, np.uint8)
    expected[60:100, 70:130] = reason
    np.testing.assert_array_equal(reasons, expected)
    np.testing.assert_array_equal(valid, expected == 0)


def test_defects_grow_by_a_radius():
    image = tissue()
    image[60:100, 70:130] = 0
    valid, _ = estimate_valid(image, MasksConfig(grow_px=5))
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    distance = np.hypot(
        np.maximum(0, np.maximum(60 - y, y - 99)), np.maximum(0, np.maximum(70 - x, x - 129))
    )
    np.testing.assert_array_equal(valid, distance > 5)


def test_no_data_that_touches_the_border_is_outside():
    image = tissue()
    image[:, :30] = 0
    image[-1:] = 0  # one row of padding is outside, too
    image[60:100, 70:130] = 0
    _, reasons = estimate_valid(image, EXACT)
    assert (reasons[:, :30] == Defect.OUTSIDE).all()
    assert (reasons[-1] == Defect.OUTSIDE).all()
    assert (reasons[60:100, 70:130] == Defect.NO_DATA).all()
    assert not reasons[:-5, 35:][:50].any()


def test_noise_of_the_camera_does_not_hide_blank_resin():
    image = tissue((256, 256))
    resin = np.random.default_rng(2).normal(190, 8, (100, 120))
    image[80:180, 60:180] = resin.astype(np.uint8)
    _, reasons = estimate_valid(image, EXACT)
    assert only(reasons) == {Defect.FLAT}
    inside = reasons[80:180, 60:180] == Defect.FLAT
    assert inside[8:-8, 8:-8].all()
    assert np.count_nonzero(reasons) <= inside.size


def test_faint_tissue_is_not_flat():
    assert estimate_valid(tissue(contrast=10.0), MasksConfig())[0].all()
    assert not estimate_valid(tissue(contrast=1.0), MasksConfig())[0].any()
    assert estimate_valid(tissue(contrast=1.0), MasksConfig(flat_std=0.0))[0].all()


def test_specks_stay_and_islands_go():
    image = tissue()
    image[20:32, 20:32] = 0  # a speck: 144 px
    image[80:160, 80:180] = 0
    image[110:120, 110:120] = 77  # an island: 100 px
    _, reasons = estimate_valid(image, EXACT)
    assert np.count_nonzero(reasons) == 80 * 100
    _, reasons = estimate_valid(image, MasksConfig(grow_px=0, min_object_px=80))
    assert (reasons[20:32, 20:32] == Defect.NO_DATA).all()
    assert not reasons[112:118, 112:118].any()


def test_thresholds_come_from_the_configuration():
    image = tissue()
    image[60:100, 70:130] = np.random.default_rng(0).integers(0, 12, (40, 60))
    assert estimate_valid(image, MasksConfig(flat_std=0.0, underexposed_fraction=0.0))[0].all()
    _, reasons = estimate_valid(image, MasksConfig(grow_px=0, saturated_low=12))
    assert only(reasons) == {Defect.NO_DATA}
    assert np.count_nonzero(reasons) == 40 * 60


def test_a_pixel_keeps_all_its_reasons():
    image = tissue()
    image[60:100, 70:130] = 0
    image[60:100, 130:180] = 255
    _, reasons = estimate_valid(image, MasksConfig(grow_px=3))
    assert reasons[80, 130] == Defect.NO_DATA | Defect.SATURATED


@given(
    st.lists(
        st.tuples(
            *(st.integers(0, 180) for _ in range(2)), *(st.integers(3, 90) for _ in range(2)),
            st.sampled_from([0, 120, 255]),
        ),
        max_size=5,
    )
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_turning_the_section_turns_the_answer(boxes):
    image = tissue((180, 180))
    for y, x, height, width, grey in boxes:
        image[y : y + height, x : x + width] = grey
    untouched = image.copy()
    config = MasksConfig(band_min_length_px=0)  # boxes of bands turn by rounding, to a pixel
    _, reasons = estimate_valid(image, config)
    np.testing.assert_array_equal(image, untouched)
    for turns in (1, 2):
        _, turned = estimate_valid(np.rot90(image, turns), config)
        np.testing.assert_array_equal(turned, np.rot90(reasons, turns))


def test_a_black_section_is_missing():
    valid, reasons = estimate_valid(np.zeros((100, 120), np.uint8), MasksConfig())
    assert only(reasons) == {Defect.OUTSIDE}
    assert is_missing(valid, MasksConfig())
    assert is_missing(valid, MasksConfig(min_valid_fraction=0.0), reasons)


def test_a_grey_section_is_missing():
    valid, reasons = estimate_valid(np.full((100, 120), 137, np.uint8), MasksConfig())
    assert only(reasons) == {Defect.FLAT}
    assert is_missing(valid, MasksConfig(), reasons)


def test_padding_does_not_count_against_a_small_section():
    config = MasksConfig(min_valid_fraction=0.25)
    image = np.zeros((400, 400), np.uint8)
    image[100:260, 100:260] = tissue((160, 160))
    valid, reasons = estimate_valid(image, config)
    assert valid.mean() < config.min_valid_fraction
    assert is_missing(valid, config)
    assert not is_missing(valid, config, reasons)


def test_a_shred_in_a_wide_frame_is_missing():
    image = np.zeros((800, 800), np.uint8)
    image[100:140, 100:140] = tissue((40, 40))
    valid, reasons = estimate_valid(image, MasksConfig())
    assert valid.any()
    assert is_missing(valid, MasksConfig(), reasons)


@pytest.mark.parametrize("image", [np.zeros((2, 8, 8), np.uint8), np.zeros((8, 8), np.float32)])
def test_what_is_no_section_is_refused_with_a_way_out(image):
    with pytest.raises(ShapeError, match="pass one section at a time"):
        estimate_valid(image, MasksConfig())


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (3, 50)])
def test_tiny_images_are_no_special_case(shape):
    valid, reasons = estimate_valid(np.full(shape, 9, np.uint8), MasksConfig())
    assert valid.shape == reasons.shape == shape
    assert valid.all()


def real(name, file="raw.tif"):
    """Return a real stack (z, y, x) at mip 1, or skip."""
    tifffile = pytest.importorskip("tifffile")
    root = Path(os.environ.get("ALIGN_TEST_DATA", "../shared/data"))
    if not (root / name / file).exists():
        pytest.skip(f"set {name} is not in {root}; set ALIGN_TEST_DATA")
    stack = np.atleast_3d(tifffile.imread(root / name / file))
    stack = stack if stack.shape[-1] > 1 else stack[..., 0][np.newaxis]
    return downsample(stack[:, : stack.shape[1] // 2 * 2, : stack.shape[2] // 2 * 2])


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("fib_medulla_ts2", 1.0),
        ("vnc_stack1", 1.0),
        ("isbi2012_test", 1.0),
        ("aligntk_z00-07", 0.97),
    ],
)
def test_real_tissue_stays_valid(name, least):
    for image in real(name)[:8]:
        assert estimate_valid(image, MasksConfig())[0].mean() >= least


def test_a_real_crack_is_found():
    """Its authors blacked it out: 9.8 % of the section, open to the border."""
    image = real("cremi_im015_crack", "section_raw.tif")[0]
    valid, reasons = estimate_valid(image, MasksConfig())
    outside = (reasons & Defect.OUTSIDE) > 0
    assert 0.098 < outside.mean() < 0.115
    assert outside[image == 0].mean() > 0.99
    assert 0.855 < valid.mean() < 0.89
    crack = (reasons & Defect.CRACK) > 0
    assert crack[image == 0].mean() > 0.9  # the rest is padding at the border
    assert (crack & (image > 0)).mean() < 0.02
