"""Stage "match": where the tissue of each section lies in its neighbours, node by node."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from alignment.fields import affine_to_mip
from alignment.match import CHANNELS, Patch, grid_shape, grid_spacing_px, halo_px, match_block
from alignment.render import warp_affine
from alignment.runs import Run, load
from alignment.stages import inputs
from alignment.stages.units import NodeBlock, Phase, Record
from storage.volume import create_array, open_array, write_region

BLOCK_NODES = 64
"""Side of a block of nodes: one object of `matches/`, one task of a few seconds."""


def phases(run: Run) -> Iterator[Phase]:
    """Yield one phase over blocks of nodes of all pairs."""
    ny, nx = grid_shape(inputs.coarse(run.uri).canvas, run.config.match)
    pairs = inputs.match_pairs(run)
    for d in sorted({d for _, d in pairs}):
        create_array(
            run.uri,
            f"matches/{d}",
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
    units = [
        NodeBlock(z, d, i, j, min(i + BLOCK_NODES, ny), min(j + BLOCK_NODES, nx))
        for z, d in pairs
        for i in range(0, ny, BLOCK_NODES)
        for j in range(0, nx, BLOCK_NODES)
    ]
    yield Phase("pairs", units, match_nodes)


def match_nodes(unit: NodeBlock, *, run_uri: str) -> Record:
    """Match one block of nodes of one pair."""
    run = load(run_uri)
    config = run.config.match
    fixed, moving = (
        {level.mip: patch(run, z, level.mip, unit) for level in config.levels}
        for z in (unit.z - unit.d, unit.z)
    )
    matches = match_block(
        fixed,
        moving,
        ((unit.i0, unit.j0), (unit.i1, unit.j1)),
        grid_shape(inputs.coarse(run_uri).canvas, config),
        config,
    )
    place = np.s_[unit.z : unit.z + 1, :, unit.i0 : unit.i1, unit.j0 : unit.j1]
    digest = write_region(open_array(run_uri, f"matches/{unit.d}"), place, matches[np.newaxis])
    return {
        "matched": int(np.isfinite(matches[0]).sum()),
        "nodes": int(matches[0].size),
        "sha256": digest,
        "bytes_read": sum(p.features.nbytes for p in (*fixed.values(), *moving.values())),
        "bytes_written": int(matches.nbytes),
    }


def patch(run: Run, z: int, mip: int, unit: NodeBlock) -> Patch:
    """Return the part of a section's features around a block of nodes, in the common frame."""
    config = run.config.match
    spacing, halo, scale = grid_spacing_px(config), halo_px(config), 2**mip
    placed = inputs.coarse(run.uri)
    start, shape = [], []
    for first, last, side in zip(
        (unit.i0, unit.j0), (unit.i1, unit.j1), placed.canvas, strict=True
    ):
        low = (first * spacing - halo) // scale
        high = -((-min((last - 1) * spacing, side) - halo) // scale)
        start.append(low)
        shape.append(high - low + 1)
    matrix = affine_to_mip(placed.matrices[z], mip)
    features = inputs.read_row(open_array(run.uri, f"features/{mip}"), z)
    valid = inputs.valid(run, z, mip)
    where = {"start_yx": (start[0], start[1]), "shape_yx": (shape[0], shape[1])}
    warped = warp_affine(
        features.astype(np.float32), (0, 0), matrix, interpolation="cubic", **where
    )
    covered = warp_affine(valid.astype(np.float32), (0, 0), matrix, interpolation="linear", **where)
    seen = covered > 0.99
    return Patch(np.where(seen, warped, np.float32(0)), seen, (start[0], start[1]), mip)
