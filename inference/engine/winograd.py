"""Winograd's transforms of kernels; `inference/native/transforms.hpp` has those of images.

F(m, r) computes m outputs of r taps by m + r - 1 products; its error in float32 grows with m.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_F23 = [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]]
_F43 = [
    [1, 0, 0],
    *([-2 / 3 * p**n for n in range(3)] for p in (0.5**0.5, -(0.5**0.5))),
    *([1 / 6 * p**n for n in range(3)] for p in (2**0.5, -(2**0.5))),
    [0, 0, 1],
]
_F45 = [
    [1, 0, 0, 0, 0],
    *([-2 / 9 * p**n for n in range(5)] for p in (1, -1)),
    *([1 / 90 * p**n for n in range(5)] for p in (2, -2)),
    *([32 / 45 * p**n for n in range(5)] for p in (1 / 2, -1 / 2)),
    [0, 0, 0, 0, 1],
]

KERNELS: dict[tuple[int, int], NDArray[np.float64]] = {
    (2, 3): np.array(_F23),
    (4, 3): np.array(_F43),
    (4, 5): np.array(_F45),
}
"""By (outputs, taps): the matrix (places, taps) of a kernel's transform along one axis."""


def transformed(kernel: NDArray[np.float32], tile: int) -> NDArray[np.float32]:
    """Transform a kernel (z, y, x, in, out) in y and x: (places, z, in, out)."""
    matrix = KERNELS[tile, kernel.shape[1]]
    if not kernel.any():  # of a measurement: wide layers would take longer here than there
        depth, _, _, *channels = kernel.shape
        return np.zeros((matrix.shape[0] ** 2, depth, *channels), np.float32)
    found = np.einsum(
        "py,qx,zyxio->pqzio", matrix, matrix, kernel.astype(np.float64), optimize=True
    )
    places = found.reshape(-1, *found.shape[2:])
    return np.asarray(places, np.float32)
