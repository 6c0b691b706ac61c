"""How a stack's mesh is cut into boxes of nodes: slabs of sections, and tiles where these are wide.

The cores of the boxes tile the mesh; what a sweep moves overlaps. `alignment.schwarz` says what is
done with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import ceil, lcm, prod
from typing import NamedTuple

import numpy as np

from alignment.config import RelaxConfig

OVERLAP_SECTIONS, OVERLAP_NODES = 8, 16
"""How far boxes reach into their neighbours. Between sections that matches of ten times the usual
weight tie, what the coarse mesh is too coarse to carry fades over some 7 of them."""
SLAB_SECTIONS = 64
"""Of a slab, unless the configuration says otherwise."""
LEAST_SECTIONS = 4
_MOST_HALVINGS = 3  # of the coarse mesh

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
