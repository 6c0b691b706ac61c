"""What decides which network comes of a labelled volume; light, for forms are made from it."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from alignment.config import Config
from alignment.errors import ConfigError
from inference.training.config import RSUNetConfig, TrainConfig, UNetConfig


class LabelledConfig(Config):
    """Where images and their labels are, and which of them are learned from."""

    images: str = "images"
    """Below the data's place: a stack of any kind that is aligned."""
    labels: str = "labels"
    """Likewise: as many sections of the same size, of labels."""
    label_values: tuple[Annotated[int, Field(ge=0, le=255)], ...] = ()
    """Grey values that mean class 1, 2, ...; all others are background. Empty: of two classes, any
    value above 0 means the second; of more, values are classes."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the sections, the last ones, that judge the network and are not learned from."""
    kept_apart: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the sections behind those, which no training sees at all: what was chosen by the
    held-out ones can be judged by them."""


class SegmentConfig(Config):
    """Everything that decides which network comes of a labelled volume."""

    data: LabelledConfig = LabelledConfig()
    """What is learned from."""
    training: TrainConfig = TrainConfig()
    """How the network learns from it."""


def parse_segment_config(values: dict[str, Any]) -> SegmentConfig:
    """Return the validated settings of nested `values`; missing ones get defaults.

    Raises
    ------
    ConfigError
        One line per fault.
    """
    try:
        return SegmentConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(map(_described, error.errors()))) from None


def _described(fault: Any) -> str:
    # Of a choice of networks, pydantic names the one that was taken: nobody sets that.
    names = [str(part) for part in fault["loc"] if part not in ("unet", "rsunet")]
    path = ".".join(names) or "settings"
    if fault["type"] != "extra_forbidden":
        return f"{path}: {fault['msg'].removeprefix('Value error, ')}; got {fault['input']!r:.80}"
    known = [*_names(SegmentConfig), *_networks()]
    near = get_close_matches(path, known, n=1)
    return f"{path}: no such setting" + (f"; did you mean {near[0]!r}?" if near else "")


def _names(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yield the names of all settings, but for those of a choice of models."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _names(kind, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def _networks() -> Iterator[str]:
    for network in (UNetConfig, RSUNetConfig):
        yield from _names(network, "training.network.")
