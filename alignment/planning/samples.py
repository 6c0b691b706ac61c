"""How well a source's sections compress with our codecs: a few of them are read and tried."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
from numpy.typing import NDArray

from alignment.config import PipelineConfig
from alignment.features import normalise
from alignment.pyramid import halve
from alignment.render import warp
from storage.sections import Source

SAMPLED_PX = 4_000_000
"""Of the source that are read for the trial, at least one band of rows."""
BAND_PX = 512
TURN_RAD = 0.003
"""By which a sample is turned, so that resampling has something to do."""

Image = NDArray[np.uint8]
_CODEC = Zstd(level=1, checksum=True)
_CHECKSUM_BYTES = 4


def sample_stored(source: Source, config: PipelineConfig) -> dict[str, float]:
    """Return bytes in the store per byte of sections, features and the aligned volume.

    Only what a source can show. Features are tried at every level of matching, the aligned volume
    as the sections turned by a little.
    """
    bands = list(_bands(source))
    tissue = [band for band in bands if band.any()] or bands
    volume = config.volume
    drawn = [_turned(band, config) for band in tissue]
    _, cy, cx = volume.aligned_chunk
    # A section without tissue is stored as it is, and has no features.
    share = len(tissue) / len(bands)
    return {
        "sections": _stored(_levels(bands), volume.section_chunk_px, volume.section_chunk_px),
        "features": share * _stored(_features(tissue, config), BAND_PX, BAND_PX),
        "aligned": share * _stored(_levels(drawn), cy, cx),
    }


def _bands(source: Source) -> Iterator[Image]:
    """Yield bands from the middle of sections that are spread over the stack."""
    nz, ny, nx = source.shape
    rows = min(BAND_PX, ny)
    count = min(max(SAMPLED_PX // (rows * nx), 1), nz)
    y = (ny - rows) // 2
    for z in np.linspace(0, nz - 1, count + 2).round().astype(int)[1:-1]:
        yield source.read_rows(int(z), y, y + rows)[:, : max(SAMPLED_PX // rows, BAND_PX)]


def _levels(images: list[Image]) -> Iterator[Image]:
    """Yield images and what the pyramid makes of them, down to a quarter of the side."""
    for image in images:
        for _ in range(3):
            yield image
            image = halve(image[None])[0]


def _features(images: list[Image], config: PipelineConfig) -> Iterator[NDArray[np.float16]]:
    for image in images[:4]:
        level = image
        for mip in range(max(config.match.mips) + 1):
            if mip in config.match.mips:
                valid = level > config.masks.saturated_low
                yield normalise(level, valid, config.features).astype(np.float16)
            level = halve(level[None])[0]


def _turned(image: Image, config: PipelineConfig) -> Image:
    spacing = max(image.shape)
    field = np.zeros((2, 2, 2), np.float32)
    matrix = np.array([[1.0, TURN_RAD, 0.5], [-TURN_RAD, 1.0, 0.5]])
    shape = (image.shape[0], image.shape[1])
    how = config.render.interpolation
    turned = warp(image, (0, 0), matrix, field, spacing, (0, 0), shape, how)
    edge = min(ceil(TURN_RAD * spacing) + 2, min(shape) // 4)  # what came in from outside is black
    return np.asarray(turned[edge : shape[0] - edge, edge : shape[1] - edge])


def _stored(images: Iterator[NDArray[Any]], chunk_y: int, chunk_x: int) -> float:
    """Return the stored over the plain size of images that are cut into chunks."""
    plain = stored = 0
    for image in images:
        for y in range(0, image.shape[0], chunk_y):
            for x in range(0, image.shape[1], chunk_x):
                chunk = np.ascontiguousarray(image[y : y + chunk_y, x : x + chunk_x])
                plain += chunk.nbytes
                stored += len(_CODEC.encode(chunk)) + _CHECKSUM_BYTES
    return stored / plain if plain else 1.0
