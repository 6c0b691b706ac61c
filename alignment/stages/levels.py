"""Sections into every level of a pyramid, in the memory of one row of shards.

The finest level is written one row of shards at a time; each coarser one is made of the finer one
as it was stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from alignment.pyramid import downsample
from storage.grid import Box, tile
from storage.volume import Array, read, write, write_unit

Rows = Callable[[int, int], NDArray[np.uint8]]
"""Called with y0 and y1; returns these rows of one section, (y1 - y0, nx)."""


def write_section(arrays: list[Array], z: int, rows: Rows) -> tuple[list[list[str]], int]:
    """Write section z into every level of a pyramid; return digests and bytes.

    Parameters
    ----------
    arrays : list of Array
        (z, y, x), finest first; each level has half the rows and columns of the one before,
        rounded up.
    rows : callable
        Gives the section by bands of rows; called once for each row of shards.
    """
    digests, written = [], 0
    for mip, array in enumerate(arrays):
        _, ny, nx = array.shape
        tall = write_unit(array)[1]
        bands = [(y, min(y + tall, ny)) for y in range(0, ny, tall)]
        digests.append([d for y0, y1 in bands for d in _write_band(arrays, z, mip, y0, y1, rows)])
        written += ny * nx
    return digests, written


def _write_band(
    arrays: list[Array], z: int, mip: int, y0: int, y1: int, rows: Rows
) -> Iterator[str]:
    """Write one row of shards; its voxels are forgotten before the next one is read."""
    _, _, nx = arrays[mip].shape
    wide = write_unit(arrays[mip])[2]
    band = rows(y0, y1)[np.newaxis] if mip == 0 else None
    for x0 in range(0, nx, wide):
        box = Box((z, y0, x0), (z + 1, y1, min(x0 + wide, nx)), mip)
        voxels = _halved(arrays[mip - 1], box) if band is None else band[:, :, x0 : box.stop[2]]
        yield write(arrays[mip], box, voxels)


def _halved(finer: Array, box: Box) -> NDArray[np.uint8]:
    """Return `box` of a level from the finer level, one shard of which is read at a time."""
    # A shard's odd side means that it is the only one along that axis.
    steps = [n // 2 if n % 2 == 0 else n for n in write_unit(finer)[1:]]
    voxels = np.empty(box.shape, np.uint8)
    for part in tile(box.shape, (1, *steps), mip=box.mip):
        start, stop = (
            tuple(a + b for a, b in zip(box.start, corner, strict=True))
            for corner in (part.start, part.stop)
        )
        # Beyond the finer level's edges, `read` gives no data.
        voxels[part.slices] = downsample(read(finer, Box(start, stop, box.mip).finer()))
    return voxels
