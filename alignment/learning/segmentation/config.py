"""What decides which network comes of a labelled volume; light, for forms are made from it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from alignment.config import Config, describe_faults
from alignment.errors import ConfigError
from inference.training.config import TrainConfig


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
        raise ConfigError(describe_faults(error, SegmentConfig)) from None
