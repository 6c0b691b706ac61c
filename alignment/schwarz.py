"""Schwarz's method: a stack too large for one worker is relaxed in overlapping boxes of nodes.

A *sweep* lets the boxes of one colour find the minimum of the energy over their nodes, all others
held; boxes of a colour share no match, so they do it side by side. When all colours have had their
turn, what is left is smooth, and one correction on a coarse mesh over the whole stack, gathered by
all boxes, takes it away. Each of these finds a minimum over a part of the displacements, so the
energy never rises, and it stops when the gradient of the whole is small: the answer is that of one
solve, whatever the boxes (M. Dryja, O. B. Widlund, "Domain decomposition algorithms with small
overlap", SIAM J. Sci. Comput. 15, 1994, for the two levels; here they act one after the other).

This module says who computes what from what. It reads and writes nothing: `alignment.stages`
keeps the boxes' states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, lcm, prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.config import RelaxConfig
from alignment.energy import Condensed, StackEnergy, Vector, Weights
from alignment.links import Links
from alignment.newton import Minimum, length, minimise

OVERLAP_SECTIONS, OVERLAP_NODES = 8, 16
"""How far boxes reach into their neighbours. Between sections that matches of ten times the usual
weight tie, what the coarse mesh is too coarse to carry fades over some 7 of them."""
SLAB_SECTIONS = 64
"""Of a slab, unless the configuration says otherwise."""
LEAST_SECTIONS = 4
_MOST_HALVINGS = 3  # of the coarse mesh
_COARSE_TOLERANCE = 1e-3
_LOCAL_REDUCTION = 0.03  # of a box's gradient in one sweep; its rim is not final anyhow
_LOCAL_MARGIN = 0.3  # of the tolerance: what boxes that are done add up to must be below it

Triple = tuple[int, int, int]


class Nodes(NamedTuple):
    """A box of nodes (z, y, x), half-open."""

    start: Triple
    stop: Triple

    @property
    def shape(self) -> Triple:
        """Number of nodes along the axes."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def grown(self, by: Triple, grid: Triple) -> Nodes:
        """Return a larger box, as far as the grid reaches."""
        return Nodes(
            _triple(max(a - n, 0) for a, n in zip(self.start, by, strict=True)),
            _triple(min(b + n, m) for b, n, m in zip(self.stop, by, grid, strict=True)),
        )

    def within(self, other: Nodes) -> tuple[slice, slice, slice]:
        """Return where this box lies in an array over another one."""
        z, y, x = (
            slice(a - o, b - o) for a, b, o in zip(self.start, self.stop, other.start, strict=True)
        )
        return z, y, x

    def meets(self, other: Nodes) -> Nodes | None:
        """Return what two boxes share."""
        start = _triple(map(max, self.start, other.start))
        stop = _triple(map(min, self.stop, other.stop))
        return Nodes(start, stop) if all(a < b for a, b in zip(start, stop, strict=True)) else None


class Box(NamedTuple):
    """One box of a decomposition; `core`s tile the grid, `moved` is what a sweep of it moves."""

    number: int
    colour: int
    core: Nodes
    moved: Nodes


