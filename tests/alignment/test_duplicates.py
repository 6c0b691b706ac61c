"""Duplicates: copies and second pictures are named, neighbours are not."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from alignment.duplicates import (
    Duplicate,
    Likeness,
    judge_duplicates,
    measure_likeness,
)
from alignment.errors import ShapeError


def tissue(shape=(400, 420), *, seed=0):
    """Return the noiseless look of one piece of tissue, float64."""
    random = np.random.default_rng(seed)
    fine, coarse = (
        cv2.GaussianBlur(random.normal(size=shape), (0, 0), sigma) for sigma in (1.5, 4.0)
    )
    return 130 + 25 * fine / fine.std() + 25 * coarse / coarse.std()


def picture(grey, *, seed=0, noise=8.0):
    """Return an exposure of it, with its own noise."""
    noisy = grey + np.random.default_rng(1000 + seed).normal(0, noise, grey.shape)
    return noisy.clip(1, 255).astype(np.uint8)


def stack_of_likeness(count=10, structure=0.4):
    return {(z, z - 1): Likeness(structure, 0.02, (0.0, 0.0), 25) for z in range(1, count)}


def test_a_copy_has_the_same_grain():
    section = picture(tissue())
    found = measure_likeness(section, section)
    assert found.structure == pytest.approx(1)
    assert found.grain == pytest.approx(1)
    assert found.shift_yx == (0, 0)


@pytest.mark.parametrize("shift", [(0, 0), (13, -21), (-60, 40)])
def test_a_shifted_copy_is_found_with_its_shift(shift):
    wide = picture(tissue((600, 620)))
    y, x = 100 + shift[0], 100 + shift[1]
    found = measure_likeness(wide[100:500, 100:520], wide[y : y + 400, x : x + 420])
    assert found.shift_yx == (-shift[0], -shift[1])
    assert found.grain > 0.99


def test_a_second_picture_has_the_same_structure_but_other_grain():
    grey = tissue()
    found = measure_likeness(picture(grey, seed=1), picture(0.8 * grey + 20, seed=2))
    assert found.structure > 0.9
    assert found.grain < 0.5


def test_other_tissue_has_neither():
    found = measure_likeness(picture(tissue(seed=1)), picture(tissue(seed=2)))
    assert abs(found.structure) < 0.3
    assert abs(found.grain) < 0.1


def test_a_brighter_copy_stored_as_jpeg_is_a_copy():
    section = picture(tissue())
    coded = cv2.imencode(".jpg", cv2.convertScaleAbs(section, alpha=0.8, beta=20))[1]
    found = measure_likeness(section, cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE))
    assert judge_duplicates({**stack_of_likeness(), "x": found}) == {"x": Duplicate.EXPOSURE}


def test_a_blank_section_is_no_duplicate_of_another():
    blank = np.zeros((400, 420), np.uint8)
    assert measure_likeness(blank, blank).tiles == 0
    assert np.isnan(measure_likeness(blank, picture(tissue())).structure)
    assert judge_duplicates({"x": measure_likeness(blank, blank)}) == {}


def test_flat_grey_is_no_duplicate():
    grey = np.full((400, 420), 100, np.uint8)
    assert measure_likeness(grey, grey).tiles == 0


def test_masked_parts_do_not_count():
    one, other = picture(tissue(seed=1)), picture(tissue(seed=2))
    other[:, :300] = one[:, :300]
    valid = np.zeros(one.shape, bool)
    valid[:, :300] = True
    assert measure_likeness(one, other, valid, valid).grain > 0.99
    assert measure_likeness(one, other, valid, valid).tiles < 25


def test_the_same_tissue_is_told_by_comparison_with_the_other_pairs():
    again = Likeness(0.95, 0.2, (0.0, 0.0), 25)
    assert judge_duplicates({**stack_of_likeness(), "x": again}) == {"x": Duplicate.TISSUE}
    # Thin slices are all that alike.
    assert judge_duplicates({**stack_of_likeness(structure=0.94), "x": again}) == {}
    # With nothing to compare it with, it is not told.
    assert judge_duplicates({"x": again}) == {}


def test_the_same_exposure_is_told_even_alone():
    assert judge_duplicates({"x": Likeness(0.99, 0.95, (0.0, 0.0), 9)}) == {"x": Duplicate.EXPOSURE}


def test_what_is_no_pair_is_refused():
    section = picture(tissue())
    with pytest.raises(ShapeError, match="pad the smaller with zeros"):
        measure_likeness(section, section[1:])


@pytest.mark.parametrize(
    ("name", "step"),
    [("vnc_stack1", 1), ("isbi2012_test", 1), ("fib_medulla_ts2", 1), ("fib_medulla_ts2", 4)],
)
def test_in_a_real_stack_a_copy_and_a_second_picture_are_named_and_no_neighbour(name, step):
    tifffile = pytest.importorskip("tifffile")
    root = Path(os.environ.get("ALIGN_TEST_DATA", "../shared/data"))
    path = root / name / "raw.tif"
    if not path.exists():
        pytest.skip(f"set {name} is not in {root}; set ALIGN_TEST_DATA")
    stack = tifffile.imread(path)[::step][:9, :512, :512]
    blurred = cv2.GaussianBlur(stack[4], (0, 0), 1).astype(np.float64)
    pairs = {(z, z - 1): (stack[z - 1], stack[z]) for z in range(1, len(stack))}
    pairs["copy"] = (stack[2], stack[2])
    pairs["again"] = (picture(blurred, seed=1, noise=4), picture(blurred, seed=2, noise=4))
    found = judge_duplicates({key: measure_likeness(*pair) for key, pair in pairs.items()})
    assert found == {"copy": Duplicate.EXPOSURE, "again": Duplicate.TISSUE}
