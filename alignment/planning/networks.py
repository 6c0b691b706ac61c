"""What a network costs: its operations, how much of a section it computes, and its memory.

The network is that of the features, `features.model`; it is described in `inference.nccnet`, and
goes over a section as `inference.tiling` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod
from typing import NamedTuple

from alignment.attachments import attached, feature_network
from alignment.config import FeaturesConfig, PipelineConfig
from alignment.errors import DataError
from alignment.runs import Run
from inference.config import NCCNetConfig
from inference.nccnet import halo_px, layers
from inference.tiling import TILE_PX
from storage.errors import StorageError

LANES = 16
"""Channels that the engine computes at once; as many as it keeps, so fewer cost as much."""
MAPS_AT_ONCE = 4
"""Of the finest level, that the engine holds at a time."""


# --------------------------------------------------------------------------- which network


def network_to_be(config: PipelineConfig) -> NCCNetConfig | None:
    """Return what the network of a run that is planned is; None for a band-pass.

    Raises
    ------
    DataError, SourceError, MissingError, UriError
        If it is no network for features, or cannot be read, as `attachments.attached`.
    """
    if config.features.kind != "nccnet":
        return None
    # Nothing else that a run would attach is read for that, nor need it be there yet.
    uri = config.features.model
    alone = PipelineConfig(features=FeaturesConfig(kind="nccnet", model=uri))
    return feature_network(uri, attached(alone, (1, 1, 1))["features"]).config


def network_of(run: Run) -> NCCNetConfig | None:
    """Return what the network of a run is; None for a band-pass, or if it is no longer there."""
    digest = run.attachments.get("features")
    if digest is None:
        return None
    try:
        return feature_network(run.config.features.model, digest).config
    except (DataError, StorageError, OSError):
        return None


# --------------------------------------------------------------------------- what it computes


@lru_cache
def gflop_per_mpx(config: NCCNetConfig) -> float:
    """Return 1e9 operations of the convolutions for 1e6 pixels that enter the network.

    A multiplication and an addition are two; channels that only fill a vector count, too.

    >>> round(gflop_per_mpx(NCCNetConfig(widths=(8,))), 2)  # five convolutions of 3 x 3, one of 1
    9.76
    >>> round(gflop_per_mpx(NCCNetConfig(widths=(8, 16, 32, 64))), 1)
    52.4
    """
    count = _Operations([])
    layers(_Maps(1, 1.0), config, count)
    return sum(count.found) / 1e3


class _Maps(NamedTuple):
    """Feature maps."""

    channels: int
    pixels: float
    """For each pixel that enters."""


@dataclass(frozen=True)
class _Operations:
    """Reads the description with the sizes of feature maps, and counts operations a pixel."""

    found: list[float]

    def scale(self, x: _Maps, zero: float, unit: float) -> _Maps:
        return x

    def conv(self, x: _Maps, name: str, side_px: int, channels: int) -> _Maps:
        self.found.append(2 * side_px**2 * x.channels * _in_vectors(channels) * x.pixels)
        return _Maps(channels, x.pixels)

    def pool(self, x: _Maps) -> _Maps:
        return _Maps(x.channels, x.pixels / 4)

    def enlarge(self, x: _Maps) -> _Maps:
        return _Maps(x.channels, x.pixels * 4)

    def add(self, x: _Maps, y: _Maps) -> _Maps:
        return x


def tile_shape(
    shape: tuple[int, ...], config: NCCNetConfig, *, tile_px: int = TILE_PX
) -> tuple[int, ...]:
    """Return the sides of what the network is given at a time, of a section (y, x), px."""
    margin = sum(_whole(side, config) for side in _halo(config))
    return tuple(_whole(min(tile_px, n), config) + margin for n in shape)


def computed_px(shape: tuple[int, ...], config: NCCNetConfig, *, tile_px: int = TILE_PX) -> int:
    """Return the pixels that the network computes for a section (y, x): tiles with their margins.

    >>> round(computed_px((1024, 1024), NCCNetConfig()) / 1024**2, 2)
    1.54
    """
    tiles = prod(ceil(n / _whole(min(tile_px, n), config)) for n in shape)
    return tiles * prod(tile_shape(shape, config, tile_px=tile_px))


def tile_bytes(shape: tuple[int, ...], config: NCCNetConfig) -> int:
    """Return the memory of a worker's network on a section (y, x)."""
    # A level has a quarter of the pixels of the one before, and mostly twice the maps.
    maps = max(_in_vectors(width) / 4**level for level, width in enumerate(config.widths))
    return round(4 * MAPS_AT_ONCE * maps * prod(tile_shape(shape, config)))


def _in_vectors(channels: int) -> int:
    return ceil(channels / LANES) * LANES


_halo = lru_cache(halo_px)


def _whole(length: int, config: NCCNetConfig) -> int:
    """Round up to whole pixels of the coarsest level."""
    return ceil(length / config.step_px) * config.step_px
