"""The boxes that a large stack is relaxed in, summed up: a large volume has ten thousands of them.

Boxes are cut along each axis by itself, so what holds for all of them is a product over the axes of
what holds for a row of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from alignment.decomposition import Box, Decomposition, Nodes, Triple


@dataclass(frozen=True)
class Boxes:
    """What the plan must know of a decomposition."""

    count: int
    colours: int
    farthest: int
    """Sections over which matches reach, on the coarse mesh."""
    core: Triple
    """Nodes (z, y, x) of the largest core."""
    moved: Triple
    """Nodes of the largest box that a sweep moves."""
    seen: Triple
    """Nodes of the largest neighbourhood of one."""
    gathered: Triple
    """Coarse nodes of the largest neighbourhood of a core."""
    corrected: Triple
    """Coarse nodes of the whole stack."""
    all_moved: int
    """Nodes that one sweep over all boxes moves."""
    all_seen: int
    """Nodes that it reads."""


def sum_up(cut: Decomposition) -> Boxes:
    """Return what the boxes of a decomposition have in common."""
    rows = [_row(cut, axis) for axis in range(3)]
    seen = [[cut.neighbourhood(box.moved) for box in row] for row in rows]
    gathered = [[cut.coarse(cut.neighbourhood(box.core)) for box in row] for row in rows]
    return Boxes(
        count=len(cut.boxes),
        colours=cut.colours,
        farthest=-(-cut.halo[0] // 2**cut.halvings) + 1,
        core=_largest([[box.core for box in row] for row in rows]),
        moved=_largest([[box.moved for box in row] for row in rows]),
        seen=_largest(seen),
        gathered=_largest(gathered),
        corrected=cut.coarse(cut.whole).shape,
        all_moved=_sum([[box.moved for box in row] for row in rows]),
        all_seen=_sum(seen),
    )


def _row(cut: Decomposition, axis: int) -> list[Box]:
    """Return the boxes along one axis that begin where the first one does on the others."""
    first = cut.boxes[0].core.start
    others = [k for k in range(3) if k != axis]
    row = [box for box in cut.boxes if all(box.core.start[k] == first[k] for k in others)]
    ends = [box.core.start[axis] for box in row]
    if any(a >= b for a, b in pairwise(ends)):
        raise AssertionError(f"boxes do not tile axis {axis}: they begin at {ends}")
    return row


def _largest(rows: list[list[Nodes]]) -> Triple:
    z, y, x = (max(nodes.shape[axis] for nodes in row) for axis, row in enumerate(rows))
    return z, y, x


def _sum(rows: list[list[Nodes]]) -> int:
    return prod(sum(nodes.shape[axis] for nodes in row) for axis, row in enumerate(rows))
