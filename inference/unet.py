"""The U-Net in Keras: images in, class probabilities of each pixel out.

At each level two 3 x 3 convolutions with ReLU; 2 x 2 max-pools down, 2 x 2 transposed convolutions
up, where the channels of the same level on the way down are appended, cut to size. With valid
convolutions an output pixel depends on pixels of the image only: large images are segmented in
tiles whose surroundings are read too, and mirrored beyond the image's rim (`segment`).

References
----------
.. [1] O. Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation",
   arXiv:1505.04597, 2015.
.. [2] J. Akeret et al., "Radio frequency interference mitigation using deep convolutional neural
   networks", arXiv:1609.09077, 2016: tf_unet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import ShapeError
from inference.keras_on_tensorflow import keras
from inference.tiling import mirrored
from inference.training.config import UNetConfig

Tensor = Any


def build(
    config: UNetConfig, *, seed: int = 0, logits: bool = False, synchronised: bool = False
) -> keras.Model:
    """Return an untrained network from grey values (b, y, x, 1), 0 to 1, to (b, y, x, outputs).

    Weights are drawn as He et al. do, always the same for a seed; biases are 0.

    Parameters
    ----------
    logits : bool
        Leave the last softmax or sigmoid out, for losses.
    synchronised : bool
        Let batch normalisation see the batches of all replicas at once.
    """
    return keras.Model(*_Builder(config, seed, synchronised).graph(logits=logits), name="unet")


class _Builder:
    """Builds one network; counts its layers, for each draws from a seed of its own."""

    def __init__(self, config: UNetConfig, seed: int, synchronised: bool) -> None:
        self.config = config
        self.seed = seed
        self.synchronised = synchronised
        self.number = 0

    def graph(self, *, logits: bool) -> tuple[Tensor, Tensor]:
        config = self.config
        given = keras.Input((None, None, 1), name="grey")
        x = keras.layers.Rescaling(
            1 / config.grey_unit, -config.grey_zero / config.grey_unit, name="scaled"
        )(given)
        skips = []
        for level in range(config.layers):
            if level:
                x = keras.layers.MaxPooling2D(2, name=f"pool{level}")(x)
            for n in (1, 2):
                x = self.conv(x, f"down{level}_{n}", config.features_root * 2**level)
            skips.append(x)
        if config.dropout and config.dropout_at == "bottom":
            x = self.dropped(x, "dropped")
        for level in reversed(range(config.layers - 1)):
            width = config.features_root * 2**level
            x = keras.layers.Conv2DTranspose(
                width, 2, strides=2, activation="relu", name=f"up{level}_resized",
                kernel_initializer=keras.initializers.HeNormal(seed=self.next_seed()),
            )(x)  # fmt: skip
            x = keras.layers.Concatenate(name=f"up{level}_both")([self.cut(skips[level], level), x])
            for n in (1, 2):
                x = self.conv(x, f"up{level}_{n}", width)
        x = keras.layers.Conv2D(
            config.outputs, 1, activation="relu" if config.relu_output else None, name="scores",
            kernel_initializer=keras.initializers.HeNormal(seed=self.next_seed()),
        )(x)  # fmt: skip
        return given, x if logits else keras.layers.Activation(config.head, name=config.head)(x)

    def conv(self, x: Tensor, name: str, width: int) -> Tensor:
        config = self.config
        x = keras.layers.Conv2D(
            width, 3, padding=config.padding, use_bias=not config.normalised, name=name,
            kernel_initializer=keras.initializers.HeNormal(seed=self.next_seed()),
        )(x)  # fmt: skip
        if config.normalised:
            x = keras.layers.BatchNormalization(
                synchronized=self.synchronised, name=f"{name}_normalised"
            )(x)
        if config.dropout and config.dropout_at == "all":
            x = self.dropped(x, f"{name}_dropped")
        return keras.layers.Activation("relu", name=f"{name}_relu")(x)

    def dropped(self, x: Tensor, name: str) -> Tensor:
        return keras.layers.Dropout(self.config.dropout, seed=self.next_seed(), name=name)(x)

    def cut(self, x: Tensor, level: int) -> Tensor:
        """Take off what the coarser levels have taken off by the time they are back at this."""
        if self.config.padding == "same":
            return x
        below = self.config.model_copy(update={"layers": self.config.layers - level - 1})
        margin = 2 * below.shrink_px[1]
        return keras.layers.Cropping2D(margin, name=f"up{level}_cut")(x)

    def next_seed(self) -> int:
        self.number += 1
        return int(np.random.SeedSequence([self.seed, self.number]).generate_state(1)[0] >> 1)


def segment(
    model: Any, image: NDArray[np.float32], config: UNetConfig, *, tile_px: int = 256
) -> NDArray[np.float32]:
    """Return the outputs (y, x, outputs) of a whole image (y, x), by overlapping tiles.

    Beyond the rim the image goes on as its mirror image. With valid convolutions the result does
    not depend on how the image is cut into tiles, but for rounding; with same convolutions each
    tile is seen with as much around it, so that the zeros which these see beyond reach nothing.

    Parameters
    ----------
    image : ndarray of shape (y, x)
        Grey values, 0 to 1.
    tile_px : int
        Side of a tile's output, at most; whole pixels of the coarsest level are taken.

    Raises
    ------
    ShapeError
        If the image is not one.
    """
    if image.ndim != 2 or not image.size:
        raise ShapeError(f"an image must have shape (y, x) and some pixels, got {image.shape}")
    step, is_valid = config.step_px, config.padding == "valid"
    seen = config.model_copy(update={"padding": "valid"}).shrink_px[1]
    # Of a pixel of the coarsest level, the pixels see what its first and its last one do.
    margin = seen if is_valid else -(-(seen + step - 1) // step) * step
    # Tiles are whole pixels of the coarsest level apart, so that pools halve alike in all of them.
    apart = max(min(tile_px, max(image.shape) + step - 1) // step * step, step)
    beyond = 2 * margin
    side = next(n for n in range(apart, apart + step) if config.fits((1, n + beyond, n + beyond)))
    result = np.empty((*image.shape, config.outputs), np.float32)
    ny, nx = image.shape
    for top in range(0, ny, apart):
        rows = mirrored(top - margin, top + side + margin, ny)
        for left in range(0, nx, apart):
            columns = mirrored(left - margin, left + side + margin, nx)
            tile = np.ascontiguousarray(image[np.ix_(rows, columns)], np.float32)
            made = np.asarray(model(tile[np.newaxis, ..., np.newaxis], training=False)[0])
            if not is_valid:
                made = made[margin:, margin:]
            height, width = min(apart, ny - top), min(apart, nx - left)
            result[top : top + height, left : left + width] = made[:height, :width]
    return result
