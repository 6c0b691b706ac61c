"""Which network is trained to segment, and how; known without loading TensorFlow."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from inference.config import Config, Width

Mode = Literal["local", "mirrored", "sync", "async"]
MODES: tuple[Mode, ...] = ("local", "mirrored", "sync", "async")


class UNetConfig(Config):
    """The architecture of a 2D U-Net; the defaults are the published one."""

    architecture: Literal["unet"] = "unet"
    """Told apart from other networks in a file."""
    layers: Annotated[int, Field(ge=1, le=8)] = 5
    """Levels, each of half the resolution of the one before."""
    features_root: Width = 64
    """Channels of the finest level; each coarser one has twice as many."""
    padding: Literal["valid", "same"] = "valid"
    """Whether convolutions take a pixel off each side, or see zeros beyond it."""
    classes: Annotated[int, Field(ge=2, le=64)] = 2
    """Labels 0 to `classes` - 1; 0 is the background."""
    head: Literal["softmax", "sigmoid"] = "softmax"
    """What the network gives: a probability for each class, or only that of the one class beside
    the background."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of values that are dropped in training: 1 less what tf_unet calls keep_prob."""
    dropout_at: Literal["bottom", "all"] = "bottom"
    """After the coarsest level, as published, or before each activation, as tf_unet does."""
    normalised: bool = False
    """Whether batch normalisation follows each convolution."""
    relu_output: bool = False
    """Whether class scores are cut at 0, as tf_unet does; a class can then fall silent for good."""
    grey_zero: float = 0.5
    """Grey value, of 0 to 1, that enters as 0."""
    grey_unit: Annotated[float, Field(gt=0)] = 0.25
    """Difference of grey values, of 0 to 1, that enters as 1."""

    @property
    def step_px(self) -> int:
        """Pixel size of the coarsest level."""
        return int(2 ** (self.layers - 1))

    @property
    def outputs(self) -> int:
        """Channels that the network gives."""
        return 1 if self.head == "sigmoid" else self.classes

    @property
    def shrink_px(self) -> tuple[int, int, int]:
        """By how much the output is smaller than the input, at either side of (z, y, x).

        >>> UNetConfig().shrink_px, UNetConfig(layers=3).shrink_px
        ((0, 92, 92), (0, 20, 20))
        """
        if self.padding == "same":
            return 0, 0, 0
        down = sum(2 * 2**level for level in range(self.layers))
        up = sum(2 * 2**level for level in range(self.layers - 1))
        return 0, down + up, down + up

    def fits(self, patch_px: tuple[int, int, int]) -> bool:
        """Return whether an input of (z, y, x) is halved without a rest at each level."""
        z, *sides = patch_px
        for _ in range(self.layers - 1):
            sides = [n - 4 if self.padding == "valid" else n for n in sides]
            if any(n % 2 or n < 2 for n in sides):
                return False
            sides = [n // 2 for n in sides]
        return z == 1 and all(n > (4 if self.padding == "valid" else 0) for n in sides)

    @model_validator(mode="after")
    def _head_fits(self) -> Self:
        if self.head == "sigmoid" and self.classes != 2:
            raise ValueError(f"head=sigmoid tells 2 classes, not {self.classes}; take softmax")
        if self.head == "sigmoid" and self.relu_output:
            raise ValueError("relu_output=true leaves a sigmoid above 0.5; take head=softmax")
        return self


TF_UNET = UNetConfig(
    layers=3, features_root=32, dropout=0.5, dropout_at="all", relu_output=True,
    grey_zero=100 / 255, grey_unit=56 / 255,
)  # fmt: skip
"""The network of the published study, as its code base launches it on ultrasound images."""


class RSUNetConfig(Config):
    """The architecture of a residual symmetric 3D U-Net; the defaults are the published widths."""

    architecture: Literal["rsunet"] = "rsunet"
    """Told apart from other networks in a file."""
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)] = (28, 36, 48, 64, 80)
    """Channels of each level, the finest first; each has half the resolution along y and x."""
    classes: Annotated[int, Field(ge=2, le=64)] = 2
    """Labels 0 to `classes` - 1; 0 is the background."""
    head: Literal["softmax", "sigmoid"] = "sigmoid"
    """What the network gives: a probability for each class, or only that of the one class beside
    the background."""
    activation: Literal["elu", "relu"] = "elu"
    """After each convolution."""
    normalised: bool = True
    """Whether batch normalisation follows each convolution."""
    grey_zero: float = 0.5
    """Grey value, of 0 to 1, that enters as 0."""
    grey_unit: Annotated[float, Field(gt=0)] = 0.25
    """Difference of grey values, of 0 to 1, that enters as 1."""

    @property
    def step_px(self) -> int:
        """Pixel size of the coarsest level along y and x."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def outputs(self) -> int:
        """Channels that the network gives."""
        return 1 if self.head == "sigmoid" else self.classes

    @property
    def shrink_px(self) -> tuple[int, int, int]:
        """By how much the output is smaller than the input: it is not."""
        return 0, 0, 0

    def fits(self, patch_px: tuple[int, int, int]) -> bool:
        """Return whether an input of (z, y, x) is halved without a rest at each level."""
        return not any(n % self.step_px for n in patch_px[1:])

    @model_validator(mode="after")
    def _head_fits(self) -> Self:
        if self.head == "sigmoid" and self.classes != 2:
            raise ValueError(f"head=sigmoid tells 2 classes, not {self.classes}; take softmax")
        return self


NetworkConfig = Annotated[UNetConfig | RSUNetConfig, Field(discriminator="architecture")]


class ElasticConfig(Config):
    """How samples are varied; 0 leaves a variation out."""

    elastic_px: Annotated[float, Field(ge=0)] = 10.0
    """Standard deviation of the displacements of the nodes, as published."""
    elastic_nodes: Annotated[int, Field(ge=2, le=32)] = 3
    """Nodes along y and x of a patch, between which it is smooth, as published."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Grey values are stretched by up to this share, either way."""
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.1
    """And moved by up to this share of their range."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Largest standard deviation of added noise, of the range."""
    flips: bool = True
    """Mirror, and turn by quarters."""


