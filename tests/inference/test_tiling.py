from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.errors import ShapeError
from inference.nccnet import Halo
from inference.tiling import predict_tiled
from tests.inference.networks import grey


def _sum_from_to(before, after, step):
    """A network that adds up what lies around the coarse pixel that a pixel belongs to."""

    def predict(image):
        assert all(n % step == 0 for n in image.shape)
        padded = np.pad(image, ((before + step, after + step),) * 2)
        result = np.zeros((*image.shape, 2), np.float32)
        for y, x in np.ndindex(image.shape):
            first_y, first_x = (p // step * step - before for p in (y, x))
            side = before + step + after
            part = padded[first_y + before + step :, first_x + before + step :]
            result[y, x] = part[:side, :side].sum(), image[y, x]
        return result

    # The first pixel of a coarse one sees furthest ahead, the last one furthest back.
    return predict, Halo(before + step - 1, after + step - 1)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 17), st.integers(1, 17)),
    st.integers(1, 12),
    st.sampled_from([1, 2, 4]),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_tiles_leave_no_trace(size, tile_px, step, before, after):
    predict, halo = _sum_from_to(before, after, step)
    image = grey(size)
    found = predict_tiled(predict, image, halo=halo, step_px=step, tile_px=tile_px)
    margin = 8  # a multiple of each step, more than each halo
    beyond = [(margin, 2 * margin - n % step) for n in size]
    mirrored = np.pad(image, beyond, mode="reflect") if min(size) > 1 else _mirrored(image, beyond)
    whole = predict(mirrored[tuple(slice(n // step * step) for n in mirrored.shape)])
    expected = whole[margin : margin + size[0], margin : margin + size[1]]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found[..., 1], image)


def _mirrored(image, beyond):
    """numpy repeats a single pixel as well, if asked for it by another name."""
    for axis, ends in enumerate(beyond):
        pad = [(0, 0), (0, 0)]
        pad[axis] = ends
        image = np.pad(image, pad, mode="edge" if image.shape[axis] == 1 else "reflect")
    return image


def test_all_tiles_of_an_image_have_one_size():
    seen = []

    def predict(image):
        seen.append(image.shape)
        return image[..., np.newaxis]

    predict_tiled(predict, grey((70, 33)), halo=Halo(5, 6), step_px=4, tile_px=32)
    assert seen == [(8 + 32 + 8, 8 + 32 + 8)] * 6


def test_what_cannot_be_tiled_is_refused():
    def predict(image):
        return image[1:, :, np.newaxis]

    for image in (np.zeros((0, 4), np.float32), np.zeros(4, np.float32)):
        with pytest.raises(ShapeError, match="some pixels"):
            predict_tiled(predict, image, halo=Halo(1, 1), step_px=1)
    with pytest.raises(ShapeError, match="the network made"):
        predict_tiled(predict, np.zeros((4, 4), np.float32), halo=Halo(1, 1), step_px=1)
