"""The two networks whose width is swept, in Keras: normalised, with ReLU.

The published benchmark says "basic residual block" in 64^3 and "2D symmetric" in 128^2, and the
widths 8 to 64 in steps of 8. The layers of the block are those of its residual network; the U-Net
for images has three scales here, each twice as wide as the one above.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from tests.engine_networks import drawn


def block(width: int, side: int = 64) -> Any:
    """Return 1 x 3 x 3 and twice 3 x 3 x 3, the first added to the last."""
    given = keras.Input((side, side, side, width))
    first = _finished(_conv(given, width, (1, 3, 3)))
    x = _finished(_conv(first, width, (3, 3, 3)))
    x = layers.Add()([_conv(x, width, (3, 3, 3)), first])
    return drawn(keras.Model(given, _finished(x)))


def flat(width: int, side: int = 128) -> Any:
    """Return a U-Net that adds its skips, like the published symmetric one but for images."""
    x = given = keras.Input((side, side, 1))
    widths, skips = (width, 2 * width, 4 * width), []
    for level, n in enumerate(widths):
        x = _pair(layers.MaxPooling2D(2)(x) if level else x, n)
        skips.append(x)
    for n, skip in zip(widths[-2::-1], skips[-2::-1], strict=True):
        x = layers.Conv2DTranspose(n, 2, strides=2)(x)
        x = _pair(layers.Add()([x, skip]), n)
    return drawn(keras.Model(given, layers.Conv2D(3, 1)(x)))


def _pair(x: Any, width: int) -> Any:
    for _ in range(2):
        x = _finished(_conv(x, width, (3, 3)))
    return x


def _conv(x: Any, width: int, sides: tuple[int, ...]) -> Any:
    kind = layers.Conv2D if len(sides) == 2 else layers.Conv3D
    return kind(width, sides, padding="same", use_bias=False)(x)


def _finished(x: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization()(x))
