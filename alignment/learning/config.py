"""What decides which network comes of a stack; light, for Airflow's form is made from it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from alignment.config import Config, describe_faults
from alignment.errors import ConfigError
from inference.config import NCCTrainingConfig


class PairsConfig(Config):
    """Which pairs are looked for."""

    distances: tuple[Annotated[int, Field(ge=1, le=16)], ...] = (1, 2)
    """Of the two sections, in sections."""
    pairs: Annotated[int, Field(ge=1)] = 4000
    """To train on."""
    held_out: Annotated[int, Field(ge=1)] = 256
    """To judge the network by meanwhile, from sections that it is not trained on."""
    held_out_sections: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the stack, its end, that is held out."""
    min_r_delta: Annotated[float, Field(ge=0, lt=2)] = 0.01
    """Below it the best peak says nothing: there may be no match at all."""
    max_r_delta: Annotated[float, Field(gt=0, le=2)] = 0.2
    """Above it raw correlation matches well enough."""
    max_blank: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Largest share of pixels without tissue."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Of where is looked."""
    tries: Annotated[int, Field(ge=1)] = 50
    """Windows that are looked at, at most, for each pair that is wanted."""


class LearnConfig(Config):
    """Everything that decides which network comes of a stack."""

    mip: Annotated[int, Field(ge=0, le=12)] = 1
    """Level of the pyramid at which sections will be matched by the network."""
    pairs: PairsConfig = PairsConfig()
    """Which pairs of windows are learned from."""
    training: NCCTrainingConfig = NCCTrainingConfig()
    """How the network learns from them."""


def parse_learn_config(values: dict[str, Any]) -> LearnConfig:
    """Return the validated settings of nested `values`; missing ones get defaults.

    Raises
    ------
    ConfigError
        One line per fault.
    """
    try:
        return LearnConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe_faults(error, LearnConfig)) from None
