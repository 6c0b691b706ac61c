"""Samples of a labelled volume, read from a store through a cache, or from files.

Of a zarr only the chunks of a sample are read; of other sources whole sections, some of which are
kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError
from alignment.learning.segmentation.config import LabelledConfig, SegmentConfig
from inference.training.samples import ZYX, Samples
from storage.arrays import open_foreign
from storage.cache import BlockCache
from storage.cache.arrays import FOREIGN_MAX_AGE_S, cached
from storage.grid import Box
from storage.sections import Source, open_source, read_section
from storage.sources.chunked import ZarrSource
from storage.store import join, normalise_uri
from storage.volume import read

HELD_SECTIONS = 64
"""Of a source whose sections must be read whole."""

Voxels = NDArray[np.uint8]
ReadBox = Callable[[ZYX, ZYX], Voxels]


def open_samples(
    place: str, config: SegmentConfig, cache: BlockCache | None = None, *, apart: bool = False
) -> Samples:
    """Return the samples of a labelled volume.

    Parameters
    ----------
    place : str
        A path or URI, below which images and labels are.
    cache : BlockCache, optional
        Through which a zarr is read.
    apart : bool
        Whether to judge by the sections that are kept apart, rather than by the held-out ones.

    Raises
    ------
    DataError
        If images and labels differ in size, or there are too few sections.
    TrainingError
        If no sample fits.
    """
    sources = [_open(place, name) for name in (config.data.images, config.data.labels)]
    shapes = [source.shape for source in sources]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"{config.data.images} and {config.data.labels} of {place} are {shapes[0]} and "
            f"{shapes[1]} px (z, y, x); labels must have the size of their images"
        )
    nz, ny, nx = shapes[0]
    images, labels = (_reader(source, cache) for source in sources)
    classes = _classes(config)

    def read_both(start: ZYX, stop: ZYX) -> tuple[Voxels, Voxels]:
        return images(start, stop), classes[labels(start, stop)]

    depth = config.training.window_px[0]
    train, held_out, kept_apart = split(nz, depth, config.data)
    if apart and not kept_apart:
        raise DataError(f"no sections of {place} are kept apart; raise data.kept_apart")
    judging = kept_apart if apart else held_out
    return Samples(read_both, (nz, ny, nx), train, judging, config.training)


def _open(place: str, name: str) -> Source:
    return open_source(join(normalise_uri(place), *name.split("/")))


def split(sections: int, depth: int, data: LabelledConfig) -> tuple[range, range, range]:
    """Return the first sections of samples to train on, to judge by, and kept apart.

    No sample of one has a section of another.
    """
    held = max(round(sections * data.held_out), depth)
    apart = max(round(sections * data.kept_apart), depth) if data.kept_apart else 0
    learned = sections - held - apart
    if learned < depth:
        raise DataError(
            f"{sections} sections are too few for samples of {depth}, some to learn from, {held} "
            f"to judge by and {apart} to keep apart; lower data.held_out, data.kept_apart or "
            "training.patch_px"
        )
    ends = (learned, learned + held, sections)
    first, second, third = (stop - depth + 1 for stop in ends)
    return range(first), range(learned, second), range(learned + held, third)


def _classes(config: SegmentConfig) -> Voxels:
    """Return the class of each grey value of the labels."""
    table = np.arange(256, dtype=np.uint8)
    if config.data.label_values:
        table[:] = 0
        for number, value in enumerate(config.data.label_values, 1):
            table[value] = number
    elif config.training.network.classes == 2:
        table[1:] = 1
    return table


def _reader(source: Source, cache: BlockCache | None) -> ReadBox:
    if isinstance(source, ZarrSource):
        array = open_foreign(source.group_uri, source.path)
        if array.ndim == 3:
            if cache is not None:
                array = cached(array, cache, max_age_s=FOREIGN_MAX_AGE_S)
            return lambda start, stop: read(array, Box(start, stop, 0))

    @lru_cache(maxsize=HELD_SECTIONS)
    def section(z: int) -> Voxels:
        return read_section(source, z)

    def box(start: ZYX, stop: ZYX) -> Voxels:
        (z, y, x), (z_stop, y_stop, x_stop) = start, stop
        return np.stack([section(k)[y:y_stop, x:x_stop] for k in range(z, z_stop)])

    return box
