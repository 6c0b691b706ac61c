import numpy as np

from alignment.holes import MARGIN_NODES, boxes_around, untied_nodes


def matches(*unknown):
    """Matches at 20 x 30 nodes, NaN in the given parts."""
    found = np.zeros((3, 20, 30), np.float32)
    for part in unknown:
        found[:, *part] = np.nan
    return found


TISSUE = np.ones((20, 30), bool)


def test_a_node_is_untied_if_no_section_ties_it():
    near, far = matches(np.s_[2:8, 2:8]), matches(np.s_[5:12, 5:12])
    expected = np.zeros((20, 30), bool)
    expected[5:8, 5:8] = True
    np.testing.assert_array_equal(untied_nodes([near, far], TISSUE, 4), expected)
    assert not untied_nodes([near, far, matches()], TISSUE, 4).any()


def test_what_shows_no_tissue_needs_no_tie():
    tissue = TISSUE.copy()
    tissue[:, 6:] = False
    untied = untied_nodes([matches(np.s_[5:8, 4:9])], tissue, 1)
    assert untied.sum() == 6
    assert untied[5:8, 4:6].all()


def test_small_islands_are_left_to_their_neighbours():
    lone = matches(np.s_[3, 3], np.s_[10, 10:12], np.s_[11, 12])
    untied = untied_nodes([lone], TISSUE, 3)
    assert not untied[3, 3]
    assert untied.sum() == 3  # they touch at a corner


def test_a_section_that_was_matched_with_none_is_untied_where_it_shows_tissue():
    np.testing.assert_array_equal(untied_nodes([], TISSUE, 1), TISSUE)


def test_boxes_hold_the_hole_and_its_margin_within_each_block():
    holes = np.zeros((20, 30), bool)
    holes[5, 14] = holes[6, 15] = True
    m = MARGIN_NODES
    assert boxes_around(holes, 16) == {
        (0, 0): (5 - m, 14 - m, 6 + m + 1, 16),
        (0, 16): (5 - m, 16, 6 + m + 1, 15 + m + 1),
    }
    assert boxes_around(np.zeros((20, 30), bool), 16) == {}
    assert boxes_around(TISSUE, 64) == {(0, 0): (0, 0, 20, 30)}
