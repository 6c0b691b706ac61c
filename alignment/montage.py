"""The tiles of one section, put together: which pairs to look at, and where all of them lie.

A position is (y, x) of a tile's first pixel, px at mip 0. A match (i, j) says that tile j lies at
``shift`` from tile i. All tiles are placed at once, by robust weighted least squares over the
matches; the nominal positions, those of the microscope's stage, hold what no match decides.

`alignment.tilematch` finds the matches, `alignment.mosaic` draws the tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from alignment.config import Config, Fraction
from alignment.errors import DataError
from alignment.tilematch import TileMatch

Points = NDArray[np.float64]
Pair = tuple[int, int]

STEPS_PER_PX = 32
"""Positions are whole multiples of 1/32 px, so that equal tiles give equal bytes everywhere."""

_NOMINAL = 1e-4  # weight of a nominal offset against a typical match: 20 px off move it 0.002 px
_ANCHOR = 1e-7  # holds the whole section where its stage says
_ROUNDS = 30
_KNEE_PX = 1.0  # residuals above this count by their length, not by its square


class MontageConfig(Config):
    """Stitching: which tiles are compared, and what is believed."""

    search_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25
    """How far from its nominal place a tile may lie against its neighbour, of the tile's longer
    side."""
    min_score: Fraction = 0.2
    """Least correlation over the overlap, at about 512 px a tile."""
    min_significance: Annotated[float, Field(gt=0.0)] = 8.0
    """Least correlation in standard deviations of that of unrelated texture; such never reached 6
    in real tiles, and true overlaps of a twelfth of a tile reach 20 to 60."""
    min_distinctness: Annotated[float, Field(ge=1.0)] = 1.5
    """Below this the two best places are too alike to choose, as in a repeated pattern."""
    max_residual_px: Annotated[float, Field(gt=0.0)] = 8.0
    """A match that contradicts the others by more is rejected, unless five times the section's
    median residual is more still: a lens that bends its image spreads all residuals."""


@dataclass(frozen=True)
class Solution:
    """Where the tiles of one section lie."""

    positions: Points
    """(n, 2): (y, x) of each tile's first pixel, px at mip 0, multiples of 1/32 px."""
    residual_px: Mapping[Pair, float]
    """Of every match that was given, rejected ones too: how far it is from the positions."""
    rejected: tuple[Pair, ...]
    """Matches that contradict the others."""
    parts: tuple[tuple[int, ...], ...]
    """Tiles that hold together by matches, the largest part first; a tile alone is its own."""


def find_pairs(
    nominal: Points | None, shapes: NDArray[np.int64], search_fraction: float
) -> list[Pair]:
    """Return the pairs (i, j), i < j, of tiles that may overlap.

    Parameters
    ----------
    nominal : float64 ndarray of shape (n, 2), optional
        Nominal positions. Without them tiles are a strip: each may overlap the one after it.
    shapes : int64 ndarray of shape (n, 2)
        (y, x) of each tile, px.
    search_fraction : float
        Boxes are grown by half of this, of their longer side, on every side.
    """
    n = len(shapes)
    if nominal is None:
        return [(i, i + 1) for i in range(n - 1)]
    margin = shapes.max(axis=1, keepdims=True) * (search_fraction / 2)
    low, high = nominal - margin, nominal + shapes + margin
    order = np.argsort(low[:, 0], kind="stable")
    starts = low[order, 0]
    pairs = []
    for rank, i in enumerate(order):
        near = order[rank + 1 : int(np.searchsorted(starts, high[i, 0]))]
        touching = (low[near] < high[i]).all(1) & (high[near] > low[i]).all(1)
        pairs += [(min(int(i), int(j)), max(int(i), int(j))) for j in near[touching]]
    return sorted(pairs)


def is_believed(match: TileMatch, config: MontageConfig) -> str:
    """Return why a match is not believed by itself, "" if it is."""
    if match.score < config.min_score:
        return f"score {match.score:.2f} is below {config.min_score}"
    if match.significance < config.min_significance:
        return f"significance {match.significance:.1f} is below {config.min_significance}"
    if match.distinctness < config.min_distinctness:
        return f"two places are alike: distinctness {match.distinctness:.2f}"
    return ""


