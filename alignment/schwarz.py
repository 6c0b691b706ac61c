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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.config import RelaxConfig
from alignment.decomposition import Box, Decomposition, Nodes
from alignment.energy import Condensed, StackEnergy, Vector, Weights
from alignment.links import Links
from alignment.newton import Minimum, length, minimise

_COARSE_TOLERANCE = 1e-3
_LOCAL_REDUCTION = 0.03  # of a box's gradient in one sweep; its rim is not final anyhow
_LOCAL_MARGIN = 0.3  # of the tolerance: what boxes that are done add up to must be below it


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
