"""Chunk correlations of neighbours, before and after: the first phase of stage "qc".

A unit is what a shard of the aligned volume shows, or several small ones, so that a shard is
decoded once for all its sections, and memory does not grow with the section.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np
from numpy.typing import NDArray

from alignment import qc
from alignment.runs import Run, load
from alignment.stages import inputs
from alignment.stages.units import Phase, Record, Ref
from storage.grid import Box, tile
from storage.volume import create_array, open_array, read, read_region, write_region, write_unit

Image = NDArray[np.uint8]
YX = tuple[int, int]

LEAST_SIDE_PX = 2048
"""Of a unit: of a smaller one, most of what is read would be the halo."""
BLUR_SIGMAS = 4
"""Reach of OpenCV's Gaussian on float32."""


def phase(run: Run) -> Phase:
    """Create the two arrays of correlations, and return the phase that fills them."""
    finest = open_array(run.uri, "aligned/0")
    depth, *sides = unit_shape(write_unit(finest))
    side = run.config.qc.chunk_px
    shape = (run.shape[0], *(n // side for n in inputs.coarse(run.uri).canvas))
    chunk = (depth, *(max(n // side, 1) for n in sides))
    for path in ("qc/before", "qc/after"):
        create_array(
            run.uri,
            path,
            shape=shape,
            chunk=tuple(min(c, max(n, 1)) for c, n in zip(chunk, shape, strict=True)),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=("z", "y", "x"),
            attributes={"chunk_px": side, "quantity": "Pearson r with the preceding section"},
        )
    units = list(tile(shape, chunk, mip=0))
    return Phase("shards", units, compare_neighbours, reads_neighbours, ("qc",), local=True)


def unit_shape(shard: tuple[int, ...]) -> tuple[int, ...]:
    """Return what a unit looks at, whole shards of the aligned volume (z, y, x).

    >>> unit_shape((32, 2048, 2048)), unit_shape((4, 256, 768))
    ((32, 2048, 2048), (4, 2048, 2304))
    """
    depth, *sides = shard
    return (depth, *(side * ceil(LEAST_SIDE_PX / side) for side in sides))


def reads_neighbours(unit: Box, *, run_uri: str) -> list[Ref | str]:
    """Return the sections of a unit as they came, and the shards that show them aligned."""
    run = load(run_uri)
    pairs = _pairs(run, unit)
    # All of its sections are read at once, those that cannot be aligned among them.
    seen = sorted({*range(unit.start[0], unit.stop[0]), *(z - d for z, d in pairs)})
    (y0, x0), (ny, nx) = _window(run, unit)
    finest = open_array(run_uri, "aligned/0")
    shown = [
        Ref("render", "shards", shard.label)
        for shard in tile(finest.shape, write_unit(finest), mip=0)
        if any(shard.start[0] <= z < shard.stop[0] for z in seen)
        and shard.start[1] < y0 + ny
        and y0 < shard.stop[1]
        and shard.start[2] < x0 + nx
        and x0 < shard.stop[2]
    ]
    placed = inputs.coarse(run_uri)
    laid = f"canvas {list(placed.canvas)} at {list(placed.seat)}"
    return [*map(inputs.ingested, seen), *shown, f"pairs {pairs}", laid]


def compare_neighbours(unit: Box, *, run_uri: str) -> Record:
    """Write the chunk correlations of a unit's sections with their predecessors."""
    run = load(run_uri)
    config, pairs = run.config.qc, _pairs(run, unit)
    start, shape = _window(run, unit)
    inner = _inner(run, unit, start)
    record: Record = {"sha256": [], "pairs": len(pairs), "bytes_read": 0, "bytes_written": 0}
    for name, see in (("before", unaligned), ("after", aligned)):
        found = np.full(unit.shape, np.nan, np.float32)
        images = see(run, (unit.start[0], unit.stop[0]), start, shape)
        seen: tuple[int, qc.Look] | None = None
        for z, d in pairs:
            if seen is None or seen[0] != z - d:  # the unit's first pair reaches before it
                (before,) = see(run, (z - d, z - d + 1), start, shape)
                seen = z - d, qc.look(before, config.smoothing_px)
            moving = qc.look(images[z - unit.start[0]], config.smoothing_px)
            found[z - unit.start[0]] = qc.correlate(moving, seen[1], config.chunk_px)[inner]
            seen = z, moving
        array = open_array(run.uri, f"qc/{name}")
        record["sha256"].append(write_region(array, unit.slices, found))
        record["bytes_read"] += int(images.nbytes)
        record["bytes_written"] += int(found.nbytes)
    return record


def halo_px(smoothing_px: float) -> int:
    """Return how far a chunk's correlation looks beyond the chunk.

    As far as the blur reaches; and a pixel is missing if it lies in a large area without data,
    which one that leaves a window of that many px about it always is.
    """
    return ceil(BLUR_SIGMAS * smoothing_px) + 1 + qc.MISSING_AREA_PX


def _pairs(run: Run, unit: Box) -> list[tuple[int, int]]:
    return [(z, d) for z, d in inputs.pairs(run, 1) if unit.start[0] <= z < unit.stop[0]]


def _window(run: Run, unit: Box) -> tuple[YX, YX]:
    """Return the first pixel and the extent of what a unit looks at; it begins with a chunk."""
    side = run.config.qc.chunk_px
    halo = ceil(halo_px(run.config.qc.smoothing_px) / side)
    canvas = inputs.coarse(run.uri).canvas
    start = [max(first - halo, 0) * side for first in unit.start[1:]]
    stop = [min((last + halo) * side, n) for last, n in zip(unit.stop[1:], canvas, strict=True)]
    # What is left over at the far rim is no chunk, but a blur sees it.
    stop = [n if n - end < side else end for end, n in zip(stop, canvas, strict=True)]
    (y0, x0), (y1, x1) = start, stop
    return (y0, x0), (y1 - y0, x1 - x0)


def _inner(run: Run, unit: Box, start: YX) -> tuple[slice, slice]:
    """Return which chunks of a window are the unit's own."""
    side = run.config.qc.chunk_px
    y, x = (
        slice(first - px // side, last - px // side)
        for first, last, px in zip(unit.start[1:], unit.stop[1:], start, strict=True)
    )
    return y, x


def aligned(run: Run, sections: tuple[int, int], start_yx: YX, shape_yx: YX) -> Image:
    """Return sections [first, last) of a part of the aligned volume, (z, y, x)."""
    return _read(run, "aligned/0", sections, start_yx, shape_yx)


def unaligned(run: Run, sections: tuple[int, int], start_yx: YX, shape_yx: YX) -> Image:
    """Return a part of sections as they came, moved by whole px onto the canvas, all alike."""
    y, x = inputs.coarse(run.uri).seat
    return _read(run, "sections/0", sections, (start_yx[0] + y, start_yx[1] + x), shape_yx)


def _read(run: Run, path: str, sections: tuple[int, int], start_yx: YX, shape_yx: YX) -> Image:
    (first, last), (y, x), (ny, nx) = sections, start_yx, shape_yx
    return read(open_array(run.uri, path), Box((first, y, x), (last, y + ny, x + nx), 0))


def rows(run: Run, name: str) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (z, correlations (cy, cx)) of all sections; what lies in one object is read once."""
    array = open_array(run.uri, f"qc/{name}")
    nz, depth = array.shape[0], array.chunks[0]
    for first in range(0, nz, depth):
        block = read_region(array, np.s_[first : min(first + depth, nz), :, :])
        yield from enumerate(block, first)
