"""What the units of `alignment.stages.slabs` do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.energy import StackEnergy
from alignment.match import grid_spacing_px
from alignment.relax import (
    bridged,
    cells_to_stiffen,
    connected_parts,
    folding_cells,
    published,
    residual_lengths,
    unfold,
)
from alignment.runs import load
from alignment.schwarz import CORRECTION, Turn, correct, gather, history, sweep
from alignment.sigma_model import calibrated
from alignment.stages import inputs
from alignment.stages.slabstate import (
    Slab,
    Solved,
    decomposition,
    finite,
    grid_of,
    open_state,
    painted,
    pairs_of,
    path_of,
    problem_over,
    read_state,
    row_of,
    section_nodes,
    share_of,
    stiffened,
    ties_of,
    write_state,
)
from alignment.stages.units import Record, Section, Whole
from alignment.uncertainty import estimate_sigma
from storage.commit import records
from storage.volume import open_array, write_region


def survey(unit: Section, *, run_uri: str) -> Record:
    """Count a section's matches, by pair."""
    pairs = {}
    for pair in pairs_of(load(run_uri), unit.z):
        links = pair.links(1)
        used = links.weight > 0
        reach = np.hypot(*links.match)[used]
        pairs[str(pair.d)] = {
            "count": int(used.sum()),
            "typical": finite(pair.typical_variance()),
            "reach_px": float(reach.max(initial=0)),
        }
    return {"z": unit.z, "pairs": pairs}


def find_ties(_: Whole, *, run_uri: str) -> Record:
    """Find which sections matches tie, and how far matches reach."""
    run = load(run_uri)
    surveys = records.read_records(run_uri, "relax", "survey").values()
    pairs = [
        (record["z"], int(d), found)
        for record in surveys
        for d, found in record["pairs"].items()
        if found["count"]
    ]
    parts, tied = connected_parts([(z, d) for z, d, _ in pairs], run.shape[0])
    return {
        "grid": list(grid_of(run)),
        "parts": parts,
        "tied": tied,
        "farthest": max((d for _, d, _ in pairs), default=1),
        "reach_px": max((found["reach_px"] for *_, found in pairs), default=0.0),
    }


def gather_box(unit: Slab, *, run_uri: str) -> Record:
    """Write a box's share of the coarse mesh; record that of the energy and the gradient."""
    run = load(run_uri)
    cut = decomposition(run_uri)
    box = cut.boxes[unit.number]
    nodes = cut.neighbourhood(box.core)
    turns = history(unit.iteration, cut.colours, cut.colours) if unit.iteration else []
    share = gather(
        *(problem_over(run, nodes, unit.repairs), box, painted(run, nodes, turns)),
        *(run.config.relax, grid_spacing_px(run.config.match), cut),
        is_believed=not unit.iteration,
    )
    name = f"gather-{unit.iteration}-{unit.repairs}"
    write_state(run, f"{name}/right", unit.number, share.right)
    sheets = open_state(run, f"{name}/sheets")
    values = np.zeros(sheets.shape[1:], np.float32)
    nz, ny, nx = share.nodes.shape
    values[0, :nz, : ny - 1, : nx - 1] = share.condensed.stiffness
    values[1, :nz, :ny, :nx] = share.condensed.mass
    write_region(sheets, row_of(sheets, unit.number), values[None])
    array = open_state(run, f"{name}/links")
    links = np.zeros(array.shape[1:], np.float32)
    for (z, fixed), pair in share.condensed.links.items():
        links[z, z - fixed - 1, :, :ny, :nx] = pair
    write_region(array, row_of(array, unit.number), links[None])
    return {"energy": share.energy, "square": share.square}


def correct_all(unit: Slab, *, run_uri: str) -> Record:
    """Solve for the correction on the coarse mesh."""
    run = load(run_uri)
    cut = decomposition(run_uri)
    name = f"gather-{unit.iteration}-{unit.repairs}"
    step = correct((share_of(run, name, cut, box) for box in cut.boxes), run.config.relax, cut)
    write_state(run, path_of(Turn(unit.iteration, CORRECTION)), 0, step)
    return {"largest_px": float(np.abs(step).max())}


