"""Configuration of networks: frozen, and a key that is not known is an error."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Width = Annotated[int, Field(ge=1, le=1024)]


class Config(BaseModel):
    """Base of every configuration model of inference."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class NCCNetConfig(Config):
    """The architecture of an NCCNet, and how grey values enter it; defaults as published."""

    architecture: Literal["nccnet"] = "nccnet"
    """Told apart from other networks in a file."""
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)] = (16, 32, 64, 128)
    """Channels of each level, the finest first; each level has half the resolution."""
    channels: Annotated[int, Field(ge=1, le=8)] = 1
    """Output channels; correlograms of several are averaged."""
    grey_zero: float = 0.0
    """Grey value that enters the network as 0."""
    grey_unit: Annotated[float, Field(gt=0)] = 255.0
    """Difference of grey values that enters the network as 1."""

    @property
    def step_px(self) -> int:
        """Sides of images must be multiples of this: the pixel size of the coarsest level."""
        return int(2 ** (len(self.widths) - 1))
