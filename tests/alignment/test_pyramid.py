import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alignment.errors import ShapeError
from alignment.pyramid import downsample, halve, levels_of_shard, valid_at
from storage.grid import tile


def test_no_data_does_not_darken_its_neighbours():
    assert downsample(np.array([[[0, 200], [0, 0]]], np.uint8)).item() == 200


def test_halves_are_rounded_up():
    squares = np.array([[[1, 1, 1, 0], [1, 2, 2, 0], [1, 1, 1, 3], [2, 2, 0, 0]]], np.uint8)
    np.testing.assert_array_equal(downsample(squares), [[[1, 2], [2, 2]]])


@settings(deadline=None)
@given(arrays(np.uint8, (2, 6, 10), elements=st.sampled_from([0, 0, 1, 2, 128, 254, 255])))
def test_each_pixel_is_the_rounded_mean_of_the_known_ones(image):
    for z, y, x in np.ndindex(2, 3, 5):
        square = image[z, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        known = square[square > 0]
        expected = np.floor(known.mean() + 0.5) if known.size else 0
        assert downsample(image)[z, y, x] == expected


@settings(deadline=None)
@given(arrays(np.uint8, (2, 12, 16)), st.sampled_from([1, 2]), st.sampled_from([1, 3, 4]))
def test_result_does_not_depend_on_the_tiling(image, depth, side):
    whole = downsample(image)
    for box in tile(whole.shape, (depth, side, side), mip=1):
        np.testing.assert_array_equal(downsample(image[box.finer().slices]), whole[box.slices])


def test_the_input_is_not_changed_and_may_be_a_view():
    image = np.arange(1, 257, dtype=np.uint16).reshape(1, 16, 16).clip(0, 255).astype(np.uint8)
    before = image.copy()
    np.testing.assert_array_equal(downsample(image[:, 2:10, 4:12]), downsample(image)[:, 1:5, 2:6])
    np.testing.assert_array_equal(image, before)


def test_empty_blocks_stay_empty():
    assert downsample(np.zeros((2, 0, 4), np.uint8)).shape == (2, 0, 2)


def test_odd_blocks_are_refused_with_a_way_out():
    with pytest.raises(ShapeError, match="pad the block with zeros"):
        downsample(np.ones((1, 3, 4), np.uint8))


def test_a_coarser_pixel_is_valid_only_if_all_of_it_is():
    valid = np.ones((8, 8), bool)
    valid[3, 6] = False
    coarser = valid_at(valid, old=0, new=1, shape_yx=(4, 4))
    assert np.argwhere(~coarser).tolist() == [[1, 3]]
    finer = valid_at(coarser, old=1, new=0, shape_yx=(8, 8))
    assert np.argwhere(~finer).tolist() == [[2, 6], [2, 7], [3, 6], [3, 7]]


def test_a_pixel_at_an_odd_end_is_valid_if_what_there_is_of_it_is():
    valid = np.ones((5, 3), bool)
    assert valid_at(valid, old=0, new=2, shape_yx=(2, 1)).all()
    valid[4, 2] = False
    assert valid_at(valid, old=0, new=2, shape_yx=(2, 1)).tolist() == [[True], [False]]
    assert valid_at(valid, old=3, new=2, shape_yx=(9, 5)).shape == (9, 5)


def test_odd_ends_are_halved_with_no_data_beside_them():
    image = np.full((1, 3, 5), 9, np.uint8)
    np.testing.assert_array_equal(halve(image), np.full((1, 2, 3), 9))
    image[0, 2] = 0
    np.testing.assert_array_equal(halve(image)[0], [[9, 9, 9], [0, 0, 0]])


@pytest.mark.parametrize(
    ("shard", "chunk", "levels", "filled"),
    [
        ((32, 2048, 2048), (32, 128, 128), 9, 2),
        ((32, 2048, 2048), (32, 128, 128), 2, 1),
        ((32, 2048, 2048), (32, 128, 128), 1, 0),
        ((32, 2048, 1024), (32, 128, 128), 9, 1),
        ((4, 256, 256), (4, 64, 64), 9, 0),
        ((1, 1536, 1536), (1, 128, 128), 9, 1),  # 384 would be three chunks
        ((1, 640, 640), (1, 128, 128), 9, 0),
    ],
)
def test_a_shard_fills_levels_of_whole_chunks(shard, chunk, levels, filled):
    assert levels_of_shard(shard, chunk, levels) == filled
