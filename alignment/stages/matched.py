"""Which pairs were matched, which of their blocks, and how to read them.

Every section is matched with its nearest `match.neighbours` earlier ones. The further ones, up to
`match.retry_neighbours`, are *retries*: only blocks with nodes that nothing nearer ties are matched
with them, so their arrays have gaps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.holes import Box
from alignment.match import CHANNELS
from alignment.runs import Run
from alignment.stages import inputs
from alignment.stages.units import NodeBlock, Ref, Section
from storage.commit import records
from storage.volume import open_array, read_region

BLOCK_NODES = 64
"""Side of a block of nodes: one object of `matches/`, one task of a few seconds."""


def retries(run: Run) -> range:
    """Return which neighbours, counted backwards from 1, are tried where none is trusted."""
    config = run.config.match
    return range(config.neighbours + 1, config.retry_neighbours + 1)


def holes_phase(k: int) -> str:
    """Return the phase that looks for what the k-th neighbour must tie."""
    return f"holes{k}"


def round_phase(k: int, *, retry: int = 0) -> str:
    """Return the phase of round k, of the pairs matched anyway or of one retry."""
    return f"retry{retry}_round{k}" if retry else f"round{k}"


def last_phases(run: Run) -> list[str]:
    """Return the phases whose matches are final."""
    last = len(run.config.match.refine)
    return [round_phase(last), *(round_phase(last, retry=k) for k in retries(run))]


def array_path(run: Run, k: int) -> str:
    """Return where round k writes: `matches` for the last, `rounds/k` for those before."""
    return "matches" if k == len(run.config.match.refine) else f"rounds/{k}"


def distance(run: Run, z: int, k: int) -> int:
    """Return how many sections back the k-th earlier section that is there lies; 0 if none is."""
    there = [earlier for earlier in inputs.present(run) if earlier < z]
    return z - there[-k] if k <= len(there) else 0


def retried_boxes(run: Run, z: int, k: int) -> dict[tuple[int, int], Box]:
    """Return, by the first node of its block, the box of each block of section z to retry."""
    record = records.read_commit(run.uri, "match", holes_phase(k), Section(z).label).value
    return {(box[0], box[1]): (box[2], box[3], box[4], box[5]) for box in record["boxes"]}


def retried_pairs(run: Run, z: int, *, below: int | None = None) -> dict[int, int]:
    """Return distance d to neighbour k for the retries of section z that have blocks.

    Parameters
    ----------
    below : int, optional
        Only those with a nearer neighbour than this.
    """
    pairs = {}
    for k in retries(run):
        d = distance(run, z, k)
        if d and (below is None or k < below) and retried_boxes(run, z, k):
            pairs[d] = k
    return pairs


def read_pair(run: Run, z: int, d: int, *, retry: int = 0) -> NDArray[np.float32]:
    """Return the final matches of a pair, (channels, ny, nx); NaN where it was not matched."""
    ny, nx = open_array(run.uri, f"matches/{d}").shape[2:]
    return read_blocks(run, "matches", z, d, (0, 0, ny, nx), retry=retry)


def read_blocks(
    run: Run, path: str, z: int, d: int, box: Box, *, retry: int = 0
) -> NDArray[np.float32]:
    """Return the matches of a pair in a box of nodes; NaN where a retry left a block out."""
    array = open_array(run.uri, f"{path}/{d}")
    i0, j0, i1, j1 = box
    if not retry:
        return read_region(array, np.s_[z : z + 1, :, i0:i1, j0:j1])[0]
    found = np.full((len(CHANNELS), i1 - i0, j1 - j0), np.nan, np.float32)
    for i, j in retried_boxes(run, z, retry):
        a, b = max(i, i0), max(j, j0)
        c, e = min(i + BLOCK_NODES, i1), min(j + BLOCK_NODES, j1)
        if a < c and b < e:
            block = read_region(array, np.s_[z : z + 1, :, a:c, b:e])[0]
            found[:, a - i0 : c - i0, b - j0 : e - j0] = block
    return found


def pair_refs(run: Run, z: int, d: int, *, retry: int = 0) -> list[Ref]:
    """Return the final matches of a pair, as inputs."""
    return block_refs(run, z, d, len(run.config.match.refine), retry=retry)


def holes_refs(run: Run, z: int, *, below: int | None = None) -> list[Ref]:
    """Return what `retried_pairs` reads, as inputs."""
    return [
        Ref("match", holes_phase(k), Section(z).label)
        for k in retries(run)
        if distance(run, z, k) and (below is None or k < below)
    ]


def block_refs(
    run: Run, z: int, d: int, k: int, *, around: Box | None = None, retry: int = 0
) -> list[Ref]:
    """Return the blocks of a pair in round k, as inputs; only those that touch the box `around`."""
    ny, nx = open_array(run.uri, f"{array_path(run, k)}/{d}").shape[2:]
    i0, j0, i1, j1 = around or (0, 0, ny, nx)
    blocks = (
        retried_boxes(run, z, retry)
        if retry
        else [(i, j) for i in range(0, ny, BLOCK_NODES) for j in range(0, nx, BLOCK_NODES)]
    )
    return [
        Ref("match", round_phase(k, retry=retry), NodeBlock(z, d, i, j, 0, 0).label)
        for i, j in blocks
        if i < i1 and i + BLOCK_NODES > i0 and j < j1 and j + BLOCK_NODES > j0
    ]
