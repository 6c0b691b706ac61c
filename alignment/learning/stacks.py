"""A stack to learn from: a volume that was aligned, or sections that others have aligned."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.commands.query import find_run
from alignment.errors import ConfigError
from alignment.pyramid import halve
from storage.grid import ZYX, Box
from storage.ome import level_shape
from storage.publish import POINTER
from storage.sections import Source, open_source, read_section
from storage.store import exists, join, normalise_uri
from storage.volume import Array, open_array, read

HELD_SECTIONS = 64
"""Of a source, whose sections must be read whole; an aligned volume is read in windows."""


@dataclass(frozen=True)
class Stack:
    """Grey values at one mip, read in windows; a `ReadWindow`."""

    uri: str
    """Of what is read: the run of an aligned volume, or a source."""
    shape: ZYX
    """(z, y, x) at `mip`."""
    mip: int
    read: Any = field(repr=False)
    """Called with z, y, x and the side; uint8 (side, side), 0 beyond the section."""

    def __call__(self, z: int, y: int, x: int, side_px: int) -> NDArray[np.uint8]:
        """Read a window of section z from pixel (y, x) on."""
        found: NDArray[np.uint8] = self.read(z, y, x, side_px)
        return found


@dataclass(frozen=True)
class Stacks:
    """Several stacks, one behind the other along z; a `ReadWindow`."""

    parts: tuple[Stack, ...]

    @property
    def starts(self) -> tuple[int, ...]:
        """First section of each part, and the number of all."""
        return (0, *accumulate(part.shape[0] for part in self.parts))

    def __call__(self, z: int, y: int, x: int, side_px: int) -> NDArray[np.uint8]:
        """Read a window of section z from pixel (y, x) on."""
        k = bisect_right(self.starts, z) - 1
        return self.parts[k](z - self.starts[k], y, x, side_px)


def open_stack(uri: str, mip: int) -> Stack:
    """Open what is to be learned from.

    Parameters
    ----------
    uri : str
        Of an aligned volume or one of its runs; or of a source whose sections lie on each other
        already, to within some px.
    mip : int
        Level of the pyramid.

    Raises
    ------
    ConfigError
        If the volume has no such mip.
    StorageError
        If there is neither.
    """
    where = normalise_uri(uri)
    if any(exists(join(where, name)) for name in (POINTER, "run.json")):
        run_uri = find_run(where)
        return _of_volume(run_uri, open_array(run_uri, f"aligned/{mip}"), mip)
    return _of_source(where, open_source(where), mip)


def _of_volume(run_uri: str, array: Array, mip: int) -> Stack:
    def window(z: int, y: int, x: int, side: int) -> NDArray[np.uint8]:
        return read(array, Box((z, y, x), (z + 1, y + side, x + side), mip))[0]

    nz, ny, nx = array.shape
    return Stack(run_uri, (nz, ny, nx), mip, window)


def _of_source(uri: str, source: Source, mip: int) -> Stack:
    @lru_cache(maxsize=HELD_SECTIONS)
    def section(z: int) -> NDArray[np.uint8]:
        image = read_section(source, z)[np.newaxis]
        for _ in range(mip):
            image = halve(image)
        return image[0]

    def window(z: int, y: int, x: int, side: int) -> NDArray[np.uint8]:
        image = section(z)
        part = image[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)]
        whole = np.zeros((side, side), np.uint8)
        top, left = max(-y, 0), max(-x, 0)
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
        return whole

    shape = level_shape(source.shape, mip)
    if min(shape[1:]) < 1:
        raise ConfigError(f"mip={mip} leaves nothing of sections of {source.shape[1:]} px")
    return Stack(uri, shape, mip, window)
