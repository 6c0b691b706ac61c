"""What stages read of a run, whole and in parts."""

import numpy as np
import pytest

from alignment.runs import load
from alignment.stages import inputs
from tests.relaxed_run import relaxed_run

NY, NX = 301, 243


@pytest.mark.parametrize("own", [1, 2])
@pytest.mark.parametrize("mip", [0, 1, 2, 3])
def test_a_part_of_what_is_valid_is_that_of_the_whole(tmp_path, own, mip):
    shape = (2, -(-NY // 2**own), -(-NX // 2**own))
    mask = (np.random.default_rng(0).random(shape) > 0.02).astype(np.uint8)
    run = load(
        relaxed_run(
            tmp_path,
            2 * [lambda: np.full((NY, NX), 9, np.uint8)],
            (NY, NX),
            fields=np.zeros((2, 2, 12, 10), np.float32),
            matrices=np.array(2 * [[[1.0, 0, 0], [0, 1, 0]]]),
            canvas=(NY, NX),
            valid=mask,
            config={"masks": {"mip": own}},
        )
    )
    whole = inputs.valid(run, 0, mip)
    assert whole.shape == run.shape_at(mip)[1:]
    assert 0 < whole.mean() < 1
    ny, nx = whole.shape
    for y, x, height, width in ((0, 0, 1, 1), (5, 7, 20, 13), (ny - 9, nx - 11, 9, 11)):
        part = inputs.valid_part(run, 0, mip, (y, x), (height, width))
        np.testing.assert_array_equal(part, whole[y : y + height, x : x + width])
