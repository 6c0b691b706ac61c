"""Patches put together: equal to the whole, however it is cut, and with weights that sum to one."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from inference.errors import ModelError
from inference.overlap import PatchGrid, fade, predict_block


def scale(voxels):
    return voxels.astype(np.float32) / 255


def blurred(patches):
    """Two channels that see 2 voxels far, as a network with zero padding does."""
    x = patches[..., 0]
    size = (1,) + (5,) * (x.ndim - 1)
    mean = ndimage.uniform_filter(x, size, mode="constant")
    return np.stack([mean, 1 - x], axis=-1).astype(np.float32)


def placed(patches):
    """Depends on where in its patch a voxel lies, as pooling does: seams show."""
    x = patches[..., 0]
    return (x + np.indices(x.shape)[-1] % 4)[..., None].astype(np.float32)


def whole(image, grid, cuts, predict=blurred, channels=2, **options):
    """The image predicted in blocks that end at `cuts`, by axis."""
    result = np.full((channels, *image.shape), np.nan, np.float32)
    edges = [[0, *cut, n] for cut, n in zip(cuts, image.shape, strict=True)]
    for block in product(*(pairwise(e) for e in edges)):
        start, stop = zip(*block, strict=True)
        low, high = grid.needed(start, stop)
        pads = [(max(-a, 0), max(b - n, 0)) for a, b, n in zip(low, high, image.shape, strict=True)]
        inside = tuple(
            slice(max(a, 0), min(b, n)) for a, b, n in zip(low, high, image.shape, strict=True)
        )
        voxels = np.pad(image[inside], pads)
        region = (slice(None), *(slice(a, b) for a, b in block))
        result[region] = predict_block(
            predict, voxels, grid, start, stop, channels=channels, scale=scale, **options
        )
    return result


def image_of(shape, seed=0):
    return np.random.default_rng(seed).integers(1, 256, shape).astype(np.uint8)


def test_valid_patches_are_the_network_on_the_whole_array():
    image = image_of((9, 40, 50))
    grid = PatchGrid((12, 24, 20), (2, 2, 2))
    expected = np.moveaxis(blurred(scale(image)[None, ..., None])[0], -1, 0)
    np.testing.assert_allclose(whole(image, grid, [[], [], []]), expected, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(["valid", "blend"]), st.integers(1, 3))
def test_a_result_does_not_depend_on_how_the_array_was_cut(data, mode, batch):
    axes = data.draw(st.integers(1, 3))
    patch = tuple(data.draw(st.integers(1, 12)) for _ in range(axes))
    margin = tuple(data.draw(st.integers(0, (p - 1) // 2)) for p in patch)
    shape = tuple(data.draw(st.integers(1, 12)) for _ in range(axes))
    cuts = [sorted(data.draw(st.sets(st.integers(1, n), max_size=3)) - {n}) for n in shape]
    grid, image = PatchGrid(patch, margin, mode), image_of(shape)
    once = whole(image, grid, [[]] * axes, placed, 1)
    cut = whole(image, grid, cuts, placed, 1, batch=batch)
    np.testing.assert_allclose(cut, once, atol=1e-6)


@given(st.integers(1, 40), st.integers(0, 60))
def test_weights_sum_to_one(step, reach):
    total = np.bincount(np.arange(step + 2 * reach) % step, fade(step, reach).astype(float))
    np.testing.assert_allclose(total, 1, atol=1e-6)
    np.testing.assert_allclose(fade(step, reach), fade(step, reach)[::-1], atol=1e-7)


@pytest.mark.parametrize(
    ("mode", "margin", "count"),
    [
        ("valid", (2, 2), 3 * 2),
        ("blend", (2, 2), 4 * 3),
        ("blend", (0, 2), 3 * 3),  # nothing is blended along the first axis
        ("blend", (4, 2), 5 * 3),  # patches overlap by more than a step
    ],
)
def test_a_block_is_made_of_few_patches(mode, margin, count):
    grid = PatchGrid(tuple(6 + 2 * m for m in margin), margin, mode)
    assert grid.step == (6, 6)
    assert grid.count((18, 12), (36, 24)) == count


@pytest.mark.parametrize("shrink", [(0, 0), (1, 2)])
def test_blended_patches_that_agree_give_what_each_gives(shrink):
    image = image_of((30, 41))
    grid = PatchGrid((10, 12), (3, 5), "blend", shrink)

    def cropped(patches):
        y, x = shrink
        return patches[:, y : 10 - y, x : 12 - x, :]

    found = whole(image, grid, [[7], []], cropped, 1)
    np.testing.assert_allclose(found[0], scale(image), atol=1e-6)


def test_blending_leaves_smaller_steps_at_seams_than_cropping():
    image = np.full((64,), 100, np.uint8)

    def brightens(patches):  # from one end of a patch to the other
        return patches + np.linspace(0, 1, 16, dtype=np.float32)[:, None]

    steps = {
        mode: np.abs(np.diff(whole(image, PatchGrid((16,), (4,), mode), [[]], brightens, 1))).max()
        for mode in ("valid", "blend")
    }
    assert steps["blend"] < steps["valid"] / 2


def test_a_patch_without_data_is_not_shown_to_the_network():
    image = image_of((40,))
    image[8:24] = 0
    seen = []

    def noted(patches):
        seen.append(patches.copy())
        return patches + 1

    found = whole(image, PatchGrid((8,), (0,)), [[]], noted, 1, skip_empty=True)
    assert len(seen) == 3
    assert all(patches.any() for patches in seen)
    np.testing.assert_array_equal(found[0] > 0, image > 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((8, 8), (4, 1)), "nothing left inside a margin"),
        (((8, 8), (1,)), "differ in their axes"),
        (((8, 8), (1, 1), "valid", (2, 0)), r"more than the margin of \(1, 1\)"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ModelError, match=message):
        PatchGrid(*arguments)


@pytest.mark.parametrize(
    ("answer", "message"), [(lambda x: x[:, :-1], "the network gave"), (np.log, "no numbers")]
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_an_answer_that_is_none_is_refused(answer, message):
    image = image_of((8,))
    image[3] = 0
    with pytest.raises(ModelError, match=message):
        whole(image, PatchGrid((8,), (0,)), [[]], answer, 1)