@dataclass(frozen=True)
class Decomposition:
    """How a grid of nodes is cut.

    Attributes
    ----------
    grid : tuple of int
        Nodes (nz, ny, nx).
    boxes : tuple of Box
    colours : int
        Boxes of one colour are independent; colours have their turns in order.
    halvings : int
        The coarse mesh has every 2^halvings-th node.
    halo : tuple of int
        How far matches reach, in nodes.
    align : int
        In-plane, boxes that are read begin at multiples of so many nodes.
    """

    grid: Triple
    boxes: tuple[Box, ...]
    colours: int
    halvings: int
    halo: Triple
    align: int

    def neighbourhood(self, nodes: Nodes) -> Nodes:
        """Return all nodes that matter to some: as far as matches reach, from an aligned start."""
        step = 2**self.halvings
        grown = nodes.grown(self.halo, self.grid)
        z, y, x = grown.start
        start = (z // step * step, y // self.align * self.align, x // self.align * self.align)
        return Nodes(start, grown.stop)

    def of_colour(self, colour: int) -> list[Box]:
        """Return the boxes of one colour."""
        return [box for box in self.boxes if box.colour == colour]

    def coarse(self, nodes: Nodes) -> Nodes:
        """Return the coarse nodes that functions on a neighbourhood are made of."""
        shape = nodes.shape
        for _ in range(self.halvings):
            shape = _triple(n // 2 + 1 if n > 1 else 1 for n in shape)
        start = _triple(a >> self.halvings for a in nodes.start)
        return Nodes(start, _triple(a + n for a, n in zip(start, shape, strict=True)))

    @property
    def whole(self) -> Nodes:
        """All nodes."""
        return Nodes((0, 0, 0), self.grid)


def count_boxes(grid: Triple, config: RelaxConfig) -> Triple:
    """Return into how many boxes a grid of nodes (nz, ny, nx) is cut along each axis."""
    tile, slab = config.tile_nodes, config.slab_sections
    if not slab and prod(grid) <= SLAB_SECTIONS * tile * tile:
        return 1, 1, 1
    sizes = (max(slab or SLAB_SECTIONS, LEAST_SECTIONS), tile, tile)
    return _triple(max(round(n / size), 1) for n, size in zip(grid, sizes, strict=True))


def decompose(
    grid: Triple,
    config: RelaxConfig,
    match_spacing_px: int,
    *,
    farthest: int,
    reach_px: float = 0.0,
) -> Decomposition:
    """Cut a grid of nodes into slabs of sections, and these into tiles where they are large.

    Parameters
    ----------
    grid : tuple of int
        Nodes (nz, ny, nx).
    config : RelaxConfig
    match_spacing_px : int
    farthest : int
        Largest distance d, in sections, over which a match reaches.
    reach_px : float
        Length of the longest match.
    """
    node, counts = config.node_spacing_px, count_boxes(grid, config)
    halvings = _MOST_HALVINGS
    while halvings > 1 and any(
        k > 1 and n // k < 2 ** (halvings + 1) for n, k in zip(grid, counts, strict=True)
    ):
        halvings -= 1
    align = lcm(node * 2**halvings, match_spacing_px) // node
    steps = (2**halvings, align, align)
    edges = [_edges(n, k, step) for n, k, step in zip(grid, counts, steps, strict=True)]
    in_plane = ceil(reach_px / node) + 1
    halo = (farthest, in_plane, in_plane)
    is_cut = [len(line) > 2 for line in edges]
    most = (OVERLAP_SECTIONS, OVERLAP_NODES, OVERLAP_NODES)
    overlap = _triple(wanted if cut else 0 for wanted, cut in zip(most, is_cut, strict=True))
    # As many colours as keep what boxes of one colour move, and see, apart.
    colours = _triple(
        _colours(line, 2 * n + reach) for line, n, reach in zip(edges, overlap, halo, strict=True)
    )
    boxes: list[Box] = []
    for place in product(*(range(len(line) - 1) for line in edges)):
        core = Nodes(
            _triple(line[k] for line, k in zip(edges, place, strict=True)),
            _triple(line[k + 1] for line, k in zip(edges, place, strict=True)),
        )
        colour = 0
        for k, n in zip(place, colours, strict=True):
            colour = n * colour + k % n
        boxes.append(Box(len(boxes), colour, core, core.grown(overlap, grid)))
    return Decomposition(grid, tuple(boxes), prod(colours), halvings, halo, align)


class Problem(NamedTuple):
    """What the energy over some nodes is made of."""

    nodes: Nodes
    links: Sequence[Links]
    """Of all matches with both ends there; z counts from the first section there."""
    stiffness: NDArray[np.float32]
    """Of the cells there, (nz, ny - 1, nx - 1)."""
    free: NDArray[np.float32] | None
    """(nz, ny, nx): 0 in sections that are locked."""


def sweep(
    problem: Problem,
    box: Box,
    u: Vector,
    config: RelaxConfig,
    match_spacing_px: int,
    *,
    reference: float,
    boxes: int,
) -> tuple[Vector, Minimum]:
    """Find the minimum over a box's nodes, the others held where they are.

    Parameters
    ----------
    problem : Problem
        Over the neighbourhood of ``box.moved``.
    u : float64 ndarray of shape (nz, 2, ny, nx)
        Displacements there.
    reference : float
        Length of the whole stack's gradient that counts as 1.
    boxes : int
        How many share the tolerance.

    Returns
    -------
    u : float64 ndarray of shape (nz, 2, ny, nx)
        Over ``box.moved``.
    minimum : Minimum
    """
    free = np.zeros(problem.nodes.shape, np.float32)
    free[box.moved.within(problem.nodes)] = 1
    if problem.free is not None:
        free *= problem.free
    energy = StackEnergy(
        *(problem.links, problem.nodes.shape, match_spacing_px, config),
        stiffness=problem.stiffness,
        free=free,
    )
    share = reference * _LOCAL_MARGIN / boxes**0.5
    found = minimise(energy, u, reference=share, reduction=_LOCAL_REDUCTION)
    z, y, x = box.moved.within(problem.nodes)
    return found.u[z, :, y, x], found


class Gathered(NamedTuple):
    """A box's share of the whole stack's energy, gradient and coarse mesh."""

    energy: float
    square: float
    """Of the length of the gradient at the nodes of the core."""
    nodes: Nodes
    """Coarse nodes of what follows."""
    right: Vector
    """Minus the gradient, (nz, 2, ny, nx)."""
    condensed: Condensed
    """Sections and nodes count from the first of `nodes`."""


def gather(
    problem: Problem,
    box: Box,
    u: Vector,
    config: RelaxConfig,
    match_spacing_px: int,
    decomposition: Decomposition,
    *,
    is_believed: bool,
) -> Gathered:
    """Return a box's share: of matches that begin at its core's nodes, and its core's cells.

    `problem` and `u` are those of the neighbourhood of the core; `is_believed` takes every match
    for right, as long as nothing has moved.
    """
    limit = np.inf if is_believed else config.huber_px
    weights = Weights.KEEP if is_believed else Weights.MAJORISE
    core = box.core.within(problem.nodes)
    inside = np.zeros(problem.nodes.shape, np.float32)
    inside[core] = 1
    free = inside if problem.free is None else inside * problem.free
    settings = (problem.nodes.shape, match_spacing_px, config)
    around = StackEnergy(problem.links, *settings, stiffness=problem.stiffness, free=free)
    _, gradient = around.evaluate(u, huber_px=limit)
    own = StackEnergy(
        *(_begun(problem, box.core, config, match_spacing_px), *settings),
        stiffness=problem.stiffness * inside[:, :-1, :-1],
        mass=around.mass * inside,
        free=problem.free,
    )
    value, slope = own.evaluate(u, weights, huber_px=limit)
    nodes = decomposition.coarse(problem.nodes)
    return Gathered(
        value.total,
        length(gradient) ** 2,
        nodes,
        -restrict(slope, problem.nodes, nodes, decomposition.halvings),
        own.condense(decomposition.halvings),
    )


def correct(
    shares: Iterable[Gathered], config: RelaxConfig, decomposition: Decomposition, threads: int = 1
) -> NDArray[np.float64]:
    """Solve for the coarse correction (nz, 2, ny, nx) of the whole stack."""
    whole = decomposition.coarse(decomposition.whole)
    nz, ny, nx = whole.shape
    stiffness, mass = np.zeros((nz, ny - 1, nx - 1), np.float32), np.zeros(whole.shape, np.float32)
    right = np.zeros((nz, 2, ny, nx))
    sums: dict[tuple[int, int], NDArray[np.float32]] = {}
    for share in shares:
        common = share.nodes.meets(whole)
        if common is None:
            raise AssertionError("a share of the coarse mesh lies outside of it")
        to, at = common.within(whole), common.within(share.nodes)
        cells = tuple(slice(s.start, s.stop - 1) for s in to[1:])
        own_cells = tuple(slice(s.start, s.stop - 1) for s in at[1:])
        stiffness[to[0], *cells] += share.condensed.stiffness[at[0], *own_cells]
        mass[to] += share.condensed.mass[at]
        right[to[0], :, to[1], to[2]] += share.right[at[0], :, at[1], at[2]]
        z0 = share.nodes.start[0]
        for (z, fixed), values in share.condensed.links.items():
            total = sums.setdefault((z0 + z, z0 + fixed), np.zeros((5, ny, nx), np.float32))
            part = values[:, at[1], at[2]]
            total[:3, to[1], to[2]] += part[:3]
            total[3:, to[1], to[2]] += part[3:] * (part[0] + part[2])
    links = []
    for (z, fixed), total in sorted(sums.items()):
        trace = total[0] + total[2]
        match = np.divide(total[3:], trace, out=np.zeros_like(total[3:]), where=trace > 0)
        weight = (trace > 0).astype(np.float32)
        links.append(Links(z, z - fixed, match, weight, total[:3].copy()))
    spacing = config.node_spacing_px * 2**decomposition.halvings
    energy = StackEnergy(
        *(links, whole.shape, spacing, config.model_copy(update={"node_spacing_px": spacing})),
        stiffness=stiffness,
        mass=mass,
        threads=threads,
    )
    energy.prepare()
    return energy.solve(right, tolerance=_COARSE_TOLERANCE)[0]


def restrict(values: Vector, nodes: Nodes, coarse: Nodes, halvings: int) -> Vector:
    """Sum values (nz, 2, ny, nx) over some nodes into the coarse ones they lie between."""
    summed = values
    for axis, (first, n, to, m) in enumerate(_axes(nodes, coarse)):
        low, share = _between(first, n, to, halvings)
        summed = np.moveaxis(summed, axis + (axis > 0), 0)
        total = np.zeros((m + 1, *summed.shape[1:]))
        weight = share.reshape(-1, *(1,) * (summed.ndim - 1))
        np.add.at(total, low, (1 - weight) * summed)
        np.add.at(total, low + 1, weight * summed)
        summed = np.moveaxis(total[:m], 0, axis + (axis > 0))
    return summed


def prolong(values: Vector, coarse: Nodes, nodes: Nodes, halvings: int) -> Vector:
    """Interpolate coarse values (nz, 2, ny, nx) linearly to some nodes."""
    fine = values
    for axis, (first, n, to, m) in enumerate(_axes(nodes, coarse)):
        low, share = _between(first, n, to, halvings)
        fine = np.moveaxis(fine, axis + (axis > 0), 0)
        weight = share.reshape(-1, *(1,) * (fine.ndim - 1))
        fine = (1 - weight) * fine[low] + weight * fine[np.minimum(low + 1, m - 1)]
        fine = np.moveaxis(fine, 0, axis + (axis > 0))
    return np.ascontiguousarray(fine)


class Turn(NamedTuple):
    """One thing that made a state what it is, in order: a sweep's boxes, or a correction."""

    iteration: int
    colour: int
    """-1: the coarse correction after the iteration's sweeps."""


CORRECTION = -1


def history(iteration: int, colour: int, colours: int) -> list[Turn]:
    """Return what to paint over each other to see the state before a colour's turn.

    Iterations count from 1; the one before them, 0, is a coarse correction of nothing moved.
    With ``colour == colours`` it is the state after all sweeps.
    """
    turns = [Turn(iteration - 1, c) for c in range(colours)] if iteration > 1 else []
    turns.append(Turn(iteration - 1, CORRECTION))
    turns += [Turn(iteration, c) for c in range(colour)]
    # All nodes have been swept: what was before does not show.
    return turns[-colours:] if colour == colours else turns


def paint(
    nodes: Nodes,
    turns: Iterable[Turn],
    decomposition: Decomposition,
    read: Callable[[Turn, Box | None], Vector],
    free: NDArray[np.float32] | None = None,
) -> Vector:
    """Return the displacements (nz, 2, ny, nx) of some nodes after some turns.

    `read` gives a box's result over ``box.moved``, or for None the coarse correction. Nodes that
    are not `free`, (nz, ny, nx), are not moved by corrections.
    """
    nz, ny, nx = nodes.shape
    u = np.zeros((nz, 2, ny, nx))
    coarse = decomposition.coarse(decomposition.whole)
    for turn in turns:
        if turn.colour == CORRECTION:
            step = prolong(read(turn, None), coarse, nodes, decomposition.halvings)
            u += step if free is None else step * free[:, None]
            continue
        for box in decomposition.of_colour(turn.colour):
            common = box.moved.meets(nodes)
            if common is not None:
                z, y, x = common.within(nodes)
                from_z, from_y, from_x = common.within(box.moved)
                u[z, :, y, x] = read(turn, box)[from_z, :, from_y, from_x]
    return u


def _begun(
    problem: Problem, core: Nodes, config: RelaxConfig, match_spacing_px: int
) -> list[Links]:
    """Return the links that begin in a core; the others weigh nothing."""
    ratio = match_spacing_px / config.node_spacing_px
    z0, y0, x0 = problem.nodes.start
    begun = []
    for pair in problem.links:
        if not core.start[0] <= pair.z + z0 < core.stop[0]:
            continue
        y, x = (np.arange(n) * ratio for n in pair.weight.shape)
        in_y = (y + y0 >= core.start[1]) & (y + y0 < core.stop[1])
        in_x = (x + x0 >= core.start[2]) & (x + x0 < core.stop[2])
        inside = in_y[:, None] & in_x
        begun.append(
            Links(pair.z, pair.d, pair.match, np.where(inside, pair.weight, 0), pair.precision)
        )
    return begun


def _axes(nodes: Nodes, coarse: Nodes) -> Iterator[tuple[int, int, int, int]]:
    return zip(nodes.start, nodes.shape, coarse.start, coarse.shape, strict=True)


def _between(
    first: int, n: int, coarse_first: int, halvings: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the coarse node before each of n nodes, and the share of the next."""
    at = first + np.arange(n)
    return (at >> halvings) - coarse_first, (at % 2**halvings) / 2**halvings


def match_range(nodes: Nodes, ratio: float) -> tuple[slice, slice]:
    """Return which rows and columns of matches, `ratio` nodes apart, begin among some nodes."""
    y, x = (
        slice(ceil(a / ratio), int((b - 1) // ratio) + 1)
        for a, b in zip(nodes.start[1:], nodes.stop[1:], strict=True)
    )
    return y, x


def _colours(line: list[int], apart: int) -> int:
    """Return how many colours keep boxes of one colour, cut at a line's places, so far apart."""
    between = np.diff(line)[1:-1]  # what may lie between two of them
    boxes = len(line) - 1
    return min(1 + ceil(apart / int(between.min())), boxes) if between.size else boxes


def _edges(n: int, parts: int, step: int) -> list[int]:
    """Return where n nodes are cut into so many parts of almost equal size, at multiples."""
    cuts = {round(k * n / parts / step) * step for k in range(1, parts)}
    return [0, *sorted(cut for cut in cuts if 0 < cut < n), n]


def _triple(values: Iterable[int]) -> Triple:
    z, y, x = values
    return int(z), int(y), int(x)
