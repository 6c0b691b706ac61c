from dataclasses import replace

import numpy as np
import pytest

from alignment.config import RelaxConfig
from alignment.decomposition import Nodes, count_boxes, decompose, match_range
from alignment.energy import StackEnergy
from alignment.newton import minimise
from alignment.schwarz import (
    CORRECTION,
    Problem,
    correct,
    gather,
    history,
    paint,
    prolong,
    restrict,
    sweep,
)
from tests.known_fields import KnownFields

SPACING = 32


def stack(nz, side_px, **settings):
    config = RelaxConfig(**{"anchor": 1e-3, **settings})
    truth = KnownFields(nz, px=8, length_px=300, waves=12)
    pairs = [p for d in (1, 2) for p in truth.matches(side_px, SPACING, d=d, wrong=0.1)]
    return sorted(pairs, key=lambda p: (p.z, p.d)), config


def problem(pairs, nodes, grid, config, locked=()):
    z0 = nodes.start[0]
    rows, columns = match_range(nodes, SPACING / config.node_spacing_px)
    links = [
        replace(p, z=p.z - z0, displacement=p.displacement[:, rows, columns]).links(SPACING)
        for p in pairs
        if z0 <= p.z - p.d and p.z < nodes.stop[0]
    ]
    nz, ny, nx = nodes.shape
    free = np.ones(nodes.shape, np.float32)
    for z in locked:
        if z0 <= z < nodes.stop[0]:
            free[z - z0] = 0
    cells = np.full((nz, ny - 1, nx - 1), config.stiffness, np.float32)
    return Problem(nodes, links, cells, free if locked else None)


def in_boxes(pairs, grid, config, *, locked=(), sweeps=30):
    """What `alignment.stages.slabs` does, without storage; (u, energies, residuals)."""
    reach = max(np.nanmax(np.abs(p.displacement)) for p in pairs) * 2**0.5
    cut = decompose(grid, config, SPACING, farthest=2, reach_px=reach)
    states, energies, residuals = {}, [], []

    def at(turn, box):
        return states[turn, None if box is None else box.number]

    def shown(nodes, turns):
        free = problem(pairs, nodes, grid, config, locked).free
        return paint(nodes, turns, cut, at, free)

    reference = 0.0
    for iteration in range(sweeps + 1):
        if iteration:
            for colour in range(cut.colours):
                turn = history(iteration, colour, cut.colours)
                done = {}
                for box in cut.of_colour(colour):
                    nodes = cut.neighbourhood(box.moved)
                    part = problem(pairs, nodes, grid, config, locked)
                    done[box.number], _ = sweep(
                        *(part, box, shown(nodes, turn), config, SPACING),
                        reference=reference,
                        boxes=len(cut.boxes),
                    )
                for number, u in done.items():
                    states[history(iteration, colour + 1, cut.colours)[-1], number] = u
        turns = history(iteration, cut.colours, cut.colours) if iteration else []
        shares = []
        for box in cut.boxes:
            nodes = cut.neighbourhood(box.core)
            part = problem(pairs, nodes, grid, config, locked)
            u = shown(nodes, turns)
            shares.append(gather(part, box, u, config, SPACING, cut, is_believed=not iteration))
        size = sum(share.square for share in shares) ** 0.5
        reference = reference or size
        if iteration:
            energies.append(sum(share.energy for share in shares))
            residuals.append(size / reference)
            if residuals[-1] <= config.tolerance:
                break
        states[history(iteration + 1, 0, cut.colours)[-1], None] = correct(shares, config, cut)
    return paint(cut.whole, turns, cut, at), energies, residuals


def at_once(pairs, grid, config, locked=()):
    whole = problem(pairs, Nodes((0, 0, 0), grid), grid, config, locked)
    energy = StackEnergy(
        whole.links, grid, SPACING, config, stiffness=whole.stiffness, free=whole.free
    )
    return minimise(energy)


GRID = (24, 33, 65)


@pytest.fixture(scope="module")
def mirrored():
    """A stack that is twice as wide as high."""
    pairs, _ = stack(24, 1025)
    return [
        replace(p, displacement=np.concatenate([p.displacement, p.displacement[:, :, -2::-1]], 2))
        for p in pairs
    ]


@pytest.fixture(scope="module")
def solved(mirrored):
    return at_once(mirrored, GRID, RelaxConfig(anchor=1e-3))


@pytest.mark.parametrize(("slab", "tile"), [(12, 256), (4, 256), (48, 32), (12, 32)])
def test_boxes_give_the_answer_of_one_solve(mirrored, solved, slab, tile):
    config = RelaxConfig(anchor=1e-3, slab_sections=slab, tile_nodes=tile)
    u, energies, residuals = in_boxes(mirrored, GRID, config)
    assert residuals[-1] <= config.tolerance
    assert len(residuals) <= 10, "a sweep takes away nine tenths and more"
    assert np.abs(u - solved.u).max() < 1e-4
    assert energies[-1] == pytest.approx(solved.energy.total, rel=1e-9)
    assert (np.diff(energies) <= 1e-12 * energies[0]).all(), "the energy never rises"


