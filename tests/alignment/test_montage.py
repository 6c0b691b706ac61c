"""All tiles of a section at once: known grids, tiles that show nothing, wrong matches."""

import numpy as np
import pytest

from alignment.errors import DataError
from alignment.montage import MontageConfig, find_pairs, is_believed, solve_section
from alignment.tilematch import TileMatch, match_views, view_tile
from alignment.tilerefine import refine_match
from tests.camera import grid_positions, photograph

CONFIG = MontageConfig()


def stitch(tiles, nominal):
    """Compare and place tiles, as the stage does."""
    shapes = np.array([tile.shape for tile in tiles])
    views = [view_tile(tile, None, tuple(shapes.max(axis=0))) for tile in tiles]
    matches = {}
    for i, j in find_pairs(nominal, shapes, CONFIG.search_fraction):
        reach = CONFIG.search_fraction * shapes.max()
        match = match_views(views[i], views[j], tuple(nominal[j] - nominal[i]), reach)
        if match is not None and not is_believed(match, CONFIG):
            pair = (tiles[i], None), (tiles[j], None)
            matches[i, j] = refine_match(*pair, match, views[i].mip)
    return solve_section(matches, nominal, len(tiles), CONFIG), matches


def offsets(solution, truth, tiles):
    """How far tiles are from the truth, up to the place of the whole section, px."""
    error = solution.positions - truth
    return np.hypot(*(error - error[tiles].mean(axis=0))[tiles].T)


def sure(shift, **values):
    """A match that is beyond doubt."""
    about = {"score": 0.9, "significance": 40.0, "distinctness": 9.0}
    return TileMatch(tuple(shift), **about, **{"overlap": 0.1, "fine_score": 0.9, **values})


def exact_matches(truth, pairs):
    return {(i, j): sure(truth[j] - truth[i]) for i, j in pairs}


def test_tiles_whose_stage_is_20_px_off_are_placed_to_a_tenth_of_a_pixel():
    truth = grid_positions(4)
    nominal = truth + np.random.default_rng(1).uniform(-20, 20, truth.shape)
    solution, matches = stitch([photograph(p, seed=i) for i, p in enumerate(truth)], nominal)
    assert np.percentile(offsets(solution, truth, list(range(16))), 95) <= 0.1
    assert len(solution.parts) == 1
    assert len(matches) >= 24


def test_a_blank_tile_and_a_repeated_one_keep_their_nominal_place_and_disturb_nobody():
    truth = grid_positions(4)
    nominal = truth + np.random.default_rng(2).uniform(-20, 20, truth.shape)
    tiles = [photograph(p, seed=i) for i, p in enumerate(truth)]
    y, x = np.mgrid[:256, :256]
    tiles[5] = np.full((256, 256), 130, np.uint8)
    tiles[10] = (128 + 50 * np.sin(y / 3) * np.sin(x / 3)).astype(np.uint8)
    solution, _ = stitch(tiles, nominal)
    good = [i for i in range(16) if i not in (5, 10)]
    assert np.percentile(offsets(solution, truth, good), 95) <= 0.1
    assert solution.parts == (tuple(good), (5,), (10,))
    # Where the stage puts it among its neighbours, which were 20 px off themselves.
    assert np.abs(solution.positions - nominal)[[5, 10]].max() < 25


def test_a_pattern_that_spans_several_tiles_gives_no_false_matches():
    y, x = np.mgrid[:1100, :1100]
    scene = (128 + 40 * np.sin(y / 3) * np.sin(x / 3)).astype(np.float32)
    truth = grid_positions(3)
    nominal = truth + np.random.default_rng(3).uniform(-20, 20, truth.shape)
    tiles = [photograph(p, seed=i, scene=scene) for i, p in enumerate(truth)]
    solution, matches = stitch(tiles, nominal)
    assert not matches
    np.testing.assert_allclose(solution.positions, nominal, atol=1 / 32)


def test_positions_a_fifth_of_a_tile_off_are_mended():
    truth = grid_positions(3)
    nominal = truth.copy()
    nominal[4] += (45, -38)
    solution, _ = stitch([photograph(p, seed=i) for i, p in enumerate(truth)], nominal)
    assert offsets(solution, truth, list(range(9))).max() <= 0.1


