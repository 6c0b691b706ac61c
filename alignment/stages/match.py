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
from alignment.errors import DataError
from alignment.filter import reject_outliers
from alignment.holes import boxes_around, untied_nodes
from alignment.match import CHANNELS, Patch, grid_shape, grid_spacing_px, match_block
from alignment.ncc import engine_name
from alignment.patches import patch_box, place_patch, seen_box
from alignment.rematch import match_again, reach_nodes, single_level, smooth_guide
from alignment.runs import Run, load
from alignment.stages import inputs
from alignment.stages.matched import (
    BLOCK_NODES,
    array_path,
    block_refs,
    distance,
    holes_phase,
    holes_refs,
    pair_refs,
    read_blocks,
    read_pair,
    retried_boxes,
    retried_pairs,
    retries,
    round_phase,
)
from alignment.stages.units import NodeBlock, Phase, Record, Ref, Section
from storage.volume import create_array, open_array, read_region, write_region


def phases(run: Run) -> Iterator[Phase]:
    """Yield one phase a round, over blocks of nodes of all pairs; then what is to be retried.

    A node that no neighbour ties is tried with farther sections, the nearest first: a phase finds
    the holes of each section, and the rounds follow for the blocks around them.
    """
    ny, nx = _grid(run)
    pairs = inputs.match_pairs(run)
    if not pairs:
        raise DataError(
            f"of {run.shape[0]} sections, {len(inputs.present(run))} show enough tissue to be "
            "matched, and it takes 2; look at `valid` and `defects`, or lower "
            f"masks.min_valid_fraction={run.config.masks.min_valid_fraction:g}"
        )
    blocks = [
        NodeBlock(z, d, i, j, min(i + BLOCK_NODES, ny), min(j + BLOCK_NODES, nx))
        for z, d in pairs
        if run.owns(z)
        for i in range(0, ny, BLOCK_NODES)
        for j in range(0, nx, BLOCK_NODES)
    ]
    yield from _rounds(run, blocks)
    for retry in retries(run):
        sections = [Section(z) for z, d in _neighbours(run, retry) if d]
        look = partial(find_holes, retry=retry)
        reads = partial(reads_section, retry=retry)
        yield Phase(holes_phase(retry), sections, look, reads, ("match", "filter"), local=True)
        blocks = [
            NodeBlock(z, d, i, j, min(i + BLOCK_NODES, ny), min(j + BLOCK_NODES, nx))
            for z, d in _neighbours(run, retry)
            for i, j in (retried_boxes(run, z, retry) if d else ())
        ]
        if blocks:
            yield from _rounds(run, blocks, retry=retry)


def _rounds(run: Run, blocks: list[NodeBlock], *, retry: int = 0) -> Iterator[Phase]:
    for k in range(len(run.config.match.refine) + 1):
        _create_arrays(run, array_path(run, k), {block.d for block in blocks})
        work = partial(refine, k=k, retry=retry) if k else partial(search, retry=retry)
        reads = partial(reads_block, k=k, retry=retry)
        yield Phase(round_phase(k, retry=retry), blocks, work, reads, ("match",), local=True)


def _neighbours(run: Run, k: int) -> list[tuple[int, int]]:
    """Return (z, d) of each section that is there and its k-th earlier one; d is 0 if none is.

    Of a slab only its own: the others may not have looked for their holes yet.
    """
    return [(z, distance(run, z, k)) for z in inputs.present(run) if run.owns(z)]


def reads_block(unit: NodeBlock, *, run_uri: str, k: int, retry: int = 0) -> list[Ref | str]:
    """Return both sections' features and valid parts, their places, and the round before.

    And which engine matches: the compiled one and numpy differ by rounding.
    """
    run = load(run_uri)
    config = run.config.match
    both = (unit.z - unit.d, unit.z)
    levels = [config.refine[k - 1]] if k else config.levels
    features = [
        Ref("features", f"mip{level.mip}", Section(z).label) for level in levels for z in both
    ]
    reach = reach_nodes(config.refine_smoothing_nodes)
    around = (unit.i0 - reach, unit.j0 - reach, unit.i1 + reach, unit.j1 + reach)
    before = block_refs(run, unit.z, unit.d, k - 1, around=around, retry=retry) if k else []
    holes = [Ref("match", holes_phase(retry), Section(unit.z).label)] if retry else []
    seen = [*features, *map(inputs.masked, both), *before, *holes]
    return [*seen, *inputs.place_facts(run_uri, *both), f"engine {engine_name()}"]


def reads_section(unit: Section, *, run_uri: str, retry: int) -> list[Ref | str]:
    """Return the section's matches so far, where it and its next neighbour show tissue."""
    run = load(run_uri)
    z = unit.z
    matched = [ref for d, k in _matched(run, z, retry) for ref in pair_refs(run, z, d, retry=k)]
    both = (z, z - distance(run, z, retry))
    seen = [*matched, *holes_refs(run, z, below=retry), *map(inputs.masked, both)]
    return [*seen, *inputs.place_facts(run_uri, *both)]


def _matched(run: Run, z: int, below: int) -> list[tuple[int, int]]:
    """Return (d, retry) of what section z was matched with nearby before its retry `below`.

    What only a long-range match ties is better tied to a nearer section, too.
    """
    anyway = [(d, 0) for at, d in inputs.pairs(run, run.config.match.neighbours) if at == z]
    return [*anyway, *retried_pairs(run, z, below=below).items()]


def _create_arrays(run: Run, path: str, distances: set[int]) -> None:
    ny, nx = _grid(run)
    for d in sorted(distances):
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


