"""What the stages read of the run: bytes as they are decoded, and requests.

Chunks are decoded whole: a section of the aligned volume costs the whole depth of its chunks. The
first reading of the source counts as its pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil, prod
from typing import NamedTuple

from alignment.match import CHANNELS
from alignment.planning.counts import compared_grid, section_units
from alignment.planning.stack import Stack
from alignment.planning.work import patch_side_px
from alignment.rematch import single_level
from alignment.stages.correlations import halo_px
from alignment.stages.matched import BLOCK_NODES
from storage.grid import cut_grid
from storage.ome import level_shape


class Read(NamedTuple):
    """One kind of reading that a stage does."""

    path: str
    """Of the arrays, as `counts.ArrayPlan` names them; ``source`` for what comes from outside."""
    nbytes: int
    """Decoded, in all."""
    gets: int
    """Requests: an object that is read whole is one, a shard of which parts are read is two."""


def read_by(stage: str, stack: Stack) -> tuple[Read, ...]:
    """Return what a stage reads."""
    return tuple(READS[stage](stack)) if stage in READS else ()


def _plane(stack: Stack, path: str, mip: int, itemsize: int, times: int) -> Read:
    """Read whole sections at a mip."""
    chunk, shard = section_units(stack)
    shape = level_shape(stack.shape, mip)
    inner, outer = cut_grid(shape, chunk, shard)
    objects = prod(ceil(n / u) for n, u in zip(shape[1:], (outer or inner)[1:], strict=True))
    return Read(path, times * stack.px(mip) * itemsize, times * (objects + 1))


def _section(stack: Stack, mip: int, times: int) -> Read:
    return _plane(stack, "sections", mip, 1, times)


def _part(stack: Stack, path: str, mip: int, itemsize: int, side_px: float, times: int) -> Read:
    """Read parts of sections, `side_px` each way at a mip, that begin anywhere in a chunk."""
    inner, outer = cut_grid(level_shape(stack.shape, mip), *section_units(stack))
    shape = level_shape(stack.shape, mip)[1:]
    seen = prod(min((ceil(side_px / c) + 1) * c, n) for n, c in zip(shape, inner[1:], strict=True))
    objects = prod(
        min(ceil(side_px / u) + 1, ceil(n / u))
        for n, u in zip(shape, (outer or inner)[1:], strict=True)
    )
    gets = 1 + (2 if outer else 1) * objects
    return Read(path, round(times * seen * itemsize), gets * times)


def _masked(stack: Stack, times: int) -> Read:
    return _plane(stack, "valid", stack.config.masks.mip, 1, times)


def _ingest(stack: Stack) -> Iterator[Read]:
    nz = stack.shape[0]
    rows = ceil(stack.shape[1] / stack.config.volume.section_shard_px)
    yield Read("source", nz * stack.px(0), nz * rows)
    for mip in range(stack.section_mips - 1):
        yield _section(stack, mip, nz)


def _masks(stack: Stack) -> Iterator[Read]:
    yield _section(stack, stack.config.masks.mip, stack.shape[0])
    yield _section(stack, stack.likeness_mip, 2 * stack.pairs(1))
    yield _masked(stack, 2 * stack.pairs(1))


def _features(stack: Stack) -> Iterator[Read]:
    for mip in stack.config.match.mips:
        yield _section(stack, mip, stack.present)
        yield _masked(stack, stack.present)


def _coarse(stack: Stack) -> Iterator[Read]:
    # Two phases see both sections of every pair.
    times = 4 * stack.pairs(stack.config.coarse.neighbours)
    yield _section(stack, stack.coarse_mip, times)
    yield _masked(stack, times)


def _match(stack: Stack) -> Iterator[Read]:
    """Every block reads what it sees of both sections' features, at every level."""
    match = stack.config.match
    blocks = stack.match_pairs * stack.blocks + sum(stack.retried_blocks)
    rounds = [(match, level) for level in match.levels]
    rounds += [(single_level(match, level), level) for level in match.refine]
    for config, level in rounds:
        side = patch_side_px(stack, config, level.mip)
        yield _part(stack, "features", level.mip, 2, side, 2 * blocks)
        there = side * 2.0 ** (level.mip - stack.config.masks.mip)
        yield _part(stack, "valid", stack.config.masks.mip, 1, there, 2 * blocks)
    block = 4 * len(CHANNELS) * min(BLOCK_NODES**2, stack.match_nodes)
    guides = len(match.refine) * blocks * min(9, stack.blocks)
    yield Read("matches", guides * block, guides + len(match.refine) * blocks)
    looks = sum(stack.retry_pairs) * match.neighbours
    yield Read("matches", looks * block * stack.blocks, looks * (stack.blocks + 1))


