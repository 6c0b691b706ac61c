"""Drawing tiles: what one tile shows is untouched, seams are smooth, boxes do not matter."""

import numpy as np
import pytest

from alignment.errors import ShapeError
from alignment.mosaic import blend, edge_weights, make_canvas, touching


def tile(corner, image, valid=None):
    return corner, image, edge_weights(image.shape, valid)


def test_a_tile_alone_comes_back_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    drawn = blend((0, 0), (50, 60), [tile((5, 7), image)])
    np.testing.assert_array_equal(drawn[5:35, 7:47], image)
    assert np.count_nonzero(drawn) == np.count_nonzero(image)


def test_a_step_in_brightness_becomes_a_ramp_without_an_edge():
    dark, bright = np.full((40, 100), 100, np.uint8), np.full((40, 100), 140, np.uint8)
    row = blend((0, 0), (40, 180), [tile((0, 0), dark), tile((0, 80), bright)])[20].astype(int)
    assert row[79] == 100
    assert row[100] == 140
    assert np.diff(row).min() >= 0
    assert np.diff(row).max() <= 8


def test_no_data_of_one_tile_shows_the_other():
    first, second = np.full((20, 30), 90, np.uint8), np.full((20, 30), 90, np.uint8)
    first[5:10, 12:20] = 0
    drawn = blend((0, 0), (20, 35), [tile((0, 0), first), tile((0, 5), second)])
    assert (drawn == 90).all()


def test_what_a_mask_hides_is_not_drawn():
    image = np.full((20, 30), 90, np.uint8)
    valid = np.ones((20, 30), bool)
    valid[:, 20:] = False
    drawn = blend((0, 0), (20, 30), [tile((0, 0), image, valid)])
    np.testing.assert_array_equal(drawn > 0, valid)


def test_boxes_of_any_size_give_the_same_pixels():
    rng = np.random.default_rng(1)
    shapes = np.array([(64, 80), (70, 75), (60, 90), (64, 64)])
    canvas = make_canvas(np.array([(0, 0), (3.4, 60.7), (50.2, -5), (48, 55.0)]), shapes)
    images = [rng.integers(1, 256, shape).astype(np.uint8) for shape in shapes]
    placed = [tile(tuple(c), i) for c, i in zip(canvas.corners, images, strict=True)]
    whole = blend((0, 0), canvas.shape, placed)
    for step in (1, 7, 32):
        for y in range(0, canvas.shape[0], step):
            for x in range(0, canvas.shape[1], 50):
                stop = (min(y + step, canvas.shape[0]), min(x + 50, canvas.shape[1]))
                shown = [placed[i] for i in touching(canvas, shapes, (y, x), stop)]
                part = blend((y, x), (stop[0] - y, stop[1] - x), shown)
                np.testing.assert_array_equal(part, whole[y : stop[0], x : stop[1]])


def test_the_canvas_holds_all_tiles_and_no_more():
    shapes = np.array([(10, 8), (12, 20)])
    canvas = make_canvas(np.array([(-3.2, 4.0), (5.6, -1.0)]), shapes)
    assert canvas.corners.tolist() == [[0, 5], [9, 0]]
    assert canvas.shape == (21, 20)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match="weights"):
        blend((0, 0), (9, 9), [((0, 0), np.ones((4, 4), np.uint8), edge_weights((3, 4), None))])
