"""The settings of a prediction; lengths are (z, y, x), px at `patches.mip`."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from alignment.config import Config, Mip, Px, ReadBack
from alignment.errors import ConfigError

Margin = Annotated[int, Field(ge=0, le=4096)]


class PatchesConfig(Config):
    """How the volume is cut into patches, and how these are put together."""

    mip: Mip = 0
    """Level of the aligned volume that the network sees; the prediction has its voxels."""
    patch_px: tuple[Px, Px, Px] | None = None
    """Size of a patch, margins included; null: what the model was made for, or 40 x 192 x 192."""
    margin_px: tuple[Margin, Margin, Margin] = (4, 32, 32)
    """At either side of a patch: cropped, or faded out. Half the network's field of view is
    enough."""
    join: Literal["valid", "blend"] = "valid"
    """Crop the margins, or fade patches into each other where they overlap."""
    scale: Literal["unit", "symmetric", "raw"] = "unit"
    """Range that the network was trained on: 0 to 1, -1 to 1, or 0 to 255."""
    batch: Annotated[int, Field(ge=1, le=256)] = 1
    """Patches that the network sees at a time."""
    skip_empty: bool = True
    """A patch without any data gives 0 and is not shown to the network."""


class PredictionConfig(Config):
    """How the prediction is stored."""

    dtype: Literal["uint8", "float16"] = "uint8"
    """uint8 holds 255 times what the network gives, for probabilities; float16 holds any value."""
    shard: tuple[Px, Px, Px] | None = None
    """Shape of one object, the unit of work; null: whole patches, about 64 x 512 x 512."""
    chunk: tuple[Px, Px, Px] | None = None
    """Shape of what is read singly; null: parts of a shard, at most 32 x 128 x 128."""
    blank_empty: bool = True
    """0 where the aligned volume has no data; else what the network makes of the zeros there."""
    read_back: ReadBack = "size"
    """What is looked at before a unit is recorded: nothing, the size of its objects, or all
    bytes."""


class NetworkConfig(Config):
    """What computes the network."""

    backend: Literal["auto", "engine", "keras"] = "auto"
    """The fused engine, or Keras by TensorFlow; auto: the engine where it knows all layers."""
    isa: Literal["auto", "avx512", "avx2", "portable"] = "auto"
    """Vectors of the engine, of which every worker must have kernels; auto: the widest that the
    worker has which prepares the run."""
    tile_px: Literal[1, 2, 4, 6] = 4
    """Side of the output tiles of the engine's Winograd kernels, at most: 6 is about a tenth faster
    and rounds five times as much, 1 allows only direct sums, which take three times as long."""


class LimitsConfig(Config):
    """What is refused before anything is computed."""

    worker_memory_gib: Annotated[float, Field(gt=0, le=4096)] = 4.0
    """Most memory that a worker may need for a block."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads by which the engine computes a patch, for workers of more cores than threads; the
    result does not depend on them."""


class PredictConfig(Config):
    """All settings of a prediction."""

    patches: PatchesConfig = PatchesConfig()
    network: NetworkConfig = NetworkConfig()
    volume: PredictionConfig = PredictionConfig()
    limits: LimitsConfig = LimitsConfig()


def parse_predict_config(values: Mapping[str, Any] | None) -> PredictConfig:
    """Return the validated settings of plain nested `values`; missing ones get defaults.

    Raises
    ------
    ConfigError
        One line per fault: the setting, the value that came, and what is allowed.
    """
    try:
        return PredictConfig.model_validate(dict(values or {}))
    except ValidationError as error:
        raise ConfigError("\n".join(map(_described, error.errors()))) from None


def _described(fault: Any) -> str:
    path = ".".join(map(str, fault["loc"])) or "settings"
    if fault["type"] != "extra_forbidden":
        return f"{path}: {fault['msg'].removeprefix('Value error, ')}; got {fault['input']!r:.80}"
    known = setting_names()
    near = get_close_matches(path, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"{path}: no such setting; {hint}"


def setting_names() -> list[str]:
    """Return the names of all settings, ``section.name``."""
    values = PredictConfig().model_dump(mode="json")
    return [f"{section}.{name}" for section, part in values.items() for name in part]
