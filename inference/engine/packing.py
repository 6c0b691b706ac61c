"""Weights in the order in which the kernels read them, on cache lines of their own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.engine.ops import Array
from inference.engine.winograd import transformed

_LINE = 64  # bytes of a cache line, and of the widest vector


def aligned(values: NDArray[np.float32] | NDArray[np.int32]) -> NDArray[np.generic]:
    """Return a copy that begins on a cache line."""
    raw = np.zeros(values.nbytes + _LINE, np.uint8)
    start = -raw.ctypes.data % _LINE
    copy = raw[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def by_lane(values: Array, positions: NDArray[np.intp], floats: int) -> Array:
    """Return one value for every lane; 0 where no channel lies."""
    found = np.zeros(floats, np.float32)
    found[positions] = values
    return found


def _spread(kernel: Array, positions: NDArray[np.intp], outputs: int) -> Array:
    """Return (z, y, x, lanes in, lanes out) with 0 where no channel lies."""
    z, y, x, _, channels = kernel.shape
    found = np.zeros((z, y, x, int(positions[-1]) + 1, outputs), np.float32)
    found[:, :, :, positions, :channels] = kernel
    return found


def direct(
    kernel: Array, positions: NDArray[np.intp], *, lanes_in: int, group: int, groups: int
) -> Array:
    """Return [group][z][block in][y][x][channel of the block][channel out of the group]."""
    spread = _spread(kernel, positions, group * groups)
    z, y, x, inputs, _ = spread.shape
    parts = []
    for first in range(0, inputs, lanes_in):
        part = spread[:, :, :, first : first + lanes_in]
        split = part.reshape(z, y, x, part.shape[3], groups, group).transpose(4, 0, 1, 2, 3, 5)
        parts.append(split.reshape(groups, z, -1))
    return np.concatenate(parts, axis=2)


def winograd(
    kernel: Array,
    positions: NDArray[np.intp],
    *,
    tile: int,
    slices: int,
    group: int,
    groups: int,
) -> Array:
    """Return [group][place][z][channel in][channel out of the group]; z transformed for pairs."""
    spread = _spread(kernel, positions, group * groups)
    found = transformed(spread, tile, slices)
    places, z, inputs, _ = found.shape
    split = found.reshape(places, z, inputs, groups, group).transpose(3, 0, 1, 2, 4)
    return np.ascontiguousarray(split)
