"""Pairs of sections: known affines between made-up sections, refusals, real sections."""

from __future__ import annotations

import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from alignment.affines import affine_to_mip, apply_affine, compose_affines, invert_affine
from alignment.coarse import estimate_pair
from alignment.config import CoarseConfig, MasksConfig
from alignment.errors import ShapeError
from alignment.masks import estimate_valid
from alignment.phantom import Phantom, PhantomConfig
from alignment.pyramid import downsample
from alignment.views import pull

SIDE = 272
CONFIG = CoarseConfig()


def phantom_sections(seed):
    """Return two neighbouring sections of neuropil, in register, with different noise."""
    config = PhantomConfig(
        seed=seed, sections=2, height=SIDE, width=SIDE,
        rotation_deg=0, shift_px=0, stretch=0, elastic_px=0,
    )  # fmt: skip
    phantom = Phantom(config)
    return phantom.section(0), phantom.section(1)


@pytest.fixture(scope="module")
def neighbours():
    return phantom_sections(7)


@pytest.fixture(scope="module")
def strangers():
    return phantom_sections(8)


def affine(*, turn_deg=0.0, shift=(0.0, 0.0), scale=(1.0, 1.0), side=SIDE):
    """Turn and stretch about the centre, then shift: fixed to moving px."""
    c, s = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    linear = np.array([[c, -s], [s, c]]) @ np.diag(scale)
    centre = np.full(2, (side - 1) / 2)
    return np.column_stack([linear, centre + shift - linear @ centre])


def taken_at(section, truth, shape=(SIDE, SIDE)):
    """Return the section as recorded at another place, and where it then shows tissue."""
    back = invert_affine(truth)
    image = pull(section.astype(np.float32), back, shape)
    valid = pull(np.ones(section.shape, np.float32), back, shape) > 0.99
    return np.rint(image * valid).astype(np.uint8), valid


def error_px(found, truth, shape=(SIDE, SIDE)):
    """Return the median distance over the tissue that both sections show, moving px."""
    points = np.stack(np.mgrid[: shape[0] : 8, : shape[1] : 8], -1).reshape(-1, 2).astype(float)
    goal = apply_affine(truth, points)
    shown = ((goal >= 0) & (goal < shape)).all(axis=1)
    return float(np.median(np.hypot(*(apply_affine(found, points) - goal)[shown].T)))


def all_valid(image):
    return np.ones(image.shape, np.bool_)