def test_matches_that_contradict_the_others_are_rejected():
    truth = grid_positions(5)
    shapes = np.full((25, 2), 256)
    matches = exact_matches(truth, find_pairs(truth, shapes, 0.1))
    wrong = [(0, 1), (6, 7), (12, 17)]
    for pair in wrong:
        matches[pair] = sure(np.add(matches[pair].shift_yx, (25, -18)))
    solution = solve_section(matches, truth, 25, CONFIG)
    assert solution.rejected == tuple(wrong)
    assert offsets(solution, truth, list(range(25))).max() < 0.05
    assert solution.residual_px[0, 1] == pytest.approx(np.hypot(25, 18), abs=0.1)


def test_small_errors_average_out_over_the_section_instead_of_adding_up():
    truth = grid_positions(12)
    rng = np.random.default_rng(0)
    matches = {
        (i, j): sure(truth[j] - truth[i] + rng.normal(0, 0.3, 2))
        for i, j in find_pairs(truth, np.full((144, 2), 256), 0.05)
    }
    solution = solve_section(matches, truth + rng.uniform(-20, 20, truth.shape), 144, CONFIG)
    # A chain to the far corner would be off by 0.3 * sqrt(2 * 22) = 2 px.
    assert offsets(solution, truth, list(range(144))).max() < 0.9


def test_tiles_without_any_match_lie_where_the_stage_says():
    nominal = grid_positions(3)
    solution = solve_section({}, nominal, 9, CONFIG)
    np.testing.assert_allclose(solution.positions, nominal, atol=1 / 32)
    assert len(solution.parts) == 9


def test_a_loose_tile_follows_its_neighbours_when_the_stage_is_turned():
    truth = grid_positions(9, jitter=0)
    turned = truth @ np.array([[1, 0.06], [-0.06, 1]])  # 3.4 degrees
    pairs = [p for p in find_pairs(truth, np.full((81, 2), 256), 0.05) if 80 not in p]
    solution = solve_section(exact_matches(truth, pairs), turned, 81, CONFIG)
    error = solution.positions - truth
    # At the far corner the stage is 150 px off; against its neighbour, a fraction of a tile.
    assert np.hypot(*(error[80] - error[79])) < 30


def test_a_strip_without_positions_is_put_together_in_order():
    truth = np.array([(0.0, 5.0), (200.25, 0.0), (410.5, 9.75)])
    solution = solve_section(exact_matches(truth, find_pairs(None, truth, 1)), None, 3, CONFIG)
    np.testing.assert_array_equal(solution.positions, truth)


def test_a_strip_that_does_not_hold_together_says_where():
    with pytest.raises(DataError, match=r"tiles 1 and 2 do not match.*positions\.csv"):
        solve_section({(0, 1): sure((200, 0))}, None, 3, CONFIG)


def test_a_single_tile_is_a_section():
    solution = solve_section({}, np.array([[3.5, -2.0]]), 1, CONFIG)
    assert solution.positions.tolist() == [[3.5, -2.0]]


def test_pairs_are_those_whose_boxes_touch():
    nominal = np.array([(0.0, 0), (0, 90), (0, 192), (150, 0)])
    shapes = np.full((4, 2), 100)
    assert find_pairs(nominal, shapes, 0.001) == [(0, 1)]
    assert find_pairs(nominal, shapes, 0.05) == [(0, 1), (1, 2)]
    assert find_pairs(nominal, shapes, 0.6) == [(0, 1), (0, 3), (1, 2), (1, 3)]


def test_the_answer_does_not_depend_on_the_order_of_the_tiles():
    truth = grid_positions(3)
    order = np.random.default_rng(0).permutation(9)
    pairs = find_pairs(truth, np.full((9, 2), 256), 0.1)
    there = solve_section(exact_matches(truth, pairs), truth + 3, 9, CONFIG)
    moved = truth[order]
    pairs = find_pairs(moved, np.full((9, 2), 256), 0.1)
    back = solve_section(exact_matches(moved, pairs), moved + 3, 9, CONFIG)
    np.testing.assert_allclose(back.positions, there.positions[order], atol=1 / 32)
