"""The shift between two camera tiles, sharpened from the working mip to a fraction of a pixel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from alignment.tilematch import Bools, Bytes, Shift, TileMatch, band_passed, coarser

_BAND_PX = (1.5, 6.0)  # sigmas of the band-pass; broader than for the search: there is more noise
_MOVES = 4  # whole-pixel steps from a coarser mip's answer before it is doubted
_LEAST_SCORE = 0.05


def refine_match(
    first: tuple[Bytes, Bools | None],
    second: tuple[Bytes, Bools | None],
    match: TileMatch,
    mip: int,
) -> TileMatch:
    """Sharpen a shift from the working mip to a fraction of a pixel of mip 0.

    At each finer mip the best of the whole-pixel shifts round the coarser answer is taken; at the
    last one a quadratic through its neighbours gives the fraction. A mip at which the answer runs
    away, or the fine texture says nothing, ends it: the coarser answer stands.

    Parameters
    ----------
    first, second : (image, valid)
        The tiles, (y, x).
    match : TileMatch
        Of `match_views`.
    mip : int
        The views' mip.
    """
    for level in range(mip, -1, -1):
        start = tuple(round(s / 2**level) for s in match.shift_yx)
        found = _climb(first, second, (start[0], start[1]), level)
        if found is None:
            break
        (dy, dx), score = found
        match = match._replace(shift_yx=(dy * 2**level, dx * 2**level), fine_score=score)
    return match


def _climb(
    first: tuple[Bytes, Bools | None],
    second: tuple[Bytes, Bools | None],
    start: tuple[int, int],
    level: int,
) -> tuple[Shift, float] | None:
    """Return the best shift near `start` and its correlation, px of the level."""
    a = _Crop(*first, start, second[0].shape, level)
    b = _Crop(*second, (-start[0], -start[1]), first[0].shape, level)
    if a.is_empty or b.is_empty:
        return None
    known: dict[tuple[int, int], float] = {}

    def score(dy: int, dx: int) -> float:
        if (dy, dx) not in known:
            known[dy, dx] = _pearson(a, b, dy, dx)
        return known[dy, dx]

    y, x = start
    around = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    for _ in range(_MOVES):
        best = max(around, key=lambda d: (score(y + d[0], x + d[1]), d == (0, 0)))
        if best == (0, 0):
            break
        y, x = y + best[0], x + best[1]
    else:
        return None
    if score(y, x) <= _LEAST_SCORE:
        return None
    grid = np.array([[score(y + i, x + j) for j in (-1, 0, 1)] for i in (-1, 0, 1)])
    oy, ox = _vertex(grid)
    return (y + oy, x + ox), score(y, x)


class _Crop:
    """The band-passed part of a tile that can take part in an overlap, at one mip."""

    def __init__(
        self,
        image: Bytes,
        valid: Bools | None,
        shift: tuple[int, int],
        other: tuple[int, ...],
        mip: int,
    ) -> None:
        # Only what the other tile can cover, and a margin for the filter and the climb.
        margin = _MOVES + 2 + math.ceil(3 * _BAND_PX[1])
        spans = []
        for n, s, m in zip(image.shape, shift, other, strict=True):
            low, high = max(s - margin, 0), min(s + (m >> mip) + margin, n >> mip)
            spans.append((low, max(high, low)))
        (y0, y1), (x0, x1) = spans
        part = (slice(y0 << mip, y1 << mip), slice(x0 << mip, x1 << mip))
        self.origin = (y0, x0)
        self.is_empty = y1 - y0 < 3 or x1 - x0 < 3
        if not self.is_empty:
            small, known = coarser(image[part], None if valid is None else valid[part], mip)
            self.flat = band_passed(small, known, *_BAND_PX)
            self.valid = known.astype(np.float32)


def _pearson(a: _Crop, b: _Crop, dy: int, dx: int) -> float:
    """Return the correlation where b, moved by (dy, dx), and a are both valid; -1 if nowhere."""
    parts_a, parts_b = [], []
    for axis, s in enumerate((dy, dx)):
        low = max(a.origin[axis], b.origin[axis] + s)
        high = min(
            a.origin[axis] + a.flat.shape[axis],
            b.origin[axis] + b.flat.shape[axis] + s,
        )
        if high - low < 3:
            return -1.0
        parts_a.append(slice(low - a.origin[axis], high - a.origin[axis]))
        parts_b.append(slice(low - b.origin[axis] - s, high - b.origin[axis] - s))
    ia, ib = tuple(parts_a), tuple(parts_b)
    # Images are 0 where they are invalid, so each is masked by the other's valid pixels alone.
    u, v = a.flat[ia] * b.valid[ib], b.flat[ib] * a.valid[ia]
    n = _sum(a.valid[ia] * b.valid[ib])
    if n < 16:
        return -1.0
    mean_u, mean_v = _sum(u) / n, _sum(v) / n
    energy = (_sum(u * u) - n * mean_u**2) * (_sum(v * v) - n * mean_v**2)
    cross = _sum(u * v) - n * mean_u * mean_v
    return cross / math.sqrt(energy) if energy > 1e-6 * n * n else -1.0


def _sum(values: NDArray[np.float32]) -> float:
    return float(values.sum(dtype=np.float64))  # not by BLAS: its threads change the last bits


def _vertex(grid: NDArray[np.float64]) -> Shift:
    """Return where the quadratic through 3 x 3 values has its top, at most half a pixel off."""
    gy, gx = (grid[2, 1] - grid[0, 1]) / 2, (grid[1, 2] - grid[1, 0]) / 2
    hyy = grid[0, 1] - 2 * grid[1, 1] + grid[2, 1]
    hxx = grid[1, 0] - 2 * grid[1, 1] + grid[1, 2]
    hyx = (grid[0, 0] + grid[2, 2] - grid[0, 2] - grid[2, 0]) / 4
    det = hyy * hxx - hyx * hyx
    if det <= 0 or hyy >= 0:
        return 0.0, 0.0
    oy, ox = (hyx * gx - hxx * gy) / det, (hyx * gy - hyy * gx) / det
    return (float(oy), float(ox)) if max(abs(oy), abs(ox)) <= 1 else (0.0, 0.0)