PLACES = {
    "hardly moved": {"turn_deg": 1.5, "shift": (6.0, -9.0)},
    "a quarter turn": {"turn_deg": 90.0},
    "upside down": {"turn_deg": 180.0, "shift": (-20.0, 15.0)},
    "any turn": {"turn_deg": -133.0, "shift": (30.0, 10.0)},
    "shifted by a third": {"shift": (0.33 * SIDE, -20.0)},
    "stretched": {"turn_deg": 20.0, "scale": (1.03, 0.97)},
    "larger, which only features find": {"turn_deg": 40.0, "scale": (1.12, 1.12)},
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_section_is_found_where_it_lies(neighbours, place):
    truth = affine(**place)
    moving, valid = taken_at(neighbours[1], truth)
    found = estimate_pair(neighbours[0], moving, all_valid(moving), valid, CONFIG, mip=0)
    assert found is not None
    assert error_px(found.matrix, truth) < 2
    assert 0.3 < found.score <= 1
    assert found.inliers >= CONFIG.min_inliers


def test_missing_tissue_and_inverted_contrast_are_no_obstacle(neighbours):
    truth = affine(turn_deg=-25.0, shift=(12.0, 20.0))
    moving, valid = taken_at(neighbours[1], truth)
    moving = 255 - moving
    valid[60:165, 40:145] = False  # 15 % of the section
    moving[~valid] = 0
    found = estimate_pair(neighbours[0], moving, all_valid(moving), valid, CONFIG, mip=0)
    assert found is not None
    assert error_px(found.matrix, truth) < 2
    assert found.method == "correlation, inverted"


def test_sections_may_differ_in_shape(neighbours):
    truth = affine(turn_deg=10.0, shift=(-30.0, 25.0))
    moving, valid = taken_at(neighbours[1], truth, shape=(260, 300))
    fixed = neighbours[0][:240]
    found = estimate_pair(fixed, moving, all_valid(fixed), valid, CONFIG, mip=0)
    assert found is not None
    assert error_px(found.matrix, truth, shape=(240, SIDE)) < 2


def test_the_affine_is_in_pixels_of_mip_0(neighbours):
    truth = affine(turn_deg=12.0, shift=(20.0, -10.0))
    moving, valid = taken_at(neighbours[1], truth)
    ones = all_valid(moving)
    fine = estimate_pair(neighbours[0], moving, ones, valid, CONFIG, mip=0)
    same = estimate_pair(neighbours[0], moving, ones, valid, CONFIG, mip=2)
    np.testing.assert_allclose(affine_to_mip(same.matrix, 2), fine.matrix, atol=1e-9)
    halves = [downsample(image[np.newaxis])[0] for image in (neighbours[0], moving)]
    half_valid = valid[::2, ::2] & valid[1::2, 1::2]
    coarse = estimate_pair(*halves, all_valid(halves[0]), half_valid, CONFIG, mip=1)
    assert error_px(coarse.matrix, truth) < 2.5


def test_going_back_undoes_going_there(neighbours):
    truth = affine(turn_deg=5.0, shift=(9.0, 14.0))
    moving, valid = taken_at(neighbours[1], truth)
    ones = all_valid(moving)
    there = estimate_pair(neighbours[0], moving, ones, valid, CONFIG, mip=0)
    back = estimate_pair(moving, neighbours[0], valid, ones, CONFIG, mip=0)
    assert error_px(compose_affines(back.matrix, there.matrix), affine()) < 1


@pytest.mark.parametrize("turn_deg", [0.0, 77.0])
def test_foreign_tissue_is_refused(neighbours, strangers, turn_deg):
    moving, valid = taken_at(strangers[1], affine(turn_deg=turn_deg))
    assert estimate_pair(neighbours[0], moving, all_valid(moving), valid, CONFIG, mip=0) is None


def test_other_parts_of_the_same_tissue_are_refused(neighbours):
    """The hardest strangers: same stain, same noise, same statistics."""
    half = SIDE // 2
    quarters = [np.s_[:half, :half], np.s_[:half, half:], np.s_[half:, :half], np.s_[half:, half:]]
    for i, j in ((0, 1), (3, 0)):
        fixed, moving = neighbours[0][quarters[i]], neighbours[1][quarters[j]]
        ones = all_valid(fixed)
        assert estimate_pair(fixed, moving, ones, ones, CONFIG, mip=0) is None
        assert estimate_pair(fixed, neighbours[1][quarters[i]], ones, ones, CONFIG, mip=0)


@pytest.mark.parametrize("blank", ["black", "grey", "noise", "masked"])
def test_blank_sections_are_refused(neighbours, blank):
    random = np.random.default_rng(0)
    moving = {
        "black": np.zeros((SIDE, SIDE), np.uint8),
        "grey": np.full((SIDE, SIDE), 137, np.uint8),
        "noise": random.normal(190, 8, (SIDE, SIDE)).astype(np.uint8),
        "masked": neighbours[1],
    }[blank]
    ones = all_valid(moving)
    valid = ~ones if blank == "masked" else ones
    assert estimate_pair(neighbours[0], moving, ones, valid, CONFIG, mip=0) is None


def test_a_blank_fixed_section_is_refused(neighbours):
    fixed, moving = np.zeros_like(neighbours[0]), neighbours[1]
    ones = all_valid(moving)
    assert estimate_pair(fixed, moving, ones, ones, CONFIG, mip=0) is None


def test_limits_of_the_configuration_hold(neighbours):
    moving, valid = taken_at(neighbours[1], affine(turn_deg=60.0))
    stretched, stretched_valid = taken_at(neighbours[1], affine(scale=(1.08, 0.95)))
    ones = all_valid(moving)

    def found(image, shown, **limits):
        config = CoarseConfig(**limits)
        return estimate_pair(neighbours[0], image, ones, shown, config, mip=0) is not None

    assert found(moving, valid, max_rotation_deg=65.0)
    assert not found(moving, valid, max_rotation_deg=50.0)
    assert found(stretched, stretched_valid)
    assert not found(stretched, stretched_valid, max_scale_change=0.03)
    assert not found(moving, valid, min_inliers=10_000)


@pytest.mark.parametrize("shape", [(64, 64), (64, 90), (80, SIDE)])
def test_small_sections_and_strips_work(neighbours, shape):
    window = tuple(slice(0, n) for n in shape)
    fixed, moving = neighbours[0][window], neighbours[0][window]
    found = estimate_pair(fixed, moving, all_valid(fixed), all_valid(fixed), CONFIG, mip=0)
    assert found is not None
    assert error_px(found.matrix, affine(), shape) < 0.1
    assert found.score == pytest.approx(1.0, abs=0.01)


def test_too_small_sections_are_refused(neighbours):
    fixed = neighbours[0][:63, :200]
    assert estimate_pair(fixed, fixed, all_valid(fixed), all_valid(fixed), CONFIG, mip=0) is None


@pytest.mark.parametrize("place", ["any turn", "larger, which only features find"])
def test_the_same_inputs_give_the_same_bits_and_stay_as_they_are(neighbours, place):
    truth = affine(**PLACES[place])
    moving, valid = taken_at(neighbours[1], truth)
    inputs = (neighbours[0], moving, all_valid(moving), valid)
    copies = [array.copy() for array in inputs]
    threads = cv2.getNumThreads()
    first = estimate_pair(*inputs, CONFIG, mip=0)
    cv2.setRNGSeed(123)
    try:
        cv2.setNumThreads(1)
        second = estimate_pair(*inputs, CONFIG, mip=0)
    finally:
        cv2.setNumThreads(threads)
    assert first.matrix.tobytes() == second.matrix.tobytes()
    assert (first.score, first.inliers, first.method) == (
        second.score,
        second.inliers,
        second.method,
    )
    for array, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_wrong_arrays_are_refused_with_a_way_out(neighbours):
    fixed, moving = neighbours
    ones = all_valid(fixed)
    with pytest.raises(ShapeError, match="moving must be a uint8 image"):
        estimate_pair(fixed, moving.astype(np.float32), ones, ones, CONFIG, mip=0)
    with pytest.raises(ShapeError, match="fixed_valid must be a bool array"):
        estimate_pair(fixed, moving, ones[:-1], ones, CONFIG, mip=0)


def data(name):
    root = Path(os.environ.get("ALIGN_TEST_DATA", "../shared/data"))
    if not (root / name).exists():
        pytest.skip(f"set {name} is not in {root}; set ALIGN_TEST_DATA")
    return root / name


@pytest.mark.parametrize("z", [1, 4, 7])
def test_unaligned_sections_agree_with_aligntk(z):
    """No affine is nearer to AlignTK's elastic map of these pairs than 0.9 to 1.9 px (median)."""
    tifffile = pytest.importorskip("tifffile")
    folder = data("aligntk_z00-07")
    sections = downsample(tifffile.imread(folder / "raw.tif", key=[z - 1, z]))
    valid = [estimate_valid(section, MasksConfig())[0] for section in sections]
    found = estimate_pair(*sections, *valid, CONFIG, mip=1)
    table = np.genfromtxt(folder / "reference_elastic_pairs.csv", delimiter=",", names=True)
    table = table[(table["section_b"] == z) & (table["confidence"] >= 0.2)]
    start, end = (np.column_stack([table["y" + k], table["x" + k]]) for k in "ab")
    best, *_ = np.linalg.lstsq(np.column_stack([start, np.ones(len(start))]), end)
    possible = np.median(np.hypot(*(np.column_stack([start, np.ones(len(start))]) @ best - end).T))
    reached = np.median(np.hypot(*(apply_affine(found.matrix, start) - end).T))
    assert reached < possible + 0.15
    assert reached < 2.0


def test_a_wide_fold_does_not_prevent_the_pair():
    tifffile = pytest.importorskip("tifffile")
    folder = data("damaged_DOLW7")
    fixed, moving = (tifffile.imread(folder / f"{name}_raw.tif") for name in ("fixed", "moving"))
    valid = tifffile.imread(folder / "moving_defect_mask.tif") == 0
    found = estimate_pair(fixed, moving, all_valid(fixed), valid, CONFIG, mip=0)
    assert found is not None

    def likeness(matrix):
        image = pull(moving.astype(np.float32), matrix, fixed.shape)
        both = pull(valid.astype(np.float32), matrix, fixed.shape) > 0.99
        smooth = [cv2.GaussianBlur(v.astype(np.float32), (0, 0), 1.5)[both] for v in (fixed, image)]
        return np.corrcoef(*smooth)[0, 1]

    assert likeness(found.matrix) > 0.27 > 0.2 > likeness(np.eye(2, 3))
