"""What a run would read, write and need, before anything runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil, prod
from typing import Any

from alignment.config import PipelineConfig
from alignment.decomposition import Decomposition, decompose
from alignment.errors import ConfigError
from alignment.fields import node_grid
from alignment.match import CHANNELS, grid_spacing_px
from alignment.pyramid import levels_of_shard
from alignment.runs import DEFAULT_RESOLUTION_NM, pyramid_levels
from storage.grid import ZYX, cut_grid
from storage.ome import level_shape
from storage.sections import open_source

MAX_UNITS_PER_STAGE = 100_000
"""A Dask graph beyond this stalls its scheduler; slabs of sections come first."""
NODE_BYTES = 420
"""That a worker needs to relax a node: its matches, the state of the solver, and the levels of
multigrid; measured on 0.3 and 1 million nodes with two matches each."""
SWEEPS = 6
"""Rounds over all boxes that relaxing a large stack is expected to take."""
CORE_S_PER_MPX = {
    "ingest": 0.12,
    "masks": 0.12,
    "features": 0.24,
    "coarse": 1.5,
    "match": 4.5,
    "filter": 0.12,
    "relax": 0.14,
    "render": 0.10,
    "pyramid": 0.02,
    "qc": 0.64,
}
"""Core-seconds per million source pixels: wall time of each stage of ``make demo`` (24 sections of
1024 x 1024, default settings) times the workers that it kept busy."""
PROCESS_BYTES = 95_000_000
"""A worker that has only imported the stages."""
SHARD_COPIES = 4
"""A shard that is written: its voxels, and as large because raw EM hardly compresses, its chunks,
these in one piece, and in the order that their content decides (`storage.shards`)."""


@dataclass(frozen=True)
class StagePlan:
    """One stage of the plan; counts of units and objects, bytes uncompressed."""

    stage: str
    units: int
    objects: int
    bytes_written: int
    core_s: float


@dataclass(frozen=True)
class Plan:
    """The whole plan; `as_dict` is what ``petalign plan --json`` prints."""

    source: str
    shape: ZYX
    resolution_nm: tuple[float, ...]
    stages: tuple[StagePlan, ...]
    peak_bytes_per_worker: int

    @property
    def core_s(self) -> float:
        """Core-seconds of all stages."""
        return sum(stage.core_s for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "core_s": self.core_s}


def plan(source: str, config: PipelineConfig) -> Plan:
    """Count the units, objects and bytes of a run over `source`.

    The canvas is taken as the largest section; a rotated stack's is larger.

    Raises
    ------
    ConfigError
        If a stage would have more units than one Dask graph can hold.
    """
    opened = open_source(source)
    nz, ny, nx = opened.shape
    voxels = nz * ny * nx
    layout = config.volume

    def at(mip: int) -> int:
        return nz * ceil(ny / 2**mip) * ceil(nx / 2**mip)

    levels = pyramid_levels(opened.shape)
    per_section = sum(
        ceil(ceil(ny / 2**k) / layout.section_shard_px)
        * ceil(ceil(nx / 2**k) / layout.section_shard_px)
        for k in range(levels)
    )
    shards = [_shards(opened.shape, config, mip) for mip in range(levels)]
    own = 1 + levels_of_shard(layout.aligned_shard, layout.aligned_chunk, levels)
    match = config.match
    finest = match.levels[-1]
    spacing = finest.node_spacing_px * 2**finest.mip
    match_bytes = 4 * len(CHANNELS)
    nodes = ceil(ny / spacing) * ceil(nx / spacing)
    blocks = ceil(ny / spacing / 64) * ceil(nx / spacing / 64)
    cut = _decomposition(opened.shape, config)
    mips = match.mips
    pairs = nz * match.neighbours + sum(
        max(ceil(nz / match.long_range_every) - far // match.long_range_every, 0)
        for far in match.long_range
    )
    counts = {
        "ingest": (nz, nz * per_section, sum(at(k) for k in range(levels))),
        "masks": (2 * nz - 1, 2 * nz, 2 * at(config.masks.mip)),
        "features": (nz * len(mips), nz * len(mips), 2 * sum(at(k) for k in mips)),
        "coarse": (2 * nz * config.coarse.neighbours + 2, 1, nz * 48),
        "match": (pairs * blocks, pairs * blocks, pairs * nodes * match_bytes),
        "filter": (nz, 2 * pairs, pairs * nodes * (match_bytes + 2)),
        "relax": _relaxing(cut, pairs),
        "render": (shards[0], own * shards[0], sum(at(k) for k in range(own))),
        "pyramid": (
            sum(shards[own:]),
            sum(shards[own:]),
            sum(at(k) for k in range(own, levels)),
        ),
        "qc": (nz + 1, 2 * nz + 2, 2 * at(6) * 4),
    }
    stages = tuple(
        StagePlan(stage, *count, round(CORE_S_PER_MPX[stage] * voxels / 1e6, 1))
        for stage, count in counts.items()
    )
    for stage in stages:
        if stage.units > MAX_UNITS_PER_STAGE:
            raise ConfigError(
                f"stage {stage.stage!r} would have {stage.units:,} units; one Dask graph holds "
                f"{MAX_UNITS_PER_STAGE:,}. Raise volume.section_shard_px, volume.aligned_shard or "
                "match.levels[-1].node_spacing_px, or align the volume in parts along z."
            )
    peak = max(render_bytes(opened.shape, config), 6 * ny * nx, _relax_bytes(cut))
    resolution = config.volume.resolution_nm or opened.resolution_nm or DEFAULT_RESOLUTION_NM
    return Plan(source, opened.shape, resolution, stages, peak)


def _decomposition(shape: ZYX, config: PipelineConfig) -> Decomposition:
    """Return how the stack is cut for relaxation, if matches are as long as they may be."""
    match = config.match
    reach = max(level.search_radius_px * 2**level.mip for level in match.levels)
    return decompose(
        (shape[0], *node_grid((shape[1], shape[2]), config.relax.node_spacing_px)),
        *(config.relax, grid_spacing_px(match)),
        farthest=max(match.neighbours, *match.long_range, 1),
        reach_px=reach,
    )


def _relaxing(cut: Decomposition, pairs: int) -> tuple[int, int, int]:
    """Return the units, objects and bytes of relaxation."""
    nz, boxes, nodes = cut.grid[0], len(cut.boxes), prod(cut.grid)
    published = nodes * (12 + 4 * pairs // nz)
    if boxes == 1:
        return 1, 2 * nz + pairs, published
    rounds = (SWEEPS + 1) * (boxes + 1) + SWEEPS * boxes
    units = nz + 1 + rounds + nz + boxes + nz
    objects = (SWEEPS + 1) * (3 * boxes + 1) + SWEEPS * boxes + boxes + 3 * nz + pairs
    # A sweep writes every node with its overlaps; a gathering an eighth of the nodes, at most.
    moved = sum(prod(box.moved.shape) for box in cut.boxes)
    return units, objects, published + SWEEPS * moved * 16 + (SWEEPS + 1) * nodes * 16


def _relax_bytes(cut: Decomposition) -> int:
    """Return the peak memory of a process that relaxes the largest box, or the stack."""
    largest = max(prod(cut.neighbourhood(box.moved).shape) for box in cut.boxes)
    return PROCESS_BYTES + NODE_BYTES * largest


def render_bytes(shape: ZYX, config: PipelineConfig) -> int:
    """Return the peak memory of a process that renders shards of a volume (z, y, x).

    It holds the shard, what writing it takes, and one section at a time: the field, and the part
    that the shard shows, as it came, drawn, and with what tells data from no data.
    """
    layout = config.volume
    chunk, shard = cut_grid(shape, layout.aligned_chunk, layout.aligned_shard)
    nz, ny, nx = shard or chunk
    nodes = prod(ceil(n / config.relax.node_spacing_px) + 1 for n in shape[1:])
    return PROCESS_BYTES + SHARD_COPIES * nz * ny * nx + 4 * ny * nx + 3 * 8 * nodes


def _shards(shape: ZYX, config: PipelineConfig, mip: int) -> int:
    """Return how many objects a level that stage "pyramid" makes has."""
    sizes = zip(level_shape(shape, mip), config.volume.aligned_shard, strict=True)
    return prod(ceil(n / s) for n, s in sizes)