def sweep_box(unit: Slab, *, run_uri: str) -> Record:
    """Find the minimum over a box's nodes."""
    run = load(run_uri)
    cut = decomposition(run_uri)
    box = cut.boxes[unit.number]
    nodes = cut.neighbourhood(box.moved)
    turns = history(unit.iteration, unit.colour, cut.colours)
    u, minimum = sweep(
        *(problem_over(run, nodes, unit.repairs), box, painted(run, nodes, turns)),
        *(run.config.relax, grid_spacing_px(run.config.match)),
        reference=unit.reference,
        boxes=len(cut.boxes),
    )
    write_state(run, path_of(Turn(unit.iteration, unit.colour)), unit.number, u)
    return {"rounds": len(minimum.rounds), "steps": minimum.steps, "reason": minimum.reason}


def find_folds(unit: Solved, *, run_uri: str) -> Record:
    """Find the cells of a section that fold; write which are to be stiffer, how often."""
    run = load(run_uri)
    cut = decomposition(run_uri)
    z = unit.z
    turns = history(unit.iteration, cut.colours, cut.colours)
    push = painted(run, section_nodes(cut, z), turns).astype(np.float32)
    folding = folding_cells(push, run.config.relax.node_spacing_px)
    stiffer = stiffened(run, section_nodes(cut, z), unit.repairs) + cells_to_stiffen(folding)
    array = open_state(run, f"stiffer-{unit.repairs}")
    write_region(array, row_of(array, z), stiffer.astype(np.uint8))
    return {"cells": int(np.count_nonzero(folding))}


def sigma_box(unit: Slab, *, run_uri: str) -> Record:
    """Estimate sigma at the nodes of a box's core."""
    run = load(run_uri)
    cut = decomposition(run_uri)
    box = cut.boxes[unit.number]
    nodes = cut.neighbourhood(box.core)
    problem = problem_over(run, nodes, unit.repairs)
    spacing = grid_spacing_px(run.config.match)
    u = painted(run, nodes, history(unit.iteration, cut.colours, cut.colours))
    energy = StackEnergy(
        *(problem.links, nodes.shape, spacing, run.config.relax),
        stiffness=problem.stiffness,
        free=problem.free,
    )
    ties = ties_of(run_uri)
    first, last = nodes.start[0], nodes.stop[0]
    sigma = estimate_sigma(
        *(energy, u, spacing, ties["parts"][first:last]),
        [z - first for z in ties["tied"] if first <= z < last],
        origin=nodes.start,
    )
    z, y, x = box.core.within(nodes)
    write_state(run, "sigma", unit.number, sigma[z, y, x])
    return {}


def finish_section(unit: Solved, *, run_uri: str) -> Record:
    """Write a section's published field, its sigma, and the residuals of its matches."""
    run = load(run_uri)
    cut = decomposition(run_uri)
    turns = history(unit.iteration, cut.colours, cut.colours)
    spacing = run.config.relax.node_spacing_px

    def push(z: int) -> NDArray[np.float32]:
        return painted(run, section_nodes(cut, z), turns)[0].astype(np.float32)

    tied = ties_of(run_uri)["tied"]
    own = bridged(unit.z, push, tied)
    flipped = int(np.count_nonzero(folding_cells(own[None], spacing)))
    own = unfold(own, spacing)
    field = published(own, spacing)
    digest = inputs.write_row(open_array(run_uri, "fields"), unit.z, field)
    sigma = np.full(cut.grid[1:], np.nan, np.float32)
    here = section_nodes(cut, unit.z)
    for box in cut.boxes:
        common = box.core.meets(here)
        if common is not None:
            _, y, x = common.within(here)
            values = read_state(run, "sigma", box.number, box.core.shape)
            sigma[y, x] = values[common.within(box.core)][0]
    inputs.write_row(open_array(run_uri, "sigma"), unit.z, calibrated(sigma))
    match_spacing = grid_spacing_px(run.config.match)
    for pair in pairs_of(run, unit.z):
        links = pair.links(match_spacing)
        fixed = push(unit.z - pair.d).astype(np.float64)
        lengths = residual_lengths(links, own.astype(np.float64), fixed, spacing, match_spacing)
        inputs.write_row(open_array(run_uri, f"residuals/{pair.d}"), unit.z, lengths)
    return {"sha256": digest, "flipped_repaired": flipped}
