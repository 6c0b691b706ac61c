"""What boxes of nodes leave for each other, below ``solve/`` of a run, and what they read.

A row of an array is one box, padded to the largest; nothing is ever written twice.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.confidence import solver_weight
from alignment.decomposition import (
    Box,
    Decomposition,
    Nodes,
    Triple,
    count_boxes,
    decompose,
    match_range,
)
from alignment.energy import Condensed, Vector
from alignment.fields import node_grid
from alignment.links import Links, PairMatches
from alignment.match import CHANNELS, grid_spacing_px
from alignment.relax import REPAIR_FACTOR
from alignment.runs import Run, load
from alignment.schwarz import CORRECTION, Gathered, Problem, Turn, paint
from alignment.stages import inputs
from alignment.stages.torn import torn_section
from alignment.stages.units import Section, Whole
from storage.commit import records
from storage.volume import Array, create_array, open_array, read_region, write_region

COVARIANCE = [CHANNELS.index(name) for name in ("cov_yy", "cov_yx", "cov_xx")]


class Slab(NamedTuple):
    """One box of the decomposition, at some point of the iteration."""

    number: int
    iteration: int
    colour: int
    repairs: int
    """How often cells were stiffened before."""
    reference: float = 0.0

    @property
    def label(self) -> str:
        """Return the box's name; the phase says the rest."""
        return f"box{self.number:05d}"


class Solved(NamedTuple):
    """One section of the solution."""

    z: int
    iteration: int
    """After whose sweeps it was found."""
    repairs: int
    """How often cells were stiffened before."""

    @property
    def label(self) -> str:
        """Return the section's name."""
        return Section(self.z).label


def is_cut(run: Run) -> bool:
    """Whether a run's stack is large enough to be relaxed in boxes."""
    return count_boxes(grid_of(run), run.config.relax) != (1, 1, 1)


def create_outputs(run: Run, shape: tuple[int, int, int, int]) -> tuple[Array, Array]:
    """Create the published arrays: fields (nz, 2, ny, nx) and sigma (nz, ny, nx)."""
    nz, _, ny, nx = shape
    about = {"node_spacing_px": run.config.relax.node_spacing_px, "unit": "px at mip 0"}
    fields, sigma = (
        create_array(
            *(run.uri, path),
            shape=size,
            chunk=(1, *size[1:]),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=names,
            attributes=about,
        )
        for path, size, names in (
            ("fields", shape, ("z", "dy_dx", "y", "x")),
            ("sigma", (nz, ny, nx), ("z", "y", "x")),
        )
    )
    return fields, sigma


def create_residuals(run: Run, d: int) -> Array:
    """Create the array of the residuals of all matches over a distance d."""
    shape = open_array(run.uri, f"trusted/{d}").shape
    size = (shape[0], *shape[-2:])
    return create_array(
        *(run.uri, f"residuals/{d}"),
        shape=size,
        chunk=(1, *size[1:]),
        dtype="float32",
        fill_value=np.nan,
        dimension_names=("z", "y", "x"),
        attributes={"unit": "px at mip 0"},
    )


def decomposition(run_uri: str) -> Decomposition:
    """Return how a run's stack is cut; known when its ties are."""
    ties = ties_of(run_uri)
    config = load(run_uri).config
    return decompose(
        *(_triple(ties["grid"]), config.relax, grid_spacing_px(config.match)),
        farthest=ties["farthest"],
        reach_px=ties["reach_px"],
    )


def trusted(run: Run, z: int, d: int) -> PairMatches:
    """Return the matches of a pair that the filters left, with their weights."""
    found = inputs.read_row(open_array(run.uri, f"trusted/{d}"), z)
    sure = inputs.read_row(open_array(run.uri, f"confidence/{d}"), z)
    weight = solver_weight(sure) * np.float32(inputs.sections_told(run, z, d))
    return PairMatches(z, d, found[:2], found[COVARIANCE], weight=weight)


