from dataclasses import replace

import numpy as np
import pytest

from alignment.config import RelaxConfig
from alignment.energy import StackEnergy
from alignment.newton import minimise
from alignment.schwarz import (
    CORRECTION,
    Nodes,
    Problem,
    correct,
    decompose,
    gather,
    history,
    match_range,
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


@pytest.mark.parametrize(("slab", "tile"), [(12, 256), (8, 256), (4, 256), (48, 32), (12, 32)])
def test_boxes_give_the_answer_of_one_solve(slab, tile):
    grid = (24, 33, 65)
    pairs, config = stack(24, 1025, slab_sections=slab, tile_nodes=tile, tolerance=1e-7)
    pairs = [
        replace(p, displacement=np.concatenate([p.displacement, p.displacement[:, :, -2::-1]], 2))
        for p in pairs
    ]
    u, energies, residuals = in_boxes(pairs, grid, config)
    expected = at_once(pairs, grid, config)
    assert residuals[-1] <= 1e-7
    print(slab, tile, len(energies), residuals)
    assert np.abs(u - expected.u).max() < 1e-4
    assert energies[-1] == pytest.approx(expected.energy.total, rel=1e-9)
    assert (np.diff(energies) <= 1e-12 * energies[0]).all(), "the energy never rises"
