"""What the cost of each stage is proportional to: work, and the memory of one unit.

Work times a measured rate is time (`alignment.planning.rates`). Memory is counted in bytes as the
code allocates them; a measured factor beside it, near 1, takes in what the libraries add.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod

from alignment.config import MatchConfig, MatchLevel, PipelineConfig
from alignment.match import CHANNELS, grid_spacing_px, halo_px
from alignment.planning.counts import compared_grid
from alignment.planning.networks import computed_px, gflop_per_mpx, tile_bytes
from alignment.planning.stack import Guess, Stack
from alignment.rematch import single_level
from alignment.stages.correlations import halo_px as halo_px_of_blur
from alignment.stages.matched import BLOCK_NODES
from storage.grid import ZYX, cut_grid
from storage.ome import level_shape

NODE_BYTES = 420
"""That a worker needs to relax a node: its matches, the state of the solver, and the levels of
multigrid; measured on 0.3 and 1 million nodes with two matches each."""
SHARD_COPIES = 4
"""A shard that is written: its voxels, and as large because raw EM hardly compresses, its chunks,
these in one piece, and in the order that their content decides (`storage.shards`)."""
PROCESS_BYTES = 95_000_000
"""A process that has only imported the stages."""
WORK_UNITS = {
    "ingest": "Mpx of all levels",
    "masks": "Mpx of the sections and pairs that are looked at",
    "features": "Mpx of all levels; of a network, `network_gflop`",
    "coarse": "Mpx of the pairs that are compared",
    "match": "Mpx of search windows",
    "filter": "1,000 matches",
    "relax": "1,000 nodes",
    "render": "Mpx",
    "pyramid": "Mpx",
    "qc": "Mpx of pairs",
    "publish": "-",
}
"""What `work_of` counts, by stage."""


def work_of(stage: str, stack: Stack) -> float:
    """Return how much a stage has to do, in the stage's own unit (`WORK_UNITS`)."""
    return WORK[stage](stack) if stage in WORK else 0.0


def memory_of(stage: str, stack: Stack) -> float:
    """Return what the largest unit of a stage allocates, bytes."""
    return MEMORY[stage](stack) if stage in MEMORY else 0.0


def _all_levels(stack: Stack) -> float:
    return stack.shape[0] * sum(stack.px(mip) for mip in range(stack.section_mips)) / 1e6


def _masks(stack: Stack) -> float:
    seen = stack.shape[0] * stack.px(stack.config.masks.mip)
    return (seen + 2 * stack.pairs(1) * stack.px(stack.likeness_mip)) / 1e6


def _features(stack: Stack) -> float:
    return stack.present * sum(stack.px(mip) for mip in stack.config.match.mips) / 1e6


def network_gflop(stack: Stack) -> float:
    """Return 1e9 operations of the network that makes a stack's features; 0 without one."""
    if stack.network is None:
        return 0.0
    shapes = [stack.run.shape_at(mip)[1:] for mip in stack.config.match.mips]
    px = stack.present * sum(computed_px(shape, stack.network) for shape in shapes)
    return px / 1e6 * gflop_per_mpx(stack.network)


def marking_gflop(stack: Stack) -> float:
    """Return 1e9 operations of the network that marks a stack's defects; 0 without one."""
    return 0.0 if stack.marking is None else stack.shape[0] * stack.marking.gflop


def _coarse(stack: Stack) -> float:
    return stack.pairs(stack.config.coarse.neighbours) * stack.px(stack.coarse_mip) / 1e6


def _windows(stack: Stack, level: MatchLevel) -> float:
    """Return the pixels of the windows that one pair is searched in at a level."""
    nodes = stack.canvas_px / (level.node_spacing_px << level.mip) ** 2
    return nodes * (level.template_px + 2 * level.search_radius_px) ** 2


def _match(stack: Stack) -> float:
    pairs = stack.match_pairs + sum(stack.retried_blocks) / stack.blocks
    match = stack.config.match
    return pairs * sum(_windows(stack, level) for level in (*match.levels, *match.refine)) / 1e6


def _matches(stack: Stack) -> float:
    return (stack.match_pairs + stack.retried_pairs) * stack.match_nodes / 1e3


def _nodes(stack: Stack) -> float:
    nodes = stack.shape[0] * stack.mesh_nodes / 1e3
    if not stack.is_cut:
        return nodes
    # A sweep solves for the boxes with their overlaps; a solve at once is about one of them.
    return stack.boxes.all_moved * stack.guess.sweeps / 1e3


def _rendered(stack: Stack) -> float:
    own = sum(prod(level_shape(stack.aligned_shape, mip)) for mip in range(stack.own_levels + 1))
    return own / 1e6


def _halved(stack: Stack) -> float:
    rest = range(stack.own_levels + 1, stack.levels)
    return sum(prod(level_shape(stack.aligned_shape, mip)) for mip in rest) / 1e6


def _compared(stack: Stack) -> float:
    return 2 * stack.pairs(1) * stack.canvas_px / 1e6


WORK: dict[str, Callable[[Stack], float]] = {
    "ingest": _all_levels,
    "masks": _masks,
    "features": _features,
    "coarse": _coarse,
    "match": _match,
    "filter": _matches,
    "relax": _nodes,
    "render": _rendered,
    "pyramid": _halved,
    "qc": _compared,
}


