"""What several stages read of a run: sections, their valid parts, their coarse places."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.bilinear import grid_points
from alignment.pyramid import valid_at
from alignment.runs import Run
from alignment.stages.units import Ref, Section, Whole
from storage.commit import records
from storage.grid import Box
from storage.volume import Array, open_array, read, read_region, write_region

Affine = NDArray[np.float64]


def read_row(array: Array, z: int) -> NDArray[Any]:
    """Return what an array of any number of axes holds for section z, without its first axis."""
    return read_region(array, _row(array, z))[0]


def write_row(array: Array, z: int, values: NDArray[Any]) -> str:
    """Write what an array holds for section z; return its digest."""
    return write_region(array, _row(array, z), values[np.newaxis])


def read_all(array: Array) -> NDArray[Any]:
    """Return all of an array."""
    return read_region(array, (slice(None),) * len(array.shape))


def write_all(array: Array, values: NDArray[Any]) -> str:
    """Write all of an array; return its digest."""
    return write_region(array, (slice(None),) * len(array.shape), values)


def _row(array: Array, z: int) -> tuple[slice, ...]:
    return (slice(z, z + 1), *(slice(None) for _ in array.shape[1:]))


def section(run: Run, z: int, mip: int) -> NDArray[np.uint8]:
    """Return section z of the source at `mip`, (y, x); 0 is no data."""
    array = open_array(run.uri, f"sections/{mip}")
    return read(array, Box((z, 0, 0), (z + 1, *array.shape[1:]), mip))[0]


def valid(run: Run, z: int, mip: int) -> NDArray[np.bool_]:
    """Return where section z may be used, at `mip`; a pixel counts only if all of it may."""
    _, ny, nx = run.shape_at(mip)
    return valid_part(run, z, mip, (0, 0), (ny, nx))


def valid_part(
    run: Run, z: int, mip: int, start_yx: tuple[int, int], shape_yx: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return what `valid` holds in a box of a section, px at `mip`, that lies inside it."""
    (y, x), (ny, nx), own = start_yx, shape_yx, run.config.masks.mip
    array = open_array(run.uri, "valid")
    if mip >= own:
        side = 2 ** (mip - own)
        first, last = (y * side, x * side), ((y + ny) * side, (x + nx) * side)
        last = tuple(min(n, end) for n, end in zip(array.shape[1:], last, strict=True))
        before = (0, 0)
    else:
        side = 2 ** (own - mip)
        first, last = (y // side, x // side), (-(-(y + ny) // side), -(-(x + nx) // side))
        before = (y % side, x % side)
    part = np.s_[z : z + 1, first[0] : last[0], first[1] : last[1]]
    mask = read_region(array, part)[0] > 0
    whole = (ny + before[0], nx + before[1])
    return valid_at(mask, old=own, new=mip, shape_yx=whole)[before[0] :, before[1] :]


def tissue_at_nodes(
    run: Run, z: int, grid_shape: tuple[int, int], spacing_px: int
) -> NDArray[np.bool_]:
    """Return at which nodes (ny, nx) of the common frame section z shows tissue.

    Node (i, j) lies on pixel (i * spacing, j * spacing) at mip 0.
    """
    mip = run.config.masks.mip
    mask = read_row(open_array(run.uri, "valid"), z) > 0
    nodes = grid_points(*grid_shape, spacing_px)
    matrix = coarse(run.uri).matrices[z]
    there = nodes @ matrix[:, :2].T + matrix[:, 2]
    at = np.rint((there + 0.5) / 2**mip - 0.5).astype(np.intp)
    inside = ((at >= 0) & (at < mask.shape)).all(1)
    seen = np.zeros(len(nodes), bool)
    seen[inside] = mask[*at[inside].T]
    return seen.reshape(grid_shape)


@lru_cache(maxsize=8)
def missing(run_uri: str) -> frozenset[int]:
    """Return the sections that have too little tissue to be aligned; the others bridge them."""
    masked = records.read_records(run_uri, "masks", "sections")
    return frozenset(record["z"] for record in masked.values() if record["missing"])


def ingested(z: int) -> Ref:
    """Return the section z as it came, as an input."""
    return Ref("ingest", "sections", Section(z).label)


def masked(z: int) -> Ref:
    """Return the valid part of section z, as an input."""
    return Ref("masks", "sections", Section(z).label)


PLACED = Ref("coarse", "solve", Whole().label)
"""The coarse places of all sections, as an input."""


def place_facts(run_uri: str, *sections: int) -> list[str]:
    """Return where some sections lie, and the canvas, as inputs.

    Named one by one, so that a section that is placed anew does not touch what others make.
    """
    placed = coarse(run_uri)
    places = [f"place {z} {placed.matrices[z].tolist()}" for z in sorted({*sections})]
    return [*places, f"canvas {list(placed.canvas)}"]


def missing_fact(run_uri: str) -> str:
    """Return which sections are missing, as an input of what is made from the whole stack."""
    return f"missing {sorted(missing(run_uri))}"


def present(run: Run) -> list[int]:
    """Return the sections that can be aligned, in order."""
    gone = missing(run.uri)
    return [z for z in range(run.shape[0]) if z not in gone]


def pairs(run: Run, neighbours: int) -> list[tuple[int, int]]:
    """Return (z, d) for each present section and its `neighbours` nearest earlier present ones.

    A missing section is stepped over, so the stack does not fall apart at a gap.
    """
    there = present(run)
    return [
        (z, z - there[i - k])
        for i, z in enumerate(there)
        for k in range(1, neighbours + 1)
        if i - k >= 0
    ]


def match_pairs(run: Run) -> list[tuple[int, int]]:
    """Return the pairs (z, d) that the matching stage compares, the long-range ones among them."""
    near = pairs(run, run.config.match.neighbours)
    return sorted([*near, *long_range_pairs(run)])


def long_range_pairs(run: Run) -> list[tuple[int, int]]:
    """Return (z, d) of the sections that are also matched far back; they form chains.

    Distances are counted in present sections, like those of neighbours.
    """
    config, there = run.config.match, present(run)
    return [
        (there[i], there[i] - there[i - far])
        for i in range(0, len(there), config.long_range_every)
        for far in config.long_range
        if far <= i
    ]


def sections_told(run: Run, z: int, d: int) -> int:
    """Return for how many sections a pair speaks: a long-range one for all without one.

    Its matches weigh that much more than their distance alone would have it.
    """
    far = run.config.match.long_range and (z, d) in long_range_pairs(run)
    return run.config.match.long_range_every if far else 1


def trusted_pairs(run: Run) -> list[tuple[int, int]]:
    """Return the pairs (z, d) that the filter stage judged, retries too."""
    judged = records.read_records(run.uri, "filter", "sections").values()
    return sorted((record["z"], int(d)) for record in judged for d in record["pairs"])


@dataclass(frozen=True)
class Coarse:
    """The coarse stage's answer: one affine a section, and the canvas they share."""

    matrices: Affine
    """(nz, 2, 3), px at mip 0: a point of the common frame to its place in the section."""
    canvas: tuple[int, int]
    """(y, x) of the common frame and of the aligned volume, px at mip 0."""
    seat: tuple[int, int]
    """(y, x) of the canvas's first pixel in the sections as they came: the move by whole px, alike
    for all of them, that brings their centres to where they are after alignment, on average."""


@lru_cache(maxsize=8)
def coarse(run_uri: str) -> Coarse:
    """Return the coarse stage's answer; cached, because it never changes."""
    solved = records.read_commit(run_uri, PLACED.stage, PLACED.phase, PLACED.unit).value
    (ny, nx), (y, x) = solved["canvas"], solved["seat"]
    return Coarse(np.array(solved["matrices"], np.float64), (ny, nx), (y, x))