def _filter(stack: Stack) -> Iterator[Read]:
    pairs = stack.match_pairs + stack.retried_pairs
    # A pair is judged with those that close a cycle with it: as many again.
    nbytes = 2 * pairs * stack.match_nodes * len(CHANNELS) * 4
    yield Read("matches", nbytes, 2 * pairs * (stack.blocks + 1))
    yield _plane(stack, "defects", stack.config.masks.mip, 1, pairs + stack.present)


def _relax(stack: Stack) -> Iterator[Read]:
    pairs = stack.match_pairs + stack.retried_pairs
    times = 1
    if stack.is_cut:
        # Survey and fields once each, a box whenever it is gathered or swept, with its overlaps.
        grown = stack.boxes.all_seen / (stack.shape[0] * stack.mesh_nodes)
        times = 2 + ceil((2 * stack.guess.sweeps + 2) * grown)
    nodes = times * pairs * stack.match_nodes
    yield Read("trusted", nodes * len(CHANNELS) * 4, 2 * times * pairs)
    yield Read("confidence", nodes * 4, 2 * times * pairs)
    yield _plane(stack, "defects", stack.config.masks.mip, 1, times * stack.shape[0])


def _render(stack: Stack) -> Iterator[Read]:
    layout = stack.config.volume
    inner, outer = cut_grid(stack.aligned_shape, layout.aligned_chunk, layout.aligned_shard)
    _, sy, sx = outer or inner
    shards = prod(ceil(n / s) for n, s in zip(stack.canvas, (sy, sx), strict=True))
    side = layout.section_chunk_px
    # A shard shows a part of a section that begins anywhere: one more chunk each way.
    seen = prod(
        min((ceil(s / side) + 1) * side, ceil(n / side) * side)
        for s, n in zip((sy, sx), stack.shape[1:], strict=True)
    )
    draws = stack.present * shards
    yield Read("sections", draws * seen, 3 * draws)
    yield Read("fields", draws * stack.mesh_nodes * 8, draws)
    if stack.config.render.masked != "keep":
        yield _masked(stack, draws)
    if stack.config.render.normalise != "none":
        yield _section(stack, stack.config.masks.mip, stack.present)
        yield _masked(stack, stack.present)


def _pyramid(stack: Stack) -> Iterator[Read]:
    nz, ny, nx = stack.config.volume.aligned_shard
    for mip in range(stack.own_levels, stack.levels - 1):
        shape = level_shape(stack.aligned_shape, mip)
        is_halved = 0 < mip <= stack.own_levels
        unit = (nz, ny >> mip, nx >> mip) if is_halved else (nz, ny, nx)
        objects = prod(ceil(n / u) for n, u in zip(shape, unit, strict=True))
        yield Read("aligned", prod(shape), 2 * objects)


def _qc(stack: Stack) -> Iterator[Read]:
    pairs, layout = stack.pairs(1), stack.config.volume
    inner, outer = cut_grid(stack.aligned_shape, layout.aligned_chunk, layout.aligned_shard)
    depth, cy, _ = inner
    *_, sx = outer or inner
    ny, nx = stack.canvas
    shape, chunk = compared_grid(stack)
    side, halo = stack.config.qc.chunk_px, halo_px(stack.config.qc.smoothing_px)
    units = tuple(ceil(n / c) for n, c in zip(shape, chunk, strict=True))
    # A unit sees its own part and a halo, and of the section before its first one as much again.
    grown = [
        min(n + (k - 1) * 2 * ceil(halo / side) * side, k * n)
        for n, k in zip((ny, nx), units[1:], strict=True)
    ]
    before, tiles = units[0] - 1, prod(units[1:])
    whole = _section(stack, 0, pairs + 1 + before)
    yield Read("sections", (pairs + 1 + before) * prod(grown), whole.gets + tiles * pairs)
    layers = stack.shape[0] + before * depth
    flat = prod(ceil(n / u) for n, u in zip((ny, nx), (outer or inner)[1:], strict=True))
    shards = (units[0] + before) * flat
    yield Read("aligned", layers * prod(grown), 2 * shards + tiles * units[0])
    # The re-slice: one row of every section.
    nz = stack.shape[0]
    yield Read("sections", nz * nx * min(layout.section_chunk_px, ny), 2 * nz * ceil(nx / sx))
    yield Read("aligned", nz * nx * cy, 2 * ceil(nz / depth) * ceil(nx / sx))
    yield Read("fields", 3 * nz * stack.mesh_nodes * 8, 3 * nz)
    yield Read("residuals", stack.match_pairs * stack.match_nodes * 4, stack.match_pairs)


READS: dict[str, Callable[[Stack], Iterator[Read]]] = {
    "ingest": _ingest,
    "masks": _masks,
    "features": _features,
    "coarse": _coarse,
    "match": _match,
    "filter": _filter,
    "relax": _relax,
    "render": _render,
    "pyramid": _pyramid,
    "qc": _qc,
}