def test_locked_sections_stay_and_the_others_come_to_them():
    grid, locked = (16, 17, 17), (0, 7)
    pairs, config = stack(16, 513, slab_sections=8)
    u, _, _ = in_boxes(pairs, grid, config, locked=locked)
    assert not u[list(locked)].any()
    assert np.abs(u - at_once(pairs, grid, config, locked).u).max() < 1e-4


def test_shares_of_the_coarse_mesh_add_up_whatever_the_boxes():
    grid = (16, 33, 33)
    pairs, config = stack(16, 1025)
    sums = []
    for slab, tile in ((64, 256), (8, 256), (8, 32)):
        cut_config = config.model_copy(update={"slab_sections": slab, "tile_nodes": tile})
        cut = decompose(grid, cut_config, SPACING, farthest=2, reach_px=60)
        cut = replace(cut, halvings=2)
        shares = []
        for box in cut.boxes:
            nodes = cut.neighbourhood(box.core)
            part = problem(pairs, nodes, grid, config)
            u = np.zeros((nodes.shape[0], 2, *nodes.shape[1:]))
            shares.append(gather(part, box, u, config, SPACING, cut, is_believed=True))
        sums.append(
            [
                sum(share.energy for share in shares),
                sum(share.square for share in shares),
                sum(share.condensed.mass.sum(dtype=float) for share in shares),
                sum(share.condensed.stiffness.sum(dtype=float) for share in shares),
                sum(
                    values[[0, 2]].sum(dtype=float)
                    for share in shares
                    for values in share.condensed.links.values()
                ),
            ]
        )
    np.testing.assert_allclose(sums[1], sums[0], rtol=1e-5)
    np.testing.assert_allclose(sums[2], sums[0], rtol=1e-5)


@pytest.mark.parametrize("sizes", [(64, 256), (8, 256), (16, 32), (5, 40)])
def test_cores_tile_the_nodes_and_boxes_of_a_colour_share_nothing(sizes):
    slab, tile = sizes
    grid = (50, 97, 130)
    config = RelaxConfig(slab_sections=slab, tile_nodes=tile)
    cut = decompose(grid, config, 48, farthest=2, reach_px=40)
    count = np.zeros(grid, int)
    for box in cut.boxes:
        count[box.core.within(cut.whole)] += 1
        nodes = cut.neighbourhood(box.moved)
        assert all(a % cut.align == 0 for a in nodes.start[1:])
        assert nodes.start[0] % 2**cut.halvings == 0
    assert (count == 1).all()
    for colour in range(cut.colours):
        reached = np.zeros(grid, int)
        for box in cut.of_colour(colour):
            reached[box.moved.within(cut.whole)] += 1
            others = [b for b in cut.of_colour(colour) if b.number != box.number]
            seen = box.moved.grown(cut.halo, grid)
            assert not any(seen.meets(other.moved) for other in others)
        assert reached.max() <= 1


@pytest.mark.parametrize(
    ("grid", "slab", "expected"),
    [
        ((500, 33, 33), 0, (1, 1, 1)),
        ((500, 33, 33), 64, (8, 1, 1)),
        ((60, 250, 250), 0, (1, 1, 1)),
        ((200, 250, 250), 0, (3, 1, 1)),
        ((64, 600, 1000), 0, (1, 2, 4)),
    ],
)
def test_a_stack_is_cut_only_if_it_is_large_or_it_is_asked_for(grid, slab, expected):
    assert count_boxes(grid, RelaxConfig(slab_sections=slab)) == expected


def test_restriction_is_the_transpose_of_interpolation():
    nodes, coarse = Nodes((4, 8, 0), (13, 20, 9)), Nodes((1, 2, 0), (5, 6, 4))
    random = np.random.default_rng(0)
    fine, rough = random.normal(size=(9, 2, 12, 9)), random.normal(size=(4, 2, 4, 4))
    down, up = restrict(fine, nodes, coarse, 2), prolong(rough, coarse, nodes, 2)
    assert (down * rough).sum() == pytest.approx((fine * up).sum())
    z, y, x = np.meshgrid(*(np.arange(a, b) for a, b in zip(*coarse, strict=True)), indexing="ij")
    ramp = np.stack([1.0 * z - 2 * y, 3.0 * x], axis=1)
    z, y, x = np.meshgrid(
        *(np.arange(a, b) / 4 for a, b in zip(*nodes, strict=True)), indexing="ij"
    )
    np.testing.assert_allclose(prolong(ramp, coarse, nodes, 2), np.stack([z - 2 * y, 3 * x], 1))


def test_the_history_of_a_state():
    assert history(1, 0, 2) == [(0, CORRECTION)]
    assert history(1, 1, 2) == [(0, CORRECTION), (1, 0)]
    assert history(3, 1, 2) == [(2, 0), (2, 1), (2, CORRECTION), (3, 0)]
    assert history(3, 2, 2) == [(3, 0), (3, 1)]


def test_matches_between_nodes_are_those_that_begin_there():
    assert match_range(Nodes((0, 0, 8), (1, 9, 17)), 1.0) == (slice(0, 9), slice(8, 17))
    assert match_range(Nodes((0, 0, 6), (1, 10, 20)), 1.5) == (slice(0, 7), slice(4, 13))
