import numpy as np
import pytest

from alignment.intensity import Grey, common_grey, grey_table, measure_grey


def section(median, spread, shape=(300, 400)):
    """Grey values of a normal distribution with a given distance of the percentiles 10 and 90."""
    values = np.random.default_rng(0).normal(median, spread / 2.563, shape)
    return np.clip(np.rint(values), 1, 255).astype(np.uint8)


def test_the_grey_of_tissue_is_found_whatever_lies_beside_it():
    image = section(110, 60)
    valid = np.ones(image.shape, bool)
    image[:100], valid[:100] = 255, False
    image[100:150, :50], valid[100:150, :50] = 0, False
    found = measure_grey(image, valid)
    assert found is not None
    np.testing.assert_allclose(found, (110, 60), atol=0.3)


def test_a_section_without_tissue_has_no_grey():
    assert measure_grey(section(90, 20), np.zeros((300, 400), bool)) is None
    flat = measure_grey(np.full((9, 9), 7, np.uint8), np.ones((9, 9), bool))
    assert flat is not None
    assert flat.median == 7
    assert flat.spread < 1


def test_sections_become_alike():
    common = common_grey([Grey(90, 40), Grey(120.4, 61), Grey(140, 50)])
    assert common == (120, 50)
    for median, spread in ((90, 40), (130, 70)):
        image = section(median, spread)
        shown = grey_table(Grey(median, spread), common)[image]
        np.testing.assert_allclose(
            measure_grey(shown, np.ones(shown.shape, bool)), common, atol=1.5
        )


def test_one_more_section_leaves_the_common_grey_as_it_is():
    stack = [Grey(100 + 0.01 * k, 50 - 0.01 * k) for k in range(20)]
    assert common_grey([*stack, Grey(30, 10)]) == common_grey(stack)


@pytest.mark.parametrize("own", [Grey(90, 0.5), Grey(200, 250), Grey(128, 60)])
def test_no_data_stays_and_tissue_does_not_become_it(own):
    table = grey_table(own, Grey(120, 60))
    assert table[0] == 0
    assert table[1:].min() >= 1
    assert (np.diff(table[1:].astype(int)) >= 0).all()
    assert np.diff(table[1:].astype(int)).max() <= 2, "contrast is at most doubled"
