import numpy as np
import pytest

from alignment.config import MatchConfig
from alignment.match import halo_px
from alignment.patches import patch_box, place_patch, seen_box

IDENTITY = np.eye(2, 3)


def section(shape=(96, 80), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float16)


def test_a_section_in_its_place_is_cut_as_it_is():
    features = section()
    valid = np.ones(features.shape, bool)
    valid[30:40, 10:20] = False
    patch = place_patch(features, valid, IDENTITY, (20, 5), (40, 50), 1)
    np.testing.assert_array_equal(patch.valid, valid[20:60, 5:55])
    known = patch.valid.copy()
    np.testing.assert_allclose(patch.features[known], features[20:60, 5:55][known], atol=1e-6)
    assert not patch.features[~known].any()
    assert (patch.origin, patch.mip) == ((20, 5), 1)


def test_a_shift_of_the_coarse_stage_is_in_px_of_mip_0():
    features, valid = section(), np.ones((96, 80), bool)
    shifted = np.array([[1.0, 0, 8], [0, 1, -12]])
    patch = place_patch(features, valid, shifted, (10, 10), (20, 20), 2)
    np.testing.assert_allclose(patch.features, features[12:32, 7:27], atol=1e-6)


def test_what_lies_outside_the_section_is_invalid():
    patch = place_patch(section(), np.ones((96, 80), bool), IDENTITY, (-10, 70), (20, 20), 0)
    expected = np.zeros((20, 20), bool)
    expected[10:, :10] = True
    # The outermost pixels of a section have nothing beyond them to be made of.
    np.testing.assert_array_equal(patch.valid[11:, :9], expected[11:, :9])
    assert not patch.valid[~expected].any()


@pytest.mark.parametrize("start", [(-40, -30), (10, 20), (60, 50), (400, 0)])
@pytest.mark.parametrize("turn", [-0.7, 0.0, 0.02, 3.0])
def test_the_part_that_is_seen_gives_the_bits_of_the_whole_section(start, turn):
    features, valid = section(), np.ones((96, 80), bool)
    valid[30:40, 10:20] = False
    c, s = np.cos(turn), np.sin(turn)
    matrix = np.array([[c, -s, 60 - 60 * c], [s, c, 40 - 40 * s]])
    whole = place_patch(features, valid, matrix, start, (50, 40), 1)
    (y, x), (ny, nx) = seen_box(matrix, start, (50, 40), 1, features.shape)
    if not ny:
        assert not whole.valid.any()
        return
    cut = np.s_[y : y + ny, x : x + nx]
    part = place_patch(features[cut], valid[cut], matrix, start, (50, 40), 1, origin_yx=(y, x))
    np.testing.assert_array_equal(part.features, whole.features)
    np.testing.assert_array_equal(part.valid, whole.valid)


def test_a_box_holds_the_halo_of_its_nodes():
    config = MatchConfig()
    start, shape = patch_box(((2, 3), (5, 9)), (2000, 2000), config, 1, margin_px=7)
    halo, spacing = halo_px(config) + 7, 32
    low, high = np.array([2, 3]) * spacing - halo, np.array([4, 8]) * spacing + halo
    assert (np.array(start) * 2 <= low).all()
    assert ((np.array(start) + shape - 1) * 2 + 1 >= high).all()
