"""Additively weighted Voronoi diagrams of discs, on a grid of pixels.

The distance of a pixel to a disc is that to its centre less its weight; discs of one process count
as one cell.

References
----------
F. Aurenhammer, "Voronoi Diagrams - A Survey of a Fundamental Geometric Data Structure", ACM
Computing Surveys 23(3), 1991.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

TILE = 16
"""Side of the squares of pixels that share one list of candidates."""

_FAR = np.float32(200)  # px; stands for "no such node"
_GROUP = 8  # tiles a side whose candidates are sought together
_CELL = 4  # px; the grid on which free room is kept

# Least and largest radius (px) of discs, and how many are tried per megapixel.
_SIZES = ((55, 95, 5), (34, 60, 40), (18, 34, 200), (10, 18, 420), (5, 10, 900))


def distance_to(node: I32, y: F32, x: F32, position: F32, weight: F32) -> tuple[F32, F32, F32]:
    """Return every pixel's distance to the node given for it, and its gradient along y and x."""
    dy, dx = y - position[:, 0][node], x - position[:, 1][node]
    distance = np.sqrt(dy * dy + dx * dx) + np.float32(1e-3)
    return distance - weight[node], dy / distance, dx / distance


def nearest_nodes(y: F32, x: F32, position: F32, weight: F32, process: I32) -> tuple[I32, I32, F32]:
    """Find the nearest nodes of every pixel.

    Parameters
    ----------
    y, x : float32 ndarray of shape (ny, nx)
        Positions, px; ny and nx are multiples of `TILE`. Neighbours need to be near each other.
    position, weight, process : ndarray of shape (n, 2), (n,) and (n,)
        The nodes, px; `process` never decreases.

    Returns
    -------
    first, second : int32 ndarray of shape (ny, nx)
        The nearest node, and the nearest one of another process.
    third : float32 ndarray of shape (ny, nx)
        Distance to the nearest node of a third process.
    """
    tiles = (y.shape[0] // TILE, y.shape[1] // TILE)

    def split(a: F32) -> F32:
        return a.reshape(tiles[0], TILE, tiles[1], TILE).swapaxes(1, 2).reshape(-1, TILE**2)

    def join(a: NDArray[Any]) -> NDArray[Any]:
        return a.reshape(*tiles, TILE, TILE).swapaxes(1, 2).reshape(y.shape)

    ty, tx = split(y), split(x)
    bounds = np.stack([ty.min(1), ty.max(1), tx.min(1), tx.max(1)], axis=1)
    first, second = np.empty(ty.shape, np.int32), np.empty(ty.shape, np.int32)
    third = np.empty(ty.shape, np.float32)
    numbers = np.arange(tiles[0] * tiles[1]).reshape(tiles)
    for i in range(0, tiles[0], _GROUP):
        for j in range(0, tiles[1], _GROUP):
            group = numbers[i : i + _GROUP, j : j + _GROUP].ravel()
            inner = bounds[group]
            outer = np.where([True, False] * 2, inner.min(axis=0), inner.max(axis=0))[None]
            some = np.flatnonzero(_candidates(outer, position, weight, process)[0])
            masks = _candidates(inner, position[some], weight[some], process[some])
            for tile, mask in zip(group, masks, strict=True):
                node = some[mask]
                owner = process[node]
                dy, dx = position[node, :1] - ty[tile], position[node, 1:] - tx[tile]
                distance = np.sqrt(dy * dy + dx * dx) - weight[node, None]
                mine = distance.argmin(axis=0)
                distance[owner[:, None] == owner[mine]] = _FAR
                theirs = distance.argmin(axis=0)
                distance[owner[:, None] == owner[theirs]] = _FAR
                first[tile], second[tile] = node[mine], node[theirs]
                third[tile] = distance.min(axis=0)
    return join(first), join(second), join(third)


def _candidates(bounds: F32, position: F32, weight: F32, process: I32) -> NDArray[np.bool_]:
    """Return (rectangles, n): may the node be the nearest of one of the three nearest processes?

    Rectangles are rows of `bounds`: lowest and highest y, lowest and highest x.
    """
    y0, y1, x0, x1 = (side[:, None] for side in bounds.T)
    y, x = position.T
    gap_y = np.maximum(np.maximum(y0 - y, y - y1), 0)
    gap_x = np.maximum(np.maximum(x0 - x, x - x1), 0)
    least = np.sqrt(gap_y**2 + gap_x**2) - weight
    most = np.sqrt(np.maximum(y - y0, y1 - y) ** 2 + np.maximum(x - x0, x1 - x) ** 2) - weight
    starts = np.flatnonzero(np.diff(process, prepend=-1))
    if starts.size < 3:
        return np.ones(least.shape, bool)
    # Everywhere in the rectangle three processes are at least as near as this.
    limit = np.partition(np.minimum.reduceat(most, starts, axis=1), 2, axis=1)[:, 2:3]
    return least <= limit


def scatter_discs(random: np.random.Generator, height: int, width: int) -> tuple[F32, F32, I32]:
    """Fill a rectangle with discs by random sequential addition, large ones first.

    Returns
    -------
    centre, radius, process : ndarray of shape (n, 2), (n,) and (n,)
        px. Discs of one process lie in a chain: it runs in the plane there.
    """
    # How far every cell is from the nearest disc so far.
    room = np.full((height // _CELL + 1, width // _CELL + 1), 1e3, np.float32)
    rows, columns = _CELL * np.indices(room.shape, np.float32)

    def is_free(y: float, x: float, distance: float) -> bool:
        i, j = math.floor(y / _CELL), math.floor(x / _CELL)
        within = 0 <= i < room.shape[0] and 0 <= j < room.shape[1]
        return within and bool(room[i, j] >= distance)

    megapixels = height * width / 1e6
    radii = [
        np.sort(random.uniform(low, high, max(1, round(count * megapixels))))[::-1]
        for low, high, count in _SIZES
    ]
    discs: list[tuple[float, float, float, int]] = []
    processes = 0
    for radius in np.concatenate(radii).tolist():
        y, x = random.uniform(0, height), random.uniform(0, width)
        if not is_free(y, x, 0.8 * radius):
            continue
        chain = [(y, x, radius, processes)]
        if random.random() < (0.4 if radius < 30 else 0.7):
            angle = random.uniform(0, 2 * math.pi)
            for _ in range(int(random.integers(1, 10 if radius < 14 else 5))):
                angle += random.normal(0, 0.45)
                y, x = y + 1.15 * radius * math.sin(angle), x + 1.15 * radius * math.cos(angle)
                if not is_free(y, x, 0.55 * radius):
                    break
                chain.append((y, x, radius * random.uniform(0.75, 1.15), processes))
        for y, x, own, _ in chain:
            reach = 1.9 * own + 2 * _CELL  # later discs are smaller and need not know of more
            window = tuple(
                slice(max(0, int((at - reach) / _CELL)), int((at + reach) / _CELL) + 2)
                for at in (y, x)
            )
            away = np.hypot(rows[window] - np.float32(y), columns[window] - np.float32(x))
            np.minimum(room[window], away - np.float32(own), out=room[window])
        discs += chain
        processes += 1
    table = np.array(discs)
    return (
        table[:, :2].astype(np.float32),
        table[:, 2].astype(np.float32),
        table[:, 3].astype(np.int32),
    )
