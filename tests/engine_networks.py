"""The networks that the engine is tested and timed with, in Keras, with random weights.

The published benchmark of fused CPU inference has three 3D U-Nets, each with ReLU or ELU, with and
without batch normalisation: *original* (valid convolutions, skips concatenated), *symmetric* (same
convolutions, skips added) and *residual* (residual blocks of anisotropic convolutions). Beside
them: `rsunet`, the residual network of 28 to 80 channels, and `unet_2d`.
"""

from __future__ import annotations

from itertools import product

import keras
import numpy as np
from keras import layers

KINDS = ("original", "symmetric", "residual")
TWELVE = tuple(product(KINDS, ("relu", "elu"), (True, False)))
WIDTHS = {
    "original": (64, 128, 256, 512),
    "symmetric": (32, 64, 128, 256),
    "residual": (24, 32, 48, 72, 104, 144),
}
INPUTS = {
    "original": (108, 108, 108, 3),
    "symmetric": (128, 128, 128, 3),
    "residual": (16, 192, 192, 1),
}
"""As published, (z, y, x, channels)."""
SMALL_WIDTHS = {"original": (6, 10, 20), "symmetric": (5, 9, 17), "residual": (6, 8, 19)}
SMALL_INPUTS = {
    "original": (44, 44, 44, 3),
    "symmetric": (8, 20, 12, 3),
    "residual": (5, 36, 28, 1),
}
"""For tests: odd sizes, and channels that are no multiples of a vector."""


def build(kind, activation, normalised, *, widths=None, shape=None):
    """Return one of the twelve, by default as published."""
    build_one = {"original": _original, "symmetric": _symmetric, "residual": _residual}[kind]
    parts = _Parts(activation, normalised)
    model = build_one(parts, widths or WIDTHS[kind], shape or INPUTS[kind])
    return drawn(model)


def rsunet(shape=(18, 192, 192, 1), widths=(28, 36, 48, 64, 80)):
    """Return the residual symmetric U-Net that goals are set for: ELU, normalised, 12 sigmoids."""
    parts = _Parts("elu", True)
    return drawn(_residual(parts, widths, shape))


def unet_2d(shape=(512, 512, 1), widths=(64, 128, 256, 512, 1024)):
    """Return the classic U-Net for images, with same convolutions."""
    x = given = keras.Input(shape)
    skips = []
    for level, width in enumerate(widths):
        if level:
            x = layers.MaxPooling2D(2)(x)
        for _ in range(2):
            x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        skips.append(x)
    for width, skip in zip(widths[-2::-1], skips[-2::-1], strict=True):
        x = layers.Conv2DTranspose(width, 2, strides=2, padding="same", activation="relu")(x)
        x = layers.Concatenate()([skip, x])
        for _ in range(2):
            x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    return drawn(keras.Model(given, layers.Conv2D(2, 1, activation="softmax")(x)))


def drawn(model, seed=0):
    """Draw all weights, so that values stay of order 1 and no statistic is a default."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        for weight in layer.weights:
            size, name = weight.shape, weight.name
            if name == "kernel":
                inputs = np.prod(size[:-1]) if "transpose" not in layer.name else size[-1]
                value = random.normal(size=size) * np.sqrt(1.5 / inputs)
            elif name == "moving_variance" or name == "gamma":
                value = random.uniform(0.7, 1.4, size)
            else:
                value = random.normal(size=size) * 0.1
            weight.assign(value.astype(np.float32))
    return model


class _Parts:
    """Layers of one kind of activation and normalisation."""

    def __init__(self, activation, normalised):
        self.activation, self.normalised = activation, normalised

    def finish(self, x):
        if self.normalised:
            x = layers.BatchNormalization()(x)
        return layers.Activation(self.activation)(x)

    def conv(self, x, width, side, padding="same"):
        return layers.Conv3D(width, side, padding=padding, use_bias=not self.normalised)(x)

    def conv_finish(self, x, width, side, padding="same"):
        return self.finish(self.conv(x, width, side, padding))


def _original(parts, widths, shape):
    x = given = keras.Input(shape)
    skips = []
    for level, width in enumerate(widths):
        if level:
            x = layers.MaxPooling3D(2)(x)
        for n in (width // 2, width):
            x = parts.conv_finish(x, n, 3, "valid")
        skips.append(x)
    for width, skip in zip(widths[-2::-1], skips[-2::-1], strict=True):
        x = layers.Conv3DTranspose(x.shape[-1], 2, strides=2)(x)
        margins = [(n - m) // 2 for n, m in zip(skip.shape[1:4], x.shape[1:4], strict=True)]
        x = layers.Concatenate()([layers.Cropping3D(margins)(skip), x])
        for _ in range(2):
            x = parts.conv_finish(x, width, 3, "valid")
    return keras.Model(given, layers.Conv3D(3, 1)(x))


def _symmetric(parts, widths, shape):
    x = given = keras.Input(shape)
    skips = []
    for level, width in enumerate(widths):
        if level:
            x = layers.MaxPooling3D(2)(x)
        for _ in range(2):
            x = parts.conv_finish(x, width, 3)
        skips.append(x)
    for width, skip in zip(widths[-2::-1], skips[-2::-1], strict=True):
        x = layers.Conv3DTranspose(width, 2, strides=2)(x)
        x = layers.Add()([x, skip])
        for _ in range(2):
            x = parts.conv_finish(x, width, 3)
    return keras.Model(given, layers.Conv3D(3, 1)(x))


def _residual(parts, widths, shape):
    given = keras.Input(shape)
    x = parts.conv_finish(given, widths[0], (1, 5, 5))
    skips = []
    for level, width in enumerate(widths):
        if level:
            x = layers.MaxPooling3D((1, 2, 2))(x)
        x = _residual_block(parts, x, width)
        skips.append(x)
    for width, skip in zip(widths[-2::-1], skips[-2::-1], strict=True):
        x = layers.UpSampling3D((1, 2, 2))(x)
        x = layers.Conv3D(width, 1)(x)
        x = parts.finish(layers.Add()([x, skip]))
        x = _residual_block(parts, x, width)
    x = parts.conv_finish(x, widths[0], (1, 5, 5))
    return keras.Model(given, layers.Conv3D(12, 1, activation="sigmoid")(x))


def _residual_block(parts, x, width):
    x = first = parts.conv_finish(x, width, (1, 3, 3))
    x = parts.conv_finish(x, width, 3)
    x = parts.conv(x, width, 3)
    return parts.finish(layers.Add()([x, first]))
