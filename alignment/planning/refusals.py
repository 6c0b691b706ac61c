"""What a plan is refused for: before anything runs, with the setting that would change it."""

from __future__ import annotations

from dataclasses import dataclass

from alignment.errors import ConfigError
from alignment.planning.plans import Plan, StagePlan
from alignment.planning.stack import Stack
from storage.limits import MAX_CHUNK_BYTES, MAX_CHUNKS_PER_READ
from storage.ome import level_shape

MAX_TASKS_PER_GRAPH = 100_000
"""A Dask scheduler with more stalls; slabs of sections come first."""
GIB = 2**30

TASKS = {
    "masks": "volume.slab_sections",
    "match": "match.levels[-1].node_spacing_px and match.refine[*].node_spacing_px (more), or "
    "volume.slab_sections (fewer)",
    "relax": "relax.node_spacing_px or relax.tile_nodes (more)",
    "render": "volume.aligned_shard (more), or volume.slab_sections (fewer)",
    "pyramid": "volume.aligned_shard (more), or volume.slab_sections (fewer)",
}
"""What brings down the tasks of a stage; `volume.slab_sections` for those not named."""
MEMORY = {
    "ingest": "volume.section_shard_px (less)",
    "masks": "masks.mip (more)",
    "features": "the finest mip of match.levels and match.refine (more)",
    "coarse": "coarse.mip (more)",
    "match": "the finest mip of match.levels and match.refine (more)",
    "filter": "match.levels[-1].node_spacing_px (more)",
    "relax": "relax.node_spacing_px (more), or relax.slab_sections and relax.tile_nodes (less)",
    "render": "volume.aligned_shard (less), or relax.node_spacing_px (more)",
    "pyramid": "volume.aligned_shard (less)",
    "qc": "qc.chunk_px (more), or volume.aligned_shard (less)",
}
"""What brings down the memory of a stage."""
CHUNKS = {
    "filter": "match.levels[-1].node_spacing_px and match.refine[*].node_spacing_px (more)",
    "relax": "relax.node_spacing_px (more)",
    "features": "volume.section_shard_px (less)",
}
"""What makes the chunks of a stage smaller."""


@dataclass(frozen=True)
class Limits:
    """What a user will not go beyond; None for what does not matter."""

    worker_memory_gib: float | None = None
    max_price: float | None = None
    max_core_hours: float | None = None


class PlanRefusedError(ConfigError):
    """The plan goes beyond limits; the message says all of them."""


def refusals(plan: Plan, stack: Stack, limits: Limits) -> list[str]:
    """Return why a plan cannot or shall not run, in words; nothing if it may."""
    found = [line for stage in plan.stages for line in _stage(stage, limits)]
    found += _reads(stack)
    if limits.max_core_hours is not None and plan.core_hours > limits.max_core_hours:
        dearest = max(plan.stages, key=lambda stage: stage.core_s)
        found.append(
            f"{plan.core_hours:,.1f} core-hours are more than --max-core-hours "
            f"{limits.max_core_hours:g}; most of them, {dearest.core_s / 3600:,.1f}, are stage "
            f"{dearest.stage!r}"
        )
    price = plan.cost["run"]
    if limits.max_price is not None and price > limits.max_price:
        found.append(
            f"a price of {price:,.2f} {plan.prices.currency} is more than --max-price "
            f"{limits.max_price:g}"
        )
    return found


def check(plan: Plan, stack: Stack, limits: Limits) -> None:
    """Refuse a plan that goes beyond limits.

    Raises
    ------
    PlanRefusedError
        With every reason and the settings that change it.
    """
    found = refusals(plan, stack, limits)
    if found:
        raise PlanRefusedError("this run is refused:\n" + "\n".join(f"- {line}" for line in found))


def _stage(stage: StagePlan, limits: Limits) -> list[str]:
    found = []
    if stage.tasks_per_graph > MAX_TASKS_PER_GRAPH:
        found.append(
            f"stage {stage.stage!r} would put {stage.tasks_per_graph:,} tasks into one Dask graph; "
            f"{MAX_TASKS_PER_GRAPH:,} is the limit. Change "
            f"{TASKS.get(stage.stage, 'volume.slab_sections (fewer)')}"
        )
    if stage.chunk_bytes > MAX_CHUNK_BYTES:
        found.append(
            f"stage {stage.stage!r} would write chunks of {stage.chunk_bytes / 2**20:,.0f} MiB; "
            f"{MAX_CHUNK_BYTES // 2**20} MiB is the limit (storage.limits). Change "
            f"{CHUNKS.get(stage.stage, 'the chunks in the section volume (less)')}"
        )
    gib, setting = stage.peak_bytes / GIB, MEMORY.get(stage.stage)
    if limits.worker_memory_gib is not None and gib > limits.worker_memory_gib:
        found.append(
            f"stage {stage.stage!r} would need {gib:,.1f} GiB in a worker; "
            f"--worker-memory-gib {limits.worker_memory_gib:g} is given. "
            + (f"Change {setting}" if setting else "No setting changes that: take larger workers")
        )
    return found


def _reads(stack: Stack) -> list[str]:
    """Return whether whole sections have more chunks than one reading may touch."""
    config = stack.config
    side = config.volume.section_chunk_px
    mip = min(config.masks.mip, *config.match.mips)
    _, ny, nx = level_shape(stack.shape, mip)
    chunks = -(-ny // side) * -(-nx // side)
    if chunks <= MAX_CHUNKS_PER_READ:
        return []
    return [
        f"stages 'masks' and 'features' would read a section of {chunks:,} chunks at once; "
        f"{MAX_CHUNKS_PER_READ:,} is the limit (storage.limits). Change volume.section_chunk_px "
        "(more)"
    ]