class TrainConfig(Config):
    """How a network learns to segment; defaults as published where a laptop allows it."""

    network: NetworkConfig = UNetConfig(layers=4, features_root=16, padding="same", head="sigmoid")
    """What is trained."""
    loss: Literal["cross_entropy", "dice", "pooled_dice"] = "cross_entropy"
    """Of each image by itself; or Dice over all images of a worker's batch."""
    dice_smooth_px: Annotated[float, Field(ge=0)] = 1.0
    """Added to both sides of Dice's fraction in the loss: without it an image that shows nothing
    teaches nothing."""
    patch_px: tuple[
        Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]
    ] = (1, 128, 128)
    """Size (z, y, x) of what is segmented of a sample; the network sees more if it takes some off
    each side."""
    borders: Literal["mirror", "inside"] = "mirror"
    """What a network with valid convolutions sees beyond an image: its mirror image; or samples lie
    so far inside that it sees none of it."""
    only_labelled: bool = False
    """Whether samples that show the background only are passed over."""
    batch: Annotated[int, Field(ge=1)] = 1
    """Samples a step of each worker."""
    steps_per_epoch: Annotated[int, Field(ge=1)] = 20
    """Changes of the weights between two looks at the held-out samples and two checkpoints."""
    epochs: Annotated[int, Field(ge=1)] = 100
    """The most epochs."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of Adam, in the first epoch."""
    decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The learning rate is multiplied by this after each epoch."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better one on held-out samples after which training ends; 0: never."""
    held_out: Annotated[int, Field(ge=1)] = 16
    """Samples that judge the network after each epoch."""
    display_every: Annotated[int, Field(ge=1)] = 2
    """Steps between two lines of the log."""
    picture_every: Annotated[int, Field(ge=0)] = 0
    """Epochs between two pictures of a held-out sample: image, mask, prediction; 0: none."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Of the first weights, the order of samples, how they are varied and what is dropped."""
    augment: ElasticConfig = ElasticConfig()
    """How samples are varied."""

    @property
    def window_px(self) -> tuple[int, int, int]:
        """Size (z, y, x) of what the network sees."""
        z, y, x = (p + 2 * q for p, q in zip(self.patch_px, self.network.shrink_px, strict=True))
        return z, y, x

    @model_validator(mode="after")
    def _patch_fits(self) -> Self:
        if not self.network.fits(self.window_px):
            raise ValueError(
                f"patch_px={self.patch_px} (z, y, x) makes the {self.network.architecture} see "
                f"{self.window_px}, which is not halved evenly at each of its levels; the nearest "
                f"that is: {self._nearest()}"
            )
        return self

    def _nearest(self) -> tuple[int, int, int]:
        z, *sides = self.patch_px
        z = 1 if self.network.architecture == "unet" else z
        shrink = self.network.shrink_px[1]
        found = []
        for side in sides:
            reach = range(side, side + 2 * self.network.step_px)
            fitting = (n for n in reach if self.network.fits((z, n + 2 * shrink, n + 2 * shrink)))
            found.append(next(fitting, self.network.step_px))
        return z, found[0], found[1]
