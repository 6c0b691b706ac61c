"""What bounds a match: the arithmetic of its transforms, and the bytes of its spectra.

A transform of LANES columns of length n counts 5 n log2(n) operations a lane, as is usual. The time
of one in the first-level cache is measured; what a match needs beyond its transforms goes into
transposing, multiplying spectra, scoring, and looking for peaks.
"""

from __future__ import annotations

import ctypes
import math
import time
from dataclasses import dataclass

from alignment import native
from alignment.ncc import transform_px

_COLUMNS = 16


@dataclass(frozen=True)
class Bound:
    """One match of a template in a window, its template's transform shared by three windows."""

    size_px: int
    transforms: float
    """One-dimensional transforms of 16 columns."""
    mflop: float
    spectra_mb: float
    """Read and written: two forward, two products."""
    transforms_us: float
    """Time of the transforms alone, in the first-level cache."""
    gflop_per_s: float
    """Of these."""


def bound(template_px: int, window_px: int) -> Bound:
    """Count and time the transforms of one match."""
    size = transform_px(window_px)
    groups, positions = size // 2 // _COLUMNS, window_px - template_px + 1

    def pairs(columns: int) -> int:
        return -(-((columns + 1) // 2) // _COLUMNS)

    forward = pairs(window_px) + groups + (pairs(template_px) + groups) / 3
    inverse = 2 * (groups + pairs(positions))  # the second for the turned template
    transforms = forward + inverse
    flop = _COLUMNS * 5 * size * math.log2(size)
    seconds = _seconds(size)
    spectrum = 8 * size * size / 2
    return Bound(
        size,
        transforms,
        transforms * flop / 1e6,
        (4 / 3 * 2 + 2 * 2) * spectrum / 1e6,
        transforms * seconds * 1e6,
        flop / seconds / 1e9,
    )


def _seconds(size: int, *, repeats: int = 2000, rounds: int = 7) -> float:
    """Least processor time of one transform, forward and inverse averaged."""
    library = native.library()
    if library is None:
        raise RuntimeError("the kernel is not built; run `make install`")
    times = []
    for _ in range(rounds):
        start = time.process_time()
        library.petalign_transforms(ctypes.c_int(size), ctypes.c_long(repeats))
        times.append(time.process_time() - start)
    columns = int(library.petalign_lanes())
    return min(times) / (2 * repeats) * (_COLUMNS / columns)
