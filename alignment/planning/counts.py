"""What each stage of a run consists of: phases of units, and arrays of objects.

The rules are those of `alignment.stages`, as formulas: nothing is enumerated, so the largest volume
is counted as fast as the smallest. A test counts what real runs leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import NamedTuple

from alignment.match import CHANNELS
from alignment.planning.stack import Stack
from alignment.stages.correlations import unit_shape
from alignment.stages.matched import BLOCK_NODES
from storage.grid import ZYX, cut_grid
from storage.ome import level_shape

Shape = tuple[int, ...]


class Part(NamedTuple):
    """One phase of a stage, or several alike: units that may run at the same time."""

    name: str
    units: int
    """Of one phase."""
    is_local: bool = False
    """Whether a slab's units need only those of the same slab, so that each has a graph."""
    times: int = 1
    """How often such a phase comes."""


@dataclass(frozen=True)
class ArrayPlan:
    """An array that a stage writes, or several alike."""

    path: str
    """What arrays alike have in common, for example ``matches``."""
    objects: int
    """Of all of them."""
    nbytes: int
    """Of their values, uncompressed."""
    chunk_bytes: int
    """The largest thing that is encoded at once."""
    chunks_per_object: int
    grid: int
    """Places of their objects, for which checksums are kept."""
    arrays: int = 1
    filled: float = 1.0
    """Share of the values that are not empty; the others take no room in the store."""


@dataclass(frozen=True)
class StageCount:
    """One stage."""

    stage: str
    parts: tuple[Part, ...]
    arrays: tuple[ArrayPlan, ...] = ()
    groups: int = 0
    """Groups of arrays that have metadata of their own."""
    loose: int = 0
    """Objects that no record names: the report, the pointer."""

    @property
    def units(self) -> int:
        """Units, each of which leaves a record."""
        return sum(part.units * part.times for part in self.parts)

    @property
    def data_objects(self) -> int:
        """Objects that hold voxels or values."""
        return sum(array.objects for array in self.arrays)

    @property
    def metadata(self) -> int:
        """Objects that describe arrays and groups."""
        return sum(array.arrays for array in self.arrays) + self.groups

    @property
    def sealing(self) -> int:
        """Objects that sum up the stage."""
        written = sum(array.arrays for array in self.arrays if array.objects)
        return 0 if self.stage == "publish" else 2 + written


def count_stages(stack: Stack) -> tuple[StageCount, ...]:
    """Return what every stage consists of, in order."""
    return tuple(count(stack) for count in COUNTS.values())


def _rows(
    path: str, rows: int, shape: Shape, chunk: Shape, itemsize: int, *, arrays: int = 1
) -> ArrayPlan:
    """Plan arrays whose first axis is cut into single rows, `rows` of which are written in all.

    Parameters
    ----------
    shape : tuple of int
        Of one array.
    """
    cut, _ = cut_grid(shape, chunk, None)
    inside = prod(ceil(n / c) for n, c in zip(shape[1:], cut[1:], strict=True))
    row = prod(shape[1:])
    return ArrayPlan(
        path, rows * inside, rows * row * itemsize, prod(cut) * itemsize, 1,
        arrays * shape[0] * inside, arrays,
    )  # fmt: skip


