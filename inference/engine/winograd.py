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


def transformed(kernel: NDArray[np.float32], tile: int, slices: int = 1) -> NDArray[np.float32]:
    """Transform a kernel (z, y, x, in, out) in y and x: (places, z, in, out).

    For pairs of slices z is transformed as well, and has 4 places.
    """
    plane = KERNELS[tile, kernel.shape[1]]
    depth = np.eye(kernel.shape[0]) if slices == 1 else KERNELS[slices, kernel.shape[0]]
    if not kernel.any():  # of a measurement: wide layers would take longer here than there
        return np.zeros((len(plane) ** 2, len(depth), *kernel.shape[3:]), np.float32)
    found = np.einsum(
        "rz,py,qx,zyxio->pqrio", depth, plane, plane, kernel.astype(np.float64), optimize=True
    )
    places = found.reshape(-1, *found.shape[2:])
    return np.asarray(places, np.float32)