def find_holes(unit: Section, *, run_uri: str, retry: int) -> Record:
    """Record where tissue of a section is tied to nothing, though its next neighbour shows some."""
    run = load(run_uri)
    z, spacing = unit.z, grid_spacing_px(run.config.match)
    trusted = [
        reject_outliers(
            read_pair(run, z, d, retry=k), spacing_px=spacing, config=run.config.filter
        )[0]
        for d, k in _matched(run, z, retry)
    ]
    tissue = inputs.tissue_at_nodes(run, z, _grid(run), spacing)
    tissue &= inputs.tissue_at_nodes(run, z - distance(run, z, retry), _grid(run), spacing)
    untied = untied_nodes(trusted, tissue, run.config.filter.min_component_nodes)
    boxes = boxes_around(untied, BLOCK_NODES)
    return {
        "untied": int(untied.sum()),
        "boxes": [[*block, *box] for block, box in sorted(boxes.items())],
        "bytes_read": sum(matches.nbytes for matches in trusted),
    }


def _part(run: Run, unit: NodeBlock, retry: int) -> NodeBlock:
    """Return the nodes of a block to match: all of them, or in a retry the box round its holes."""
    if not retry:
        return unit
    return NodeBlock(unit.z, unit.d, *retried_boxes(run, unit.z, retry)[unit.i0, unit.j0])


def search(unit: NodeBlock, *, run_uri: str, retry: int = 0) -> Record:
    """Match one block of nodes of one pair, coarse to fine."""
    run = load(run_uri)
    config = run.config.match
    part = _part(run, unit, retry)
    fixed, moving = (
        {level.mip: _patch(run, z, level.mip, part, config) for level in config.levels}
        for z in (unit.z - unit.d, unit.z)
    )
    matches = match_block(fixed, moving, _box(part), _grid(run), config)
    read = [*fixed.values(), *moving.values()]
    return _write(run, array_path(run, 0), unit, part, matches, read)


def refine(unit: NodeBlock, *, run_uri: str, k: int, retry: int = 0) -> Record:
    """Match one block again, against the fixed section as round k - 1 warps it."""
    run = load(run_uri)
    config = run.config.match
    part = _part(run, unit, retry)
    level = config.refine[k - 1]
    once = single_level(config, level)
    guide, first_node = _guide(run, part, k - 1, retry)
    reach = int(np.abs(guide).max(initial=0)) + 1
    fixed = _patch(run, unit.z - unit.d, level.mip, part, once, margin_px=reach)
    moving = _patch(run, unit.z, level.mip, part, once)
    whole = match_again(fixed, moving, guide, first_node, _box(part), _grid(run), once)
    return _write(run, array_path(run, k), unit, part, whole, [fixed, moving])


def _guide(
    run: Run, unit: NodeBlock, k: int, retry: int
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Return the smoothed answer of round k around a block, and its first node."""
    sigma = run.config.match.refine_smoothing_nodes
    reach = reach_nodes(sigma)
    ny, nx = _grid(run)
    i0, j0 = max(unit.i0 - reach, 0), max(unit.j0 - reach, 0)
    box = (i0, j0, min(unit.i1 + reach, ny), min(unit.j1 + reach, nx))
    found = read_blocks(run, array_path(run, k), unit.z, unit.d, box, retry=retry)
    spacing = grid_spacing_px(run.config.match)
    return smooth_guide(found, sigma, spacing_px=spacing), (i0, j0)


def _grid(run: Run) -> tuple[int, int]:
    return grid_shape(inputs.coarse(run.uri).canvas, run.config.match)


def _box(unit: NodeBlock) -> tuple[tuple[int, int], tuple[int, int]]:
    return (unit.i0, unit.j0), (unit.i1, unit.j1)


def _write(
    run: Run,
    path: str,
    unit: NodeBlock,
    part: NodeBlock,
    matches: NDArray[np.float32],
    read: list[Patch],
) -> Record:
    """Write a block, whose `part` was matched."""
    place = np.s_[unit.z : unit.z + 1, :, unit.i0 : unit.i1, unit.j0 : unit.j1]
    block = np.full((1, len(CHANNELS), unit.i1 - unit.i0, unit.j1 - unit.j0), np.nan, np.float32)
    inner = np.s_[part.i0 - unit.i0 : part.i1 - unit.i0, part.j0 - unit.j0 : part.j1 - unit.j0]
    block[0, :, *inner] = matches
    return {
        "matched": int(np.isfinite(matches[0]).sum()),
        "nodes": int(matches[0].size),
        "sha256": write_region(open_array(run.uri, f"{path}/{unit.d}"), place, block),
        "bytes_read": sum(patch.features.nbytes for patch in read),
        "bytes_written": int(block.nbytes),
    }


def _patch(
    run: Run, z: int, mip: int, unit: NodeBlock, config: MatchConfig, *, margin_px: int = 0
) -> Patch:
    """Return the part of a section's features around a block of nodes, in the common frame."""
    placed = inputs.coarse(run.uri)
    matrix, (_, *section_yx) = placed.matrices[z], run.shape_at(mip)
    start, shape = patch_box(_box(unit), placed.canvas, config, mip, margin_px=margin_px)
    (y, x), (ny, nx) = seen_box(matrix, start, shape, mip, (section_yx[0], section_yx[1]))
    if not ny:
        return Patch(np.zeros(shape, np.float32), np.zeros(shape, np.bool_), start, mip)
    part = np.s_[z : z + 1, y : y + ny, x : x + nx]
    features = read_region(open_array(run.uri, f"features/{mip}"), part)[0]
    valid = inputs.valid_part(run, z, mip, (y, x), (ny, nx))
    return place_patch(features, valid, matrix, start, shape, mip, origin_yx=(y, x))
