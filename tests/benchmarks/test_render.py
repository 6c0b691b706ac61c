import cv2
import numpy as np
import pytest

from alignment.fields import node_grid, quantise
from alignment.pyramid import downsample
from alignment.render import warp, warp_affine

SIDE = 2048
ANGLE = 0.03
COARSE = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 70], [np.sin(ANGLE), np.cos(ANGLE), 10]])


@pytest.fixture(scope="module")
def source():
    image = np.random.default_rng(0).normal(size=(SIDE + 200, SIDE + 200)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 1.2) * 150 + 128, 1, 255).astype(np.uint8)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "lanczos"])
def test_warp(benchmark, source, interpolation):
    """One section of an aligned shard, 4.2 Mpx; a shard has 32, 1 mm2 at 4 nm has 15,000."""
    ny, nx = node_grid((SIDE, SIDE), 32)
    field = np.random.default_rng(0).normal(scale=60, size=(ny, nx, 2)).astype(np.float32)
    field = quantise(np.moveaxis(cv2.GaussianBlur(field, (0, 0), 4), -1, 0))
    shown = benchmark(warp, source, (0, 0), COARSE, field, 32, (0, 0), (SIDE, SIDE), interpolation)
    assert np.count_nonzero(shown) > 0.95 * shown.size


def test_warp_with_a_border(benchmark, source):
    """The same where a quarter of the section is no data."""
    source = source.copy()
    source[:, : SIDE // 4] = 0
    field = np.zeros((2, 65, 65), np.float32)
    shown = benchmark(warp, source, (0, 0), COARSE, field, 32, (0, 0), (SIDE, SIDE), "lanczos")
    assert 0.15 < np.mean(shown == 0) < 0.3


def test_warp_affine(benchmark, source):
    """Features of one section at one mip, into the common frame."""
    features = source.astype(np.float32)
    shown = benchmark(warp_affine, features, (0, 0), COARSE, (0, 0), (SIDE, SIDE), "linear")
    assert shown.dtype == np.float32


@pytest.mark.parametrize("border_px", [0, 300])
def test_downsample(benchmark, source, border_px):
    """Eight sections of a shard; the whole pyramid costs a third more."""
    block = np.repeat(source[None, :SIDE, :SIDE], 8, axis=0)
    block[:, :, :border_px] = 0
    assert benchmark(downsample, block).shape == (8, SIDE // 2, SIDE // 2)