@lru_cache(maxsize=8)
def judged(run_uri: str) -> frozenset[str]:
    """Return the sections whose matches the filters judged; cached, because all of them have."""
    return frozenset(records.recorded(run_uri, "filter", "sections"))


def pairs_of(run: Run, z: int) -> list[PairMatches]:
    """The pairs in which z moves, without those of a missing section."""
    gone = inputs.missing(run.uri)
    ends = [(z, d) for d in distances(run.uri, z)]
    return [trusted(run, z, d) for z, d in ends if not {z, z - d} & gone]


def distances(run_uri: str, z: int) -> list[int]:
    """Return over which distances d section z was matched."""
    if Section(z).label not in judged(run_uri):
        return []
    found = records.read_commit(run_uri, "filter", "sections", Section(z).label)
    return sorted(map(int, found.value["pairs"]))


def problem_over(run: Run, nodes: Nodes, repairs: int) -> Problem:
    """The matches, cells and held nodes among some nodes."""
    config, spacing = run.config.relax, grid_spacing_px(run.config.match)
    first, last = nodes.start[0], nodes.stop[0]
    rows, columns = match_range(nodes, spacing / config.node_spacing_px)
    links: list[Links] = []
    for z in range(first, last):
        surveyed = records.read_commit(run.uri, "relax", "survey", Section(z).label).value
        for pair in pairs_of(run, z):
            if pair.z - pair.d < first:
                continue
            typical = surveyed["pairs"][str(pair.d)]["typical"]
            cut = replace(
                pair,
                z=z - first,
                displacement=pair.displacement[:, rows, columns],
                covariance=None if typical is None else pair.covariance[:, rows, columns],  # type: ignore[index]
                weight=pair.weight[rows, columns],  # type: ignore[index]
                typical=typical,
            )
            links.append(cut.links(spacing))
    factors = REPAIR_FACTOR ** stiffened(run, nodes, repairs).astype(np.float32)
    (_, y0, x0), (_, y1, x1) = nodes
    for z in range(first, last):
        factors[z - first] *= torn_section(run, z)[y0 : y1 - 1, x0 : x1 - 1]
    return Problem(
        nodes, links, (config.stiffness * factors).astype(np.float32), _free(config.locked, nodes)
    )


def _free(locked: tuple[int, ...], nodes: Nodes) -> NDArray[np.float32] | None:
    """Return 0 at the nodes of locked sections, else 1; or none, if there are none."""
    here = [z - nodes.start[0] for z in locked if nodes.start[0] <= z < nodes.stop[0]]
    if not here:
        return None
    free = np.ones(nodes.shape, np.float32)
    free[here] = 0
    return free


def stiffened(run: Run, nodes: Nodes, repairs: int) -> NDArray[np.uint8]:
    """How often the cells among some nodes were made stiffer."""
    nz, ny, nx = nodes.shape
    if not repairs:
        return np.zeros((nz, ny - 1, nx - 1), np.uint8)
    (z0, y0, x0), (z1, y1, x1) = nodes
    array = open_state(run, f"stiffer-{repairs - 1}")
    region = (slice(z0, z1), slice(y0, y1 - 1), slice(x0, x1 - 1))
    return np.asarray(read_region(array, region))


def painted(run: Run, nodes: Nodes, turns: list[Turn]) -> Vector:
    """Return the displacements (nz, 2, ny, nx) of some nodes after some turns."""

    def found(turn: Turn, box: Box | None) -> Vector:
        if box is None:
            shape = cut.coarse(cut.whole).shape
            return read_state(run, path_of(turn), 0, (shape[0], 2, *shape[1:]))
        nz, ny, nx = box.moved.shape
        return read_state(run, path_of(turn), box.number, (nz, 2, ny, nx))

    cut = decomposition(run.uri)
    return paint(nodes, turns, cut, found, _free(run.config.relax.locked, nodes))