def _band(stack: Stack) -> float:
    """A row of shards as it comes, and one shard on its way out."""
    _, ny, nx = stack.shape
    side = stack.config.volume.section_shard_px
    return 2 * min(side, ny) * nx + (SHARD_COPIES + 2) * min(side, ny) * min(side, nx)


def _examined(stack: Stack) -> float:
    """A section with its blurs, labels, distances and network; or two that are compared."""
    network = 0 if stack.marking is None else stack.marking.working_bytes
    return max(40 * stack.px(stack.config.masks.mip) + network, 40 * stack.px(stack.likeness_mip))


def _normalised(stack: Stack) -> float:
    """Eleven float32 images of the section: weights, means, bands and their blurs.

    A network goes over the section in tiles: the section, filled in and as it comes out, and what
    the engine's feature maps of a tile.
    """
    finest = min(stack.config.match.mips)
    px = stack.px(finest)
    if stack.network is None:
        return 45 * px
    return 24 * px + tile_bytes(stack.run.shape_at(finest)[1:], stack.network)


def _pair(stack: Stack) -> float:
    """Two sections, their transforms, and the images that they are turned into."""
    return 100 * stack.px(stack.coarse_mip)


def _block(stack: Stack) -> float:
    """What a block of nodes sees of two sections, with its masks, warped and searched."""
    match = stack.config.match
    searched = sum(patch_side_px(stack, match, level.mip) ** 2 for level in match.levels)
    again = [
        patch_side_px(stack, single_level(match, level), level.mip, margin=level.search_radius_px)
        ** 2
        for level in match.refine
    ]
    # A round that warps a patch holds it with its places, in float64, and the engine's spectra.
    return max(48 * searched, 88 * max(again, default=0.0))


def patch_side_px(stack: Stack, config: MatchConfig, mip: int, *, margin: int = 0) -> float:
    """Return the side of a patch round a block of nodes, px at `mip`."""
    spacing, halo = grid_spacing_px(config), 2 * (halo_px(config) + margin)
    sides = (min(BLOCK_NODES * spacing, n) + halo for n in stack.canvas)
    return prod(side / 2**mip for side in sides) ** 0.5


def _judged(stack: Stack) -> float:
    """All matches of a section and of the pairs that close cycles; distances to damage."""
    kept = stack.config.match.neighbours + len(stack.retries) + bool(stack.far_pairs)
    cycles = kept * (kept - 1) // 2
    nodes = (3 * kept + cycles) * stack.match_nodes * len(CHANNELS) * 4
    return nodes + 20 * (kept + 1) * stack.px(stack.config.masks.mip)


def _solved(stack: Stack) -> float:
    """The matches, the solver's state and its levels, for the largest box or the whole stack."""
    if not stack.is_cut:
        return NODE_BYTES * stack.shape[0] * stack.mesh_nodes
    # The coarse correction is for the whole stack at once.
    return NODE_BYTES * max(prod(stack.boxes.seen), prod(stack.boxes.corrected))


def _shard(stack: Stack) -> float:
    """The shard, what writing it takes, and one section at a time.

    Of the section, its field, and the part that the shard shows: as it came, drawn, and with what
    tells data from no data.
    """
    layout = stack.config.volume
    chunk, shard = cut_grid(stack.aligned_shape, layout.aligned_chunk, layout.aligned_shard)
    nz, ny, nx = shard or chunk
    nodes = prod(ceil(n / stack.config.relax.node_spacing_px) + 1 for n in stack.canvas)
    return SHARD_COPIES * nz * ny * nx + 4 * ny * nx + 3 * 8 * nodes


def render_bytes(shape: ZYX, config: PipelineConfig) -> int:
    """Return the peak memory of a process that renders a shard of a volume, without Dask."""
    ny, nx = shape[1:]
    return round(PROCESS_BYTES + _shard(Stack(shape, config, Guess(canvas=(ny, nx)))))


def _coarser_shard(stack: Stack) -> float:
    """The four shards that a shard is made of, it, and what writing it takes."""
    shard = prod(min(n, s) for n, s in zip(stack.aligned_shape, _layout_shard(stack), strict=True))
    return (4 + SHARD_COPIES) * shard if _halved(stack) else 0.0


def _layout_shard(stack: Stack) -> tuple[int, ...]:
    return stack.config.volume.aligned_shard


def _columns(stack: Stack) -> float:
    """What a shard shows, with a halo, and two of its sections smoothed; or all of the report."""
    shape, chunk = compared_grid(stack)
    side, halo = stack.config.qc.chunk_px, halo_px_of_blur(stack.config.qc.smoothing_px)
    seen = prod(
        min((c + 2 * ceil(halo / side)) * side, n)
        for c, n in zip(chunk[1:], stack.canvas, strict=True)
    )
    # As it is read, and the chunks that it is made of.
    block = 2 * chunk[0] * seen + 40 * seen
    # Before and after, the part that both know, and their percentiles in float64; residuals.
    told = 36 * prod(shape) + 28 * stack.pairs(1) * stack.match_nodes
    return max(block, told)


MEMORY: dict[str, Callable[[Stack], float]] = {
    "ingest": _band,
    "masks": _examined,
    "features": _normalised,
    "coarse": _pair,
    "match": _block,
    "filter": _judged,
    "relax": _solved,
    "render": _shard,
    "pyramid": _coarser_shard,
    "qc": _columns,
}