def _image(path: str, shape: ZYX, chunk: ZYX, shard: ZYX) -> ArrayPlan:
    """Plan one level of an image."""
    inner, outer = cut_grid(shape, chunk, shard)
    unit = outer or inner
    objects = prod(ceil(n / u) for n, u in zip(shape, unit, strict=True))
    per_object = prod(u // c for u, c in zip(unit, inner, strict=True))
    return ArrayPlan(path, objects, prod(shape), prod(inner), per_object, objects)


def section_units(stack: Stack) -> tuple[ZYX, ZYX]:
    """Return chunk and shard of what is written section by section."""
    layout = stack.config.volume
    return (1, *2 * [layout.section_chunk_px]), (1, *2 * [layout.section_shard_px])


def _of_present(array: ArrayPlan, stack: Stack, *, itemsize: int) -> ArrayPlan:
    """Return the same array of larger values, of which missing sections are not written."""
    rows, each = stack.present, array.objects // stack.shape[0]
    nbytes = array.nbytes // stack.shape[0] * rows * itemsize
    chunk_bytes = array.chunk_bytes * itemsize
    return replace(array, objects=rows * each, nbytes=nbytes, chunk_bytes=chunk_bytes)


def _ingest(stack: Stack) -> StageCount:
    chunk, shard = section_units(stack)
    levels = tuple(
        _image("sections", level_shape(stack.shape, mip), chunk, shard)
        for mip in range(stack.section_mips)
    )
    return StageCount("ingest", (Part("sections", stack.shape[0], True),), levels, groups=1)


def _masks(stack: Stack) -> StageCount:
    shape = stack.run.shape_at(stack.config.masks.mip)
    chunk, shard = section_units(stack)
    arrays = tuple(_image(path, shape, chunk, shard) for path in ("valid", "defects"))
    parts = (Part("sections", shape[0], True), Part("likeness", stack.pairs(1)))
    return StageCount("masks", parts, arrays)


def _features(stack: Stack) -> StageCount:
    chunk, shard = section_units(stack)
    mips = stack.config.match.mips
    whole = (_image("features", stack.run.shape_at(mip), chunk, shard) for mip in mips)
    arrays = tuple(_of_present(array, stack, itemsize=2) for array in whole)
    return StageCount("features", tuple(Part(f"mip{k}", stack.present, True) for k in mips), arrays)


def _coarse(stack: Stack) -> StageCount:
    neighbours = stack.config.coarse.neighbours
    pairs, nz = stack.pairs(neighbours), stack.shape[0]
    # A section with a single link may be mirrored: its pair is compared once more.
    single = pairs if stack.present == 2 else min(2, pairs) if neighbours == 1 else 0
    parts = (
        Part("pairs", pairs, True),
        Part("mirrors", single),
        Part("solve", 1),
        Part("likeness", pairs),
        Part("findings", 1),
    )
    return StageCount("coarse", parts, (ArrayPlan("coarse", 1, 48 * nz, 48 * nz, 1, 1),))


def _match(stack: Stack) -> StageCount:
    parts = [Part("rounds", stack.match_pairs * stack.blocks, True, stack.rounds)]
    for k, pairs, again in zip(stack.retries, stack.retry_pairs, stack.retried_blocks, strict=True):
        parts.append(Part(f"holes{k}", pairs, True))
        parts.append(Part(f"retry{k}", again, True, stack.rounds if again else 0))
    ny, nx = stack.match_grid
    chunk = (1, len(CHANNELS), BLOCK_NODES, BLOCK_NODES)
    shape = (stack.shape[0], len(CHANNELS), ny, nx)
    arrays = _rows("matches", 1, shape, chunk, 4, arrays=stack.rounds * stack.distances)
    # Farther sections are matched in some blocks only; a block is written whole.
    objects = stack.rounds * (stack.match_pairs * stack.blocks + sum(stack.retried_blocks))
    nbytes = round(objects / stack.blocks * stack.match_nodes) * len(CHANNELS) * 4
    found = ArrayPlan("matches", objects, nbytes, arrays.chunk_bytes, 1, arrays.grid, arrays.arrays)
    return StageCount("match", tuple(parts), (found,))


def _filter(stack: Stack) -> StageCount:
    nz, (ny, nx) = stack.shape[0], stack.match_grid
    pairs, d = stack.match_pairs + stack.retried_pairs, stack.distances
    judged = max(stack.present - 1, 0)
    arrays = (
        _rows("trusted", pairs, (nz, len(CHANNELS), ny, nx), (1, len(CHANNELS), ny, nx), 4,
              arrays=d),
        _rows("confidence", pairs, (nz, ny, nx), (1, ny, nx), 4, arrays=d),
        _rows("rejected", pairs, (nz, ny, nx), (1, ny, nx), 2, arrays=d),
    )  # fmt: skip
    return StageCount("filter", (Part("sections", judged, True),), arrays)


def _relax(stack: Stack) -> StageCount:
    nz, (ny, nx) = stack.shape[0], stack.mesh
    my, mx = stack.match_grid
    pairs = stack.match_pairs + stack.retried_pairs
    published = (
        _rows("fields", nz, (nz, 2, ny, nx), (1, 2, ny, nx), 4),
        _rows("sigma", nz, (nz, ny, nx), (1, ny, nx), 4),
        _rows("residuals", pairs, (nz, my, mx), (1, my, mx), 4, arrays=stack.distances),
    )
    if not stack.is_cut:
        return StageCount("relax", (Part("solve", 1),), published)
    boxes, sweeps = stack.boxes.count, stack.guess.sweeps
    parts = (
        Part("survey", nz),
        Part("ties", 1),
        Part("gather", boxes, times=sweeps + 1),
        Part("correct", 1, times=sweeps),
        Part("sweep", boxes, times=sweeps),  # colour by colour, so less at a time
        Part("folds", nz),
        Part("sigma", boxes),
        Part("fields", nz),
    )
    return StageCount("relax", parts, (*published, *_solver_states(stack)))


def _solver_states(stack: Stack) -> Iterator[ArrayPlan]:
    """Yield what the boxes of a large stack leave for each other; rows padded to the largest."""
    cut, sweeps = stack.boxes, stack.guess.sweeps
    nz, (ny, nx) = stack.shape[0], stack.mesh
    boxes, gathers = cut.count, sweeps + 1
    (cz, cy, cx), (wz, wy, wx), (mz, my, mx) = cut.gathered, cut.corrected, cut.moved
    for rows, size, itemsize, arrays in (
        (boxes, (cz, 2, cy, cx), 8, gathers),
        (boxes, (2, cz, cy, cx), 4, gathers),
        (boxes, (cz, cut.farthest, 5, cy, cx), 4, gathers),
        (1, (wz, 2, wy, wx), 8, sweeps),
    ):
        yield _rows("solve", rows * arrays, (rows, *size), (1, *size), itemsize, arrays=arrays)
    sweep, turns = (mz, 2, my, mx), sweeps * cut.colours
    yield _rows("solve", boxes * sweeps, (boxes, *sweep), (1, *sweep), 8, arrays=turns)
    yield _rows("solve", nz, (nz, ny - 1, nx - 1), (1, ny - 1, nx - 1), 1)
    yield _rows("solve", boxes, (boxes, *cut.core), (1, *cut.core), 4)


def _aligned(stack: Stack, mip: int) -> ArrayPlan:
    layout = stack.config.volume
    nz, ny, nx = layout.aligned_shard
    shard = (nz, ny >> mip, nx >> mip) if mip <= stack.own_levels else (nz, ny, nx)
    level = _image("aligned", level_shape(stack.aligned_shape, mip), layout.aligned_chunk, shard)
    return replace(level, filled=stack.filled)


def _render(stack: Stack) -> StageCount:
    own = range(stack.own_levels + 1)
    rest = range(stack.own_levels + 1, stack.levels)
    arrays = tuple(_aligned(stack, mip) for mip in own)
    parts: tuple[Part, ...] = (Part("shards", arrays[0].objects, True),)
    if stack.config.render.normalise != "none":
        parts = (Part("grey", stack.present, True), Part("common", 1), *parts)
    # The arrays of the levels that the next stage fills are made here.
    return StageCount("render", parts, arrays, groups=1 + len(rest))


def _pyramid(stack: Stack) -> StageCount:
    arrays = tuple(_aligned(stack, mip) for mip in range(stack.own_levels + 1, stack.levels))
    parts = tuple(Part(f"mip{k}", array.objects, True) for k, array in enumerate(arrays))
    return StageCount("pyramid", parts, arrays, groups=-len(arrays))


def _qc(stack: Stack) -> StageCount:
    shape, chunk = compared_grid(stack)
    one = _image("qc", shape, chunk, chunk)
    blocks = one.objects
    arrays = tuple(
        replace(one, path=f"qc/{k}", nbytes=4 * one.nbytes, chunk_bytes=4 * one.chunk_bytes)
        for k in ("before", "after")
    )
    return StageCount("qc", (Part("shards", blocks, True), Part("report", 1)), arrays, loose=2)


def compared_grid(stack: Stack) -> tuple[ZYX, ZYX]:
    """Return shape and chunk of the correlations of neighbours: a chunk for each unit."""
    layout, side = stack.config.volume, stack.config.qc.chunk_px
    inner, outer = cut_grid(stack.aligned_shape, layout.aligned_chunk, layout.aligned_shard)
    depth, *sides = unit_shape(outer or inner)
    shape = (stack.shape[0], *(max(n // side, 1) for n in stack.canvas))
    chunk = (depth, *(max(n // side, 1) for n in sides))
    return shape, tuple(min(c, n) for c, n in zip(chunk, shape, strict=True))


def _publish(stack: Stack) -> StageCount:
    return StageCount("publish", (Part("pointer", 1),), loose=3)


COUNTS: dict[str, Callable[[Stack], StageCount]] = {
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
    "publish": _publish,
}
