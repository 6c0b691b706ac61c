"""Configuration of networks: frozen, and a key that is not known is an error."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Width = Annotated[int, Field(ge=1, le=1024)]


class Config(BaseModel):
    """Base of every configuration model of inference."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class NCCNetConfig(Config):
    """The architecture of an NCCNet, and how grey values enter it."""

    architecture: Literal["nccnet"] = "nccnet"
    """Told apart from other networks in a file."""
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)] = (8, 16, 32, 64)
    """Channels of each level, the finest first; each level has half the resolution. The smallest
    published; 16-32-64-128 and 32-64-128-256 are the others."""
    channels: Annotated[int, Field(ge=1, le=8)] = 1
    """Output channels; correlograms of several are averaged."""
    grey_zero: float = 128.0
    """Grey value that enters as 0, which is also what lies beyond an image; 0 as published."""
    grey_unit: Annotated[float, Field(gt=0)] = 64.0
    """Difference of grey values that enters as 1; 255 as published."""

    @property
    def step_px(self) -> int:
        """Sides of images must be multiples of this: the pixel size of the coarsest level."""
        return int(2 ** (len(self.widths) - 1))


class AugmentConfig(Config):
    """How samples are varied; 0 leaves a variation out."""

    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Grey values of each image are stretched by up to this share, either way, on their own."""
    brightness: Annotated[float, Field(ge=0)] = 30.0
    """And moved by up to so many grey values."""
    noise: Annotated[float, Field(ge=0)] = 8.0
    """Largest standard deviation of added noise, grey values."""
    blur_px: Annotated[float, Field(ge=0)] = 1.0
    """Largest sigma of a blur of one of the two images."""
    warp_px: Annotated[float, Field(ge=0)] = 2.0
    """Largest displacement of a smooth warp of the search image."""
    defects: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Share of images with a stain, a crack or a missing corner."""
    flips: bool = True
    """Mirror both images of a pair alike, and turn them by quarters."""


class NCCTrainingConfig(Config):
    """How an NCCNet is trained; defaults as published where a laptop allows it."""

    network: NCCNetConfig = NCCNetConfig()
    """What is trained."""
    search_px: Annotated[int, Field(ge=16)] = 128
    """Side of what is searched, a multiple of the coarsest level's pixel."""
    template_px: Annotated[int, Field(ge=8)] = 64
    """Side of the templates, likewise."""
    rim_px: Annotated[int, Field(ge=0)] = 16
    """The network sees so much more on each side, likewise a multiple; its features there are cut
    off. They know where the image ends, and a network that finds templates by that learns no
    tissue."""
    radius_px: Annotated[int, Field(ge=1)] = 10
    """The second peak lies farther than so many px, on each axis, from the first."""
    slack_px: Annotated[int, Field(ge=0)] = 8
    """What pairs may be misaligned by: templates lie so far from the rim of the search image."""
    guided: bool = True
    """Whether first peaks are those within `slack_px` of the same place in the other section;
    else, as published, they may lie anywhere."""
    loss: Literal["peaks", "contrast"] = "contrast"
    """Second peak less the first, as published; or how unlikely the first is among all places
    beyond `radius_px`, and among those of another pair's image."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """Of the loss "contrast": scores that differ by much less are alike."""
    batch: Annotated[int, Field(ge=2)] = 8
    """Pairs a step; each template is also searched in another pair's image, where it is not."""
    steps: Annotated[int, Field(ge=1)] = 4000
    """The most steps."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    """Of Adam, at the first step."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.75
    """The learning rate is multiplied by this every 1,000 steps, continuously."""
    dissimilar: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the peaks of templates that are not in the search image."""
    pyramid: bool = False
    """Whether the coarser levels of the decoder are trained to match, too."""
    check_every: Annotated[int, Field(ge=1)] = 200
    """Steps between two looks at the held-out pairs, and between two checkpoints."""
    patience: Annotated[int, Field(ge=1)] = 8
    """Looks without a better one after which training ends."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Of the first weights, the order of the pairs and how they are varied."""
    augment: AugmentConfig = AugmentConfig()
    """How samples are varied."""

    @model_validator(mode="after")
    def _sides_fit(self) -> Self:
        step = self.network.step_px
        for name in ("search_px", "template_px", "rim_px"):
            side = getattr(self, name)
            if side % step:
                raise ValueError(f"{name}={side} must be a multiple of {step}, for the widths")
        room = self.search_px - self.template_px - 2 * self.slack_px
        if room < 0:
            raise ValueError(
                f"search_px={self.search_px} must hold template_px={self.template_px} and twice "
                f"slack_px={self.slack_px}"
            )
        return self

    @property
    def window_px(self) -> int:
        """Side of the windows that are read."""
        return self.search_px + 2 * self.rim_px
