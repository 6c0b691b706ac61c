"""Likeness: falls with the tissue between sections, whatever contrast, place and side."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from alignment.affines import affine_to_mip
from alignment.errors import ShapeError
from alignment.likeness import measure_likeness
from alignment.mirrors import mirror
from alignment.phantom import Phantom, PhantomConfig
from alignment.pyramid import downsample

SIDE = 320
HERE = np.eye(2, 3)


@pytest.fixture(scope="module")
def sections():
    """Four neighbouring sections in register, with different noise."""
    still = {"rotation_deg": 0, "shift_px": 0, "stretch": 0, "elastic_px": 0}
    phantom = Phantom(PhantomConfig(seed=5, sections=4, height=SIDE, width=SIDE, **still))
    return [phantom.section(z) for z in range(4)]


def measured(fixed, moving, matrix=HERE, valid=None, mip=0):
    ones = np.ones(fixed.shape, np.bool_)
    shown = np.ones(moving.shape, np.bool_) if valid is None else valid
    return measure_likeness(fixed, moving, ones, shown, matrix, mip=mip)


def test_nearer_sections_are_liker(sections):
    first, *others = sections
    tissue = [measured(first, other).tissue for other in others]
    assert tissue[0] > 1.2 * tissue[1] > 1.2 * 1.2 * tissue[2]


def test_a_copy_shares_the_noise_and_a_neighbour_does_not(sections):
    copy = measured(sections[0], sections[0])
    assert copy.tissue == pytest.approx(1)
    assert copy.grain == pytest.approx(1)
    assert measured(sections[0], sections[1]).grain < 0.5


def test_a_shifted_and_brightened_copy_is_still_a_copy(sections):
    image = np.rint(sections[0] * 0.8 + 20).astype(np.uint8)
    shifted = np.roll(image, (7, -12), axis=(0, 1))
    valid = np.zeros(image.shape, np.bool_)
    valid[7:, :-12] = True
    there = np.array([[1, 0, 7.3], [0, 1, -12.2]])  # as exact as the coarse stage
    found = measured(sections[0], shifted, there, valid)
    assert found.tissue > 0.97
    assert found.grain > 0.97


def test_the_same_tissue_with_new_noise_is_no_copy(sections):
    noise = np.random.default_rng(0).normal(0, 16, sections[0].shape)
    again = (sections[0] + noise).clip(1, 255).astype(np.uint8)
    found = measured(sections[0], again)
    assert found.tissue > 0.8
    assert found.grain < 0.85


def test_contrast_and_side_do_not_matter(sections):
    fixed, moving = sections[:2]
    plain = measured(fixed, moving)
    inverted = measured(fixed, 255 - moving)
    flipped = measured(fixed, np.ascontiguousarray(moving[:, ::-1]), mirror(SIDE))
    assert inverted.tissue == pytest.approx(plain.tissue, abs=0.01)
    assert flipped.tissue == pytest.approx(plain.tissue, abs=0.01)


def test_a_place_that_is_a_little_off_is_mended(sections):
    fixed, moving = sections[:2]
    off = measured(fixed, moving, np.array([[1, 0, 5.0], [0, 1, -4]]))
    assert off.tissue == pytest.approx(measured(fixed, moving).tissue, abs=0.02)


def test_the_place_is_in_pixels_of_mip_0(sections):
    there = np.array([[1.0, 0, 40], [0, 1, 20]])
    turned = np.roll(sections[1], (40, 20), axis=(0, 1))
    halves = [downsample(image[np.newaxis])[0] for image in (sections[0], turned)]
    fine = measured(halves[0], halves[1], affine_to_mip(there, 1), mip=0)
    assert measured(*halves, there, mip=1).tissue == pytest.approx(fine.tissue, abs=1e-6)


def test_too_little_overlap_tells_nothing(sections):
    assert measured(*sections[:2], np.array([[1, 0, 0.9 * SIDE], [0, 1, 0]])) is None
    nothing = np.zeros((SIDE, SIDE), np.bool_)
    assert measured(*sections[:2], valid=nothing) is None


def test_threads_change_nothing(sections):
    first = measured(*sections[:2])
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        assert measured(*sections[:2]) == first
    finally:
        cv2.setNumThreads(threads)


def test_wrong_arrays_are_refused(sections):
    with pytest.raises(ShapeError, match="fixed must be a uint8 image"):
        measured(sections[0].astype(np.float32), sections[1])
