"""Stage "match": where the tissue of each section lies in its neighbours, node by node.

A first round searches coarse to fine; each further one looks again, with larger templates, at
sections warped by the smoothed answer of the round before.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from alignment.config import MatchConfig
from alignment.match import CHANNELS, Patch, grid_shape, grid_spacing_px, match_block
from alignment.patches import patch_box, place_patch
from alignment.rematch import match_again, reach_nodes, single_level, smooth_guide
from alignment.runs import Run, load
from alignment.stages import inputs
from alignment.stages.units import NodeBlock, Phase, Record, Ref, Section
from storage.volume import create_array, open_array, read_region, write_region

BLOCK_NODES = 64
"""Side of a block of nodes: one object of `matches/`, one task of a few seconds."""


def phases(run: Run) -> Iterator[Phase]:
    """Yield one phase a round, over blocks of nodes of all pairs."""
    for k in range(len(run.config.match.refine) + 1):
        work = partial(refine, k=k) if k else search
        reads = partial(reads_block, k=k)
        units = _blocks(run, round_path(run.config.match, k))
        yield Phase(f"round{k}", units, work, reads, ("match",))


def reads_block(unit: NodeBlock, *, run_uri: str, k: int) -> list[Ref]:
    """Return both sections' features and valid parts, their places, and the round before."""
    run = load(run_uri)
    config = run.config.match
    both = (unit.z - unit.d, unit.z)
    levels = [config.refine[k - 1]] if k else config.levels
    features = [
        Ref("features", f"mip{level.mip}", Section(z).label) for level in levels for z in both
    ]
    before = _pair_blocks(run, unit.z, unit.d, k - 1, around=unit) if k else []
    return [*features, *map(inputs.masked, both), inputs.PLACED, *before]


def last_round(run: Run, z: int, d: int) -> list[Ref]:
    """Return the final matches of a pair, as inputs."""
    return _pair_blocks(run, z, d, len(run.config.match.refine))


def _pair_blocks(run: Run, z: int, d: int, k: int, *, around: NodeBlock | None = None) -> list[Ref]:
    """Return the blocks of a pair in round k; only those that `_guide` reads around a block."""
    ny, nx = _grid(run)
    reach = reach_nodes(run.config.match.refine_smoothing_nodes)
    i0, j0, i1, j1 = (around or NodeBlock(z, d, 0, 0, ny, nx))[2:]
    return [
        Ref("match", f"round{k}", NodeBlock(z, d, i, j, 0, 0).label)
        for i in range(0, ny, BLOCK_NODES)
        for j in range(0, nx, BLOCK_NODES)
        if i < i1 + reach and i + BLOCK_NODES > i0 - reach
        if j < j1 + reach and j + BLOCK_NODES > j0 - reach
    ]


def round_path(config: MatchConfig, k: int) -> str:
    """Return where round k writes: `matches` for the last, `rounds/k` for those before."""
    return "matches" if k == len(config.refine) else f"rounds/{k}"


def _blocks(run: Run, path: str) -> list[NodeBlock]:
    """Create the arrays of a round, one for each distance d, and return its units."""
    ny, nx = grid_shape(inputs.coarse(run.uri).canvas, run.config.match)
    pairs = inputs.match_pairs(run)
    for d in sorted({d for _, d in pairs}):
        create_array(
            run.uri,
            f"{path}/{d}",
            shape=(run.shape[0], len(CHANNELS), ny, nx),
            chunk=(1, len(CHANNELS), min(BLOCK_NODES, ny), min(BLOCK_NODES, nx)),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=("z", "channel", "y", "x"),
            attributes={
                "channels": list(CHANNELS),
                "node_spacing_px": grid_spacing_px(run.config.match),
                "unit": "px at mip 0",
            },
        )
    return [
        NodeBlock(z, d, i, j, min(i + BLOCK_NODES, ny), min(j + BLOCK_NODES, nx))
        for z, d in pairs
        for i in range(0, ny, BLOCK_NODES)
        for j in range(0, nx, BLOCK_NODES)
    ]


def search(unit: NodeBlock, *, run_uri: str) -> Record:
    """Match one block of nodes of one pair, coarse to fine."""
    run = load(run_uri)
    config = run.config.match
    fixed, moving = (
        {level.mip: _patch(run, z, level.mip, unit, config) for level in config.levels}
        for z in (unit.z - unit.d, unit.z)
    )
    matches = match_block(fixed, moving, _box(unit), _grid(run), config)
    return _write(run, round_path(config, 0), unit, matches, [*fixed.values(), *moving.values()])


def refine(unit: NodeBlock, *, run_uri: str, k: int) -> Record:
    """Match one block again, against the fixed section as round k - 1 warps it."""
    run = load(run_uri)
    config = run.config.match
    level = config.refine[k - 1]
    once = single_level(config, level)
    guide, first_node = _guide(run, unit, round_path(config, k - 1))
    reach = int(np.abs(guide).max(initial=0)) + 1
    fixed = _patch(run, unit.z - unit.d, level.mip, unit, once, margin_px=reach)
    moving = _patch(run, unit.z, level.mip, unit, once)
    whole = match_again(fixed, moving, guide, first_node, _box(unit), _grid(run), once)
    return _write(run, round_path(config, k), unit, whole, [fixed, moving])


def _guide(run: Run, unit: NodeBlock, path: str) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Return the smoothed answer of a round around a block, and its first node."""
    sigma = run.config.match.refine_smoothing_nodes
    reach = reach_nodes(sigma)
    ny, nx = _grid(run)
    i0, j0 = max(unit.i0 - reach, 0), max(unit.j0 - reach, 0)
    place = np.s_[
        unit.z : unit.z + 1, :, i0 : min(unit.i1 + reach, ny), j0 : min(unit.j1 + reach, nx)
    ]
    found = read_region(open_array(run.uri, f"{path}/{unit.d}"), place)[0]
    spacing = grid_spacing_px(run.config.match)
    return smooth_guide(found, sigma, spacing_px=spacing), (i0, j0)


def _grid(run: Run) -> tuple[int, int]:
    return grid_shape(inputs.coarse(run.uri).canvas, run.config.match)


def _box(unit: NodeBlock) -> tuple[tuple[int, int], tuple[int, int]]:
    return (unit.i0, unit.j0), (unit.i1, unit.j1)


def _write(
    run: Run, path: str, unit: NodeBlock, matches: NDArray[np.float32], read: list[Patch]
) -> Record:
    place = np.s_[unit.z : unit.z + 1, :, unit.i0 : unit.i1, unit.j0 : unit.j1]
    return {
        "matched": int(np.isfinite(matches[0]).sum()),
        "nodes": int(matches[0].size),
        "sha256": write_region(open_array(run.uri, f"{path}/{unit.d}"), place, matches[np.newaxis]),
        "bytes_read": sum(patch.features.nbytes for patch in read),
        "bytes_written": int(matches.nbytes),
    }


def _patch(
    run: Run, z: int, mip: int, unit: NodeBlock, config: MatchConfig, *, margin_px: int = 0
) -> Patch:
    """Return the part of a section's features around a block of nodes, in the common frame."""
    placed = inputs.coarse(run.uri)
    box = patch_box(_box(unit), placed.canvas, config, mip, margin_px=margin_px)
    features = inputs.read_row(open_array(run.uri, f"features/{mip}"), z)
    return place_patch(features, inputs.valid(run, z, mip), placed.matrices[z], *box, mip)