def share_of(run: Run, name: str, cut: Decomposition, box: Box) -> Gathered:
    """Return a box's share of the coarse mesh, as the phase `name` wrote it."""
    nodes = cut.coarse(cut.neighbourhood(box.core))
    nz, ny, nx = nodes.shape
    right = read_state(run, f"{name}/right", box.number, (nz, 2, ny, nx))
    sheets = read_state(run, f"{name}/sheets", box.number, (2, nz, ny, nx))
    array = open_state(run, f"{name}/links")
    links = read_state(run, f"{name}/links", box.number, (nz, *array.shape[2:4], ny, nx))
    pairs = {
        (z, z - d): links[z, d - 1]
        for z in range(nz)
        for d in range(1, min(z, links.shape[1]) + 1)
        if links[z, d - 1].any()
    }
    condensed = Condensed(sheets[0, :, : ny - 1, : nx - 1], sheets[1], pairs)
    return Gathered(0.0, 0.0, nodes, right, condensed)


def create_state(run: Run, path: str, shape: tuple[int, ...], dtype: str) -> None:
    """Create an array of states; its first axis counts boxes or sections."""
    create_array(
        *(run.uri, f"solve/{path}"),
        shape=shape,
        chunk=(1, *shape[1:]),
        dtype=dtype,
        fill_value=0,
        dimension_names=("row", *(f"axis_{k}" for k in range(1, len(shape)))),
        attributes={"meaning": "state of the solver"},
    )


def open_state(run: Run, path: str) -> Array:
    """Open an array of states."""
    return open_array(run.uri, f"solve/{path}")


def write_state(run: Run, path: str, row: int, values: NDArray[Any]) -> None:
    """Write a row, padded: boxes at the rim are smaller."""
    array = open_state(run, path)
    padded = np.zeros(array.shape[1:], array.dtype)
    padded[tuple(slice(n) for n in values.shape)] = values
    write_region(array, row_of(array, row), padded[None])


def read_state(run: Run, path: str, row: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the unpadded part of a row."""
    array = open_state(run, path)
    return read_region(array, (slice(row, row + 1), *map(slice, shape)))[0]


def row_of(array: Array, row: int) -> tuple[slice, ...]:
    """Return the region of a row."""
    return (slice(row, row + 1), *(slice(None) for _ in array.shape[1:]))


def path_of(turn: Turn) -> str:
    """Return where the result of a turn lies."""
    if turn.colour == CORRECTION:
        return f"correct-{turn.iteration}"
    return f"sweep-{turn.iteration}-{turn.colour}"


def sections_behind(run_uri: str, z: int) -> list[int]:
    """The sections from whose states a section's field is made."""
    tied = ties_of(run_uri)["tied"]
    if z in tied or not tied:
        return [z]
    return [max((k for k in tied if k < z), default=tied[0]),
            min((k for k in tied if k > z), default=tied[-1])]  # fmt: skip


def section_nodes(cut: Decomposition, z: int) -> Nodes:
    """Return the nodes of a section."""
    return Nodes((z, 0, 0), (z + 1, *cut.grid[1:]))


def largest(shapes: list[Triple]) -> Triple:
    """Return the shape that holds all others."""
    return _triple(np.max(shapes, axis=0).tolist())


@lru_cache(maxsize=8)
def ties_of(run_uri: str) -> dict[str, Any]:
    """Return what the phase "ties" found; cached, because it never changes."""
    return dict(records.read_commit(run_uri, "relax", "ties", Whole().label).value)


def grid_of(run: Run) -> Triple:
    """Return the nodes (nz, ny, nx) of a run's mesh."""
    canvas = inputs.coarse(run.uri).canvas
    return (run.shape[0], *node_grid(canvas, run.config.relax.node_spacing_px))


def _triple(values: list[int]) -> Triple:
    z, y, x = values
    return z, y, x


def finite(value: float) -> float | None:
    """Return a number that JSON can hold."""
    return value if np.isfinite(value) else None
