from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage as ndi

from alignment.config import MatchConfig, MatchLevel, PipelineConfig
from alignment.match import CHANNELS
from tests.accuracy.matches_file import write_matches
from tests.accuracy.measures import (
    CHANNEL_OF,
    _kept_by,
    curves,
    errors,
    kept,
    only,
    pooled,
    rates,
    settings,
    tightened,
)
from tests.accuracy.recipes import Recipe
from tests.accuracy.runner import Outcome, PairMatch, run_stack
from tests.accuracy.stacks import make_stack

SHIFTED = Recipe(
    rotation_deg=1, stretch=0, shift_px=6, elastic_px=0, gain=0.1, bias=5, noise=2, folds=0,
    cracks=0, blanks=0,
)  # fmt: skip
SMALL = PipelineConfig(
    match=MatchConfig(
        levels=(MatchLevel(mip=1, template_px=48, search_radius_px=12, node_spacing_px=16),),
        refine=(MatchLevel(mip=0, template_px=96, search_radius_px=6, node_spacing_px=32),),
    )
)


def tissue(count=3, shape=(288, 304)):
    random = np.random.default_rng(0)
    smooth = ndi.gaussian_filter(random.normal(size=(count, *shape)), (0, 3, 3))
    return np.clip(128 + smooth / smooth.std() * 35, 1, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def twins():
    stack = make_stack(tissue(), "twins", SHIFTED, seed=1)
    return stack, run_stack(stack, SMALL, coarse="true")


def test_twins_are_three_copies_that_close_a_cycle():
    stack = make_stack(tissue(6), "twins", SHIFTED, seed=1)
    assert stack.base == (0, 0, 0, 3, 3, 3)
    assert stack.groups == (range(3), range(3, 6))


def test_a_known_warp_without_change_of_the_tissue_gives_next_to_no_error(twins):
    _, outcome = twins
    assert [(p.z, p.d) for p in outcome.pairs] == [(1, 1), (2, 1), (2, 2)]
    found = errors(outcome, kept(outcome, only()))
    assert found.median < 0.05
    assert found.p99 < 0.3
    assert found.coverage == 1
    assert found.false == 0


def test_the_truth_leads_to_the_same_tissue(twins):
    stack, outcome = twins
    z, fixed = outcome.pairs[1].z, outcome.pairs[1].z - outcome.pairs[1].d
    at = np.array([[60.0, 80.0], [100.0, 40.0]])
    there = stack.place_in(fixed, z, at)
    np.testing.assert_allclose(
        stack.maps[fixed].tissue_at(there), stack.maps[z].tissue_at(at), atol=1e-6
    )


def test_a_true_change_of_the_tissue_is_no_error():
    class Shift:
        def between(self, fixed, moving, points):
            return np.full_like(points, 3.0 * (moving - fixed))

    image = tissue(1)[0]
    base = np.stack([np.roll(image, -3 * k, (0, 1)) for k in range(2)])
    calm = replace(SHIFTED, shift_px=2)
    errors_px = []
    for change in (None, Shift()):
        stack = make_stack(base, "neighbours", calm, seed=2, change=change)
        outcome = run_stack(stack, SMALL, coarse="true")
        errors_px.append(errors(outcome, kept(outcome, only())).median)
    assert errors_px[0] == pytest.approx(3 * 2**0.5, abs=0.1)
    assert errors_px[1] < 0.1


def made_up(wrong=(), ny=6, nx=7):
    """Matches that are right but for some nodes, in a section whose first row shows no tissue."""
    matches = np.ones((len(CHANNELS), ny, nx), np.float32)
    matches[:2] = 4.0
    for node in wrong:
        matches[(slice(0, 2), *node)] = 30.0
        matches[(CHANNELS.index("score"), *node)] = 0.05
    is_tissue = np.ones((ny, nx), bool)
    is_tissue[0] = False
    truth = np.full((2, ny, nx), 4.0)
    far = np.full((ny, nx), np.inf, np.float32)
    far[:, 0] = 10
    pair = PairMatch(1, 1, matches, truth, truth, is_tissue, far, far, far)
    return Outcome((pair,), 32, (), np.zeros(1), 0.0)


def test_false_matches_are_counted_among_those_that_are_kept():
    outcome = made_up([(0, 3), (2, 0), (3, 4)])
    found = errors(outcome, kept(outcome, only()))
    assert found.false == pytest.approx(2 / 35)
    assert found.false_near == pytest.approx(1 / 5)
    assert found.false_away == pytest.approx(1 / 30)
    assert found.false_off == 1
    one = rates(outcome, kept(outcome, only(min_score=0.1)), 0.1)
    assert one == (0.1, 35, 33, 0)
    assert pooled([one, one]) == (0.1, 70, 66, 0)
    assert one.coverage == pytest.approx(33 / 35)


def test_a_filter_alone_rejects_nothing_else():
    outcome = made_up([(2, 2)])
    assert kept(outcome, only())[0].all()
    for name in settings():
        if name == "max_median_deviation_px":
            assert not kept(outcome, only(**{name: 4.0}))[0][2, 2]
        elif name in CHANNEL_OF:
            limit = getattr(only(), name) + (0.1 if name.startswith("min") else -0.1)
            alone = _kept_by(outcome, name, limit)[0]
            np.testing.assert_array_equal(alone, kept(outcome, only(**{name: limit}))[0])


def test_all_filters_together_range_from_none_to_tighter_than_by_default():
    config = PipelineConfig().filter
    assert tightened(0, config) == only()
    assert tightened(1, config).model_dump() == config.model_dump()
    assert tightened(2, config).max_strain == config.max_strain / 2
    swept = curves(made_up([(2, 2)]), config)["all together"]
    assert swept[0].false > 0
    assert swept[-1].false == 0


def test_the_file_holds_every_match_with_its_error(twins, tmp_path):
    _, outcome = twins
    count = write_matches(tmp_path / "x.npz", outcome)
    with np.load(tmp_path / "x.npz") as found:
        assert found["names"].tolist() == list(CHANNELS)
        assert found["channels"].shape == (count, len(CHANNELS))
        assert count == sum(int(np.isfinite(p.matches[0]).sum()) for p in outcome.pairs)
        pair = outcome.pairs[-1]
        last = [found[name][-1] for name in ("z", "d", "i", "j")]
        assert last[:2] == [pair.z, pair.d]
        error = pair.error[:, last[2], last[3]]
        np.testing.assert_allclose([found["error_dy"][-1], found["error_dx"][-1]], error, atol=1e-5)
