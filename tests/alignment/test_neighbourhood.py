import numpy as np
import pytest

from alignment.neighbourhood import deviation, expected, known_neighbours, strain

SPACING = 32


def affine(shape=(9, 11)):
    """A displacement that changes by 3 px a node along y, by -1 and 2 px along x."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return np.stack([3 * y - x, 2 * x])


def test_an_affine_displacement_is_expected_exactly_at_the_edges_and_beside_holes_too():
    shift = affine()
    shift[:, 3:6, 4] = np.nan
    known = ~np.isnan(shift[0])
    np.testing.assert_allclose(expected(shift)[:, known], shift[:, known], atol=1e-4)
    np.testing.assert_allclose(deviation(shift)[known], 0, atol=1e-4)
    assert np.isnan(deviation(shift)[~known]).all()


def test_what_a_node_is_off_by_is_its_deviation_and_hardly_that_of_the_others():
    shift = affine()
    shift[:, 4, 5] += (3, -4)
    off = deviation(shift)
    assert off[4, 5] == pytest.approx(5, abs=1e-3)
    others = np.ones(off.shape, bool)
    others[4, 5] = False
    assert off[others].max() < 1


def test_a_node_has_no_say_in_what_is_expected_of_it():
    shift = np.full((2, 5, 5), np.nan, np.float32)
    shift[0, 2, 1], shift[1, 2, 1] = 6, 0
    shift[0, 4, 3], shift[1, 4, 3] = 0, 8
    assert expected(shift)[:, 2, 1].tolist() == [0, 8]
    assert deviation(shift)[4, 3] == 10


def test_a_lone_node_deviates_from_nothing_and_has_no_strain():
    shift = np.full((2, 7, 7), np.nan, np.float32)
    shift[:, 3, 3] = 8
    assert deviation(shift)[3, 3] == 0
    assert np.isnan(strain(shift, SPACING)).all()
    assert known_neighbours(shift)[3, 3] == 0


def test_strain_is_the_median_change_per_px():
    y = np.mgrid[:7, :7][0].astype(np.float32)
    shift = np.stack([8 * y, 0 * y])  # 0.25 a px along y, none along x
    # Of 8 neighbours two lie along x, two along y and four across, at 2^0.5 the distance.
    assert strain(shift, SPACING)[3, 3] == pytest.approx(0.25 / 2**0.5)
    shift[:, 0, 0] = np.nan
    # The corner's neighbour along x has two along y and one each along x and across the other way.
    changes = sorted([0.0, 0.25, 0.25 / 2**0.5, 0.25 / 2**0.5])
    assert strain(shift, SPACING)[0, 1] == pytest.approx((changes[1] + changes[2]) / 2)
    assert strain(4 * np.ones((2, 5, 5), np.float32), SPACING).max() == 0


def test_neighbours_are_counted_over_five_by_five_nodes():
    shift = np.zeros((2, 9, 9), np.float32)
    shift[:, :4] = np.nan
    assert known_neighbours(shift)[6, 4] == 1
    assert known_neighbours(shift)[4, 4] == pytest.approx(14 / 24)
    assert known_neighbours(shift)[8, 0] == pytest.approx(8 / 24)