def solve_section(
    matches: Mapping[Pair, TileMatch],
    nominal: Points | None,
    n: int,
    config: MontageConfig,
) -> Solution:
    """Place the tiles of one section.

    Least squares with Huber's weights [1]_ finds the matches that contradict the others; without
    them it is solved again, until none is left. A tile without a match keeps its nominal offset
    from its neighbours.

    Parameters
    ----------
    matches : mapping of (i, j) to TileMatch
        Only those that `is_believed`.
    nominal : float64 ndarray of shape (n, 2), optional
        Nominal positions; without them matches must hold all tiles together.
    n : int
        Number of tiles.

    Raises
    ------
    DataError
        If there are no nominal positions, and matches leave the tiles in several parts.

    References
    ----------
    .. [1] P. J. Huber, "Robust Estimation of a Location Parameter", Ann. Math. Statist. 35(1),
       1964.
    """
    pairs = sorted(matches)
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    shifts = np.array([matches[p].shift_yx for p in pairs], dtype=np.float64).reshape(-1, 2)
    weights = _weights([matches[p] for p in pairs])
    kept = np.ones(len(pairs), np.bool_)
    prior = _Prior(nominal, n)
    while True:
        positions = _place(ends[kept], shifts[kept], weights[kept], prior)
        residual = _residuals(positions, ends, shifts)
        wrong = kept & (residual > _limit(residual[kept], config))
        if not wrong.any():
            break
        kept &= ~wrong
    parts = _parts(ends[kept], n)
    if nominal is None and len(parts) > 1:
        gaps = [(i, i + 1) for i in range(n - 1) if not any({i, i + 1} <= set(p) for p in parts)]
        raise DataError(
            f"tiles {', '.join(f'{i} and {j}' for i, j in gaps[:5])} do not match, and nothing "
            "else says where they lie; write a positions.csv with their rough y and x"
        )
    if nominal is None:
        positions = positions - positions.min(axis=0)
    rounded = np.rint(positions * STEPS_PER_PX) / STEPS_PER_PX + 0.0
    residual = _residuals(rounded, ends, shifts)
    return Solution(
        positions=rounded,
        residual_px={pair: float(r) for pair, r in zip(pairs, residual, strict=True)},
        rejected=tuple(pair for pair, k in zip(pairs, kept, strict=True) if not k),
        parts=parts,
    )


class _Prior:
    """What the stage says: weak links between tiles that are nominal neighbours, and an anchor."""

    def __init__(self, nominal: Points | None, n: int) -> None:
        self.n = n
        self.positions = np.zeros((n, 2)) if nominal is None else nominal
        self.ends = np.empty((0, 2), np.int64)
        if nominal is not None and n > 1:
            # Relative, not absolute: a stage that turns the whole section must not tear a tile off.
            order = np.lexsort((nominal[:, 1], nominal[:, 0]))
            chain = np.column_stack([order[:-1], order[1:]])  # leaves no tile without a link
            links = np.concatenate([_nearest(nominal, min(8, n - 1)), chain])
            self.ends = np.unique(np.sort(links, axis=1), axis=0)
        self.shifts = self.positions[self.ends[:, 1]] - self.positions[self.ends[:, 0]]


def _nearest(points: Points, k: int) -> NDArray[np.int64]:
    from scipy.spatial import cKDTree

    _, found = cKDTree(points).query(points, k=k + 1)
    first = np.repeat(np.arange(len(points)), k + 1)
    pairs = np.column_stack([first, np.asarray(found).reshape(-1)])
    return np.asarray(pairs[pairs[:, 0] != pairs[:, 1]], dtype=np.int64)


def _place(
    ends: NDArray[np.int64], shifts: Points, weights: NDArray[np.float64], prior: _Prior
) -> Points:
    """Return the positions that fit the matches best; residuals beyond the knee count less."""
    all_ends = np.concatenate([ends, prior.ends])
    all_shifts = np.concatenate([shifts, prior.shifts])
    weak = np.full(len(prior.ends), _NOMINAL)
    robust = np.ones(len(ends))
    positions = prior.positions
    for _ in range(_ROUNDS):
        before = positions
        positions = _least_squares(
            all_ends, all_shifts, np.concatenate([weights * robust, weak]), prior.positions
        )
        if np.abs(positions - before).max(initial=0.0) < 1e-4:
            break
        residual = _residuals(positions, ends, shifts)
        robust = _KNEE_PX / np.maximum(residual, _KNEE_PX)
    return positions


def _least_squares(
    ends: NDArray[np.int64], shifts: Points, weights: NDArray[np.float64], anchor: Points
) -> Points:
    n, m = len(anchor), len(ends)
    rows = np.repeat(np.arange(m), 2)
    signs = np.tile([-1.0, 1.0], m)
    links = csr_array(coo_array((signs, (rows, ends.reshape(-1))), shape=(m, n)))
    weighted = links.multiply(weights[:, np.newaxis]).tocsr() if m else links
    normal = (links.T @ weighted).tocsc()
    normal.setdiag(normal.diagonal() + _ANCHOR)
    # Solved for the small moves from the anchor: rounding must not move the section as a whole.
    wanted = shifts - (anchor[ends[:, 1]] - anchor[ends[:, 0]])
    return np.asarray(anchor + splu(normal).solve(weighted.T @ wanted), dtype=np.float64)


def _residuals(positions: Points, ends: NDArray[np.int64], shifts: Points) -> NDArray[np.float64]:
    return np.hypot(*(positions[ends[:, 1]] - positions[ends[:, 0]] - shifts).T)


def _limit(residual: NDArray[np.float64], config: MontageConfig) -> float:
    return max(config.max_residual_px, 5 * float(np.median(residual))) if len(residual) else 0.0


def _weights(matches: list[TileMatch]) -> NDArray[np.float64]:
    """Return the weights of matches: a sharp, wide overlap says more; the median is 1."""
    if not matches:
        return np.empty(0)
    raw = np.array([max(m.fine_score, 0.05) ** 2 * m.overlap for m in matches])
    return np.asarray(np.clip(raw / np.median(raw), 0.05, 20.0))


def _parts(ends: NDArray[np.int64], n: int) -> tuple[tuple[int, ...], ...]:
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n, n))
    count, label = connected_components(graph, directed=False)
    parts = [tuple(int(i) for i in np.flatnonzero(label == k)) for k in range(count)]
    return tuple(sorted(parts, key=lambda part: (-len(part), part)))
