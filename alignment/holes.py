"""Where a section hangs on nothing: tissue whose matches were all missing or rejected."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Box = tuple[int, int, int, int]
"""Nodes [i0, i1) x [j0, j1) as (i0, j0, i1, j1)."""

MARGIN_NODES = 4
"""How far beyond a hole matches are tried too: the filters compare each with its neighbours."""


def untied_nodes(trusted: Sequence[Floats], tissue: Bools, min_nodes: int) -> Bools:
    """Return the nodes on tissue that no trusted match ties to another section.

    Parameters
    ----------
    trusted : sequence of float32 ndarray of shape (c, ny, nx)
        One for each section that was matched with; NaN where no match is trusted.
    tissue : bool ndarray of shape (ny, nx)
        Nodes where the section can be seen.
    min_nodes : int
        Smaller islands of untied nodes are left out: the sheet carries their neighbours' place over
        to them, and as small an island of matches would not be trusted.

    Returns
    -------
    bool ndarray of shape (ny, nx)

    Examples
    --------
    >>> match = np.zeros((2, 1, 6), np.float32)
    >>> match[:, 0, [0, 3, 4]] = np.nan
    >>> untied_nodes([match], np.ones((1, 6), bool), min_nodes=2)
    array([[False, False, False,  True,  True, False]])
    """
    untied = tissue.copy()
    for matches in trusted:
        untied &= np.isnan(matches[0])
    label, _ = ndi.label(untied, np.ones((3, 3)))
    kept: Bools = untied & (np.bincount(label.ravel())[label] >= min_nodes)
    return kept


def boxes_around(nodes: Bools, block_nodes: int) -> dict[tuple[int, int], Box]:
    """Return, for each square block that holds such nodes, the box of the block to look at.

    Parameters
    ----------
    nodes : bool ndarray of shape (ny, nx)
    block_nodes : int
        Side of the blocks.

    Returns
    -------
    dict
        First node (i, j) of a block to the box of its nodes that lie within `MARGIN_NODES` of one
        of `nodes`. The margin of a hole at a block's edge reaches into the next block.
    """
    side = 2 * MARGIN_NODES + 1
    grown = ndi.binary_dilation(nodes, np.ones((side, side)))
    boxes = {}
    for i in range(0, nodes.shape[0], block_nodes):
        for j in range(0, nodes.shape[1], block_nodes):
            rows, columns = np.nonzero(grown[i : i + block_nodes, j : j + block_nodes])
            if rows.size:
                boxes[i, j] = (
                    i + int(rows.min()),
                    j + int(columns.min()),
                    i + int(rows.max()) + 1,
                    j + int(columns.max()) + 1,
                )
    return boxes
