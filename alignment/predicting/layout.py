"""Where the patches and shards of a prediction lie, once the network is known."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from alignment.errors import ConfigError
from alignment.predicting.config import PredictConfig
from inference.network import ZYX, Backend, PatchNetwork
from inference.overlap import Mode, PatchGrid

PATCH: ZYX = (40, 192, 192)
SHARD: ZYX = (64, 512, 512)
CHUNK: ZYX = (32, 128, 128)
"""Taken where the settings leave it open."""

_ROUND = 16
"""A smaller step than that of `PATCH` is a multiple of this, so that networks can halve it."""


@dataclass(frozen=True)
class Layout:
    """How a volume is cut; sizes are (z, y, x)."""

    shape: ZYX
    patch: ZYX
    margin: ZYX
    shrink: ZYX
    join: Mode
    shard: ZYX
    chunk: ZYX
    channels: int
    working_bytes: int
    """`inference.network.PatchNetwork.working_bytes` of a batch."""
    model_bytes: int
    backend: Backend = "keras"
    isa: str = ""
    """As of the network; every worker computes by these, whatever it has."""
    why: str = ""
    """Why it is not the engine, if that was left open."""

    @property
    def by(self) -> str:
        """What computes the network, in words."""
        if self.backend == "engine":
            return f"the engine, {self.isa}"
        return f"Keras: {self.why}" if self.why else "Keras"

    @property
    def grid(self) -> PatchGrid:
        """The grid of the patches."""
        return PatchGrid(self.patch, self.margin, self.join, self.shrink)

    def as_dict(self) -> dict[str, Any]:
        """Return it for a record, JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Layout:
        """Return what `as_dict` gave; other keys are passed over."""
        fields = cls.__dataclass_fields__.keys()
        known: dict[str, Any] = {name: stored[name] for name in fields & stored.keys()}
        sizes = {k: tuple(v) for k, v in known.items() if isinstance(v, list)}
        return cls(**(known | sizes))


def lay_out(
    shape: ZYX, config: PredictConfig, network: PatchNetwork, *, model_bytes: int
) -> Layout:
    """Return the layout of a prediction.

    Raises
    ------
    ModelError
        If the network does not take such patches, nothing is left of them, or what shall run it
        does not know a layer.
    BackendError
        If what shall run it is missing.
    ConfigError
        If a shard is not a whole number of chunks.
    """
    settings, volume = config.patches, config.volume
    patch = settings.patch_px or network.patch or _usual_patch(shape, settings.margin_px)
    shrink = network.shrink(patch)
    step = PatchGrid(patch, settings.margin_px, settings.join, shrink).step
    shard = volume.shard or _zyx(
        _nearest_multiple(min(wanted, n), s)
        for wanted, n, s in zip(SHARD, shape, step, strict=True)
    )
    chunk = volume.chunk or _zyx(map(_part, shard, CHUNK))
    if any(s % c for s, c in zip(shard, chunk, strict=True)):
        raise ConfigError(
            f"a shard of {shard} is not a whole number of chunks of {chunk} (z, y, x); make "
            "volume.shard a multiple of volume.chunk in each axis"
        )
    return Layout(
        shape=shape,
        patch=patch,
        margin=settings.margin_px,
        shrink=shrink,
        join=settings.join,
        shard=shard,
        chunk=chunk,
        channels=network.channels,
        working_bytes=network.working_bytes(patch, settings.batch),
        model_bytes=model_bytes,
        backend=network.backend,
        isa=network.isa,
    )


def _usual_patch(shape: ZYX, margin: ZYX) -> ZYX:
    """Return `PATCH`, smaller where the volume is."""
    return _zyx(
        min(p, -(-n // _ROUND) * _ROUND + 2 * m)
        for p, n, m in zip(PATCH, shape, margin, strict=True)
    )


def _nearest_multiple(wanted: int, step: int) -> int:
    return max(1, round(wanted / step)) * step


def _part(size: int, most: int) -> int:
    """Return the largest whole part of `size` that is not above `most`."""
    return next(size // k for k in range(-(-size // most), size + 1) if size % k == 0)


def _zyx(values: Any) -> ZYX:
    z, y, x = values
    return int(z), int(y), int(x)
