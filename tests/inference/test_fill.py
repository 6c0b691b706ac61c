from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.errors import ShapeError
from inference.fill import fill_invalid


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 100))
def test_what_is_hidden_changes_nothing_and_what_is_valid_stays(ny, nx, share, seed):
    random = np.random.default_rng(seed)
    image = random.integers(50, 150, (ny, nx), np.uint8)
    valid = random.random((ny, nx)) < share
    filled = fill_invalid(image, valid)
    assert filled.dtype == np.float32
    np.testing.assert_array_equal(filled[valid], image[valid])
    hidden = np.where(valid, image, random.integers(0, 256, (ny, nx))).astype(np.uint8)
    np.testing.assert_array_equal(filled, fill_invalid(hidden, valid))
    if valid.any():
        assert image[valid].min() - 1e-3 <= filled.min()
        assert filled.max() <= image[valid].max() + 1e-3
    else:
        assert not filled.any()


def test_holes_are_filled_smoothly():
    """A slope goes on across a hole, and the fill has no step larger than a few of the slope's."""
    y, x = np.mgrid[:200, :200].astype(np.float32)
    image = 20 + 0.5 * y + 0.25 * x
    valid = np.hypot(y - 100, x - 90) > 40
    valid[:, 170:] = False
    filled = fill_invalid(image, valid)
    assert abs(filled - image)[:, :160].max() < 16  # the hole spans 40 grey values
    assert abs(np.diff(filled, axis=0)).max() < 8
    assert abs(np.diff(filled, axis=1)).max() < 8


def test_shapes_must_agree():
    with pytest.raises(ShapeError, match="same shape"):
        fill_invalid(np.zeros((4, 4), np.uint8), np.ones((4, 5), bool))
