"""What the resources of a run cost, from a file that the user checks."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from alignment.config import Config, describe_faults
from alignment.errors import ConfigError

Price = Annotated[float, Field(ge=0.0)]


class Prices(Config):
    """Prices of requests, storage and cores, in one currency."""

    currency: str
    """Shown beside the sums."""
    as_of: str
    """The date of the prices, and where they come from."""
    put_per_1000: Price
    """1,000 requests that write or list."""
    get_per_1000: Price
    """1,000 requests that read, or look at an object."""
    storage_gb_month: Price
    """1e9 bytes stored for a month."""
    core_hour: Price
    """One core of a worker, with its memory, for an hour."""


def read_prices(path: Path | None = None) -> Prices:
    """Return the prices of a YAML file, or those that are shipped: remembered, to be checked.

    Raises
    ------
    ConfigError
        If the file is not of this form.
    """
    shipped = resources.files(__package__).joinpath("prices.yaml")
    try:
        values = yaml.safe_load((path or shipped).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"--prices {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"--prices {path} is not valid YAML: {error}") from None
    try:
        return Prices.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"--prices {path}: {describe_faults(error)}") from None
