"""Sampling between pixels: weights that move nothing, and one answer from every engine."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment import native
from alignment.render import warp, warp_affine
from alignment.resample import Pixels, resample_at
from alignment.weights import ONE, STEPS, WIDTHS, reach, table
from tests.alignment.test_render import bent, noise, texture, turned

KERNELS = ("linear", "cubic", "lanczos")


@pytest.mark.parametrize("width", WIDTHS.values())
def test_weights_add_up_to_one_and_their_centre_is_the_position(width):
    weights = table(width).astype(int)
    assert weights.shape == (STEPS, STEPS, width, width)
    assert (weights.sum((2, 3)) == ONE).all()
    if width > 1:
        place = (np.arange(width) - reach(width)[0]) * STEPS
        fraction = np.arange(STEPS) * ONE
        assert ((weights.sum(3) * place).sum(2) == fraction[:, None]).all()
        assert ((weights.sum(2) * place).sum(2) == fraction).all()


@pytest.mark.parametrize("width", WIDTHS.values())
def test_on_a_pixel_only_that_pixel_counts(width):
    only = np.zeros((width, width), int)
    only[reach(width)[0], reach(width)[0]] = ONE
    np.testing.assert_array_equal(table(width)[0, 0], only)


@pytest.mark.parametrize("interpolation", KERNELS)
def test_ramps_are_not_moved(interpolation):
    x = np.tile(np.arange(24), (24, 1))
    steps = np.stack([np.full(STEPS, 10 * STEPS), 10 * STEPS + np.arange(STEPS)]).astype(np.int32)
    gentle = (8 * x + 1).astype(np.uint8)
    shown = resample_at(Pixels.of(gentle, interpolation), steps, interpolation)
    exact = 81 + np.arange(STEPS) / 4
    np.testing.assert_array_equal(shown, np.floor(exact + 0.5))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(list(WIDTHS)))
def test_numpy_gives_the_same_bytes(seed, interpolation):
    random = np.random.default_rng(seed)
    source = texture(random, (150, 140)) if seed % 2 else noise(random, (150, 140))
    shape = (int(random.integers(1, 290)), int(random.integers(1, 290)))
    spacing = int(random.choice([5, 31, 32, 100]))
    where = (turned(random), bent(random, 9, 8), spacing, (-20, 3), shape, interpolation)
    affine = (where[0], (-20, 3), shape, interpolation)
    compiled = warp(source, (0, 0), *where), warp_affine(source, (0, 0), *affine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "library", lambda isa=None: None)
        plain = warp(source, (0, 0), *where), warp_affine(source, (0, 0), *affine)
    np.testing.assert_array_equal(plain[0], compiled[0])
    np.testing.assert_array_equal(plain[1], compiled[1])


@pytest.mark.parametrize("interpolation", WIDTHS)
def test_every_width_of_vectors_gives_the_same_bytes(interpolation, monkeypatch):
    random = np.random.default_rng(7)
    source, field = texture(random, (500, 500)), bent(random, 12, 12)
    where = (turned(random), field, 40, (-30, -30), (437, 421), interpolation)
    libraries = [found for isa in native.ISAS if (found := native.library(isa)) is not None]
    drawn = []
    for library in libraries:
        monkeypatch.setattr(native, "library", lambda isa=None, library=library: library)
        drawn.append(warp(source, (0, 0), *where))
    for other in drawn[1:]:
        np.testing.assert_array_equal(other, drawn[0])


@pytest.mark.parametrize(
    ("interpolation", "most", "mean"),
    [("linear", 1, 0.02), ("cubic", 3, 0.5), ("lanczos", 1, 0.15)],
)
def test_opencv_gives_nearly_the_same(interpolation, most, mean):
    random = np.random.default_rng(3)
    image = cv2.GaussianBlur(random.normal(size=(300, 300)).astype(np.float32), (0, 0), 1.5)
    source = np.clip(image * 150 + 128, 1, 255).astype(np.uint8)
    y, x = np.indices((240, 240), np.int32) * STEPS
    steps = np.stack([x // 30 + y + 500, x - y // 30 + 700])
    shown = resample_at(Pixels.of(source, interpolation), steps, interpolation)
    at = (steps / STEPS).astype(np.float32)
    flags = {
        "linear": cv2.INTER_LINEAR,
        "cubic": cv2.INTER_CUBIC,
        "lanczos": cv2.INTER_LANCZOS4,
    }
    theirs = cv2.remap(source, at[1], at[0], flags[interpolation])
    differs = np.abs(shown.astype(int) - theirs)
    assert differs.max() <= most
    assert differs.mean() < mean


def test_half_way_the_kernels_are_those_of_the_literature():
    """There they are symmetric: ramps stay in place by themselves."""
    cubic = table(4)[0, STEPS // 2, 1] / ONE
    np.testing.assert_allclose(cubic, np.array([-3, 19, 19, -3]) / 32, atol=1e-4)
    t = np.arange(8) - 3.5
    lanczos = np.sinc(t) * np.sinc(t / 4)
    found = table(8)[0, STEPS // 2, 3] / ONE
    np.testing.assert_allclose(found, lanczos / lanczos.sum(), atol=2e-3)
