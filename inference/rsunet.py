"""The residual symmetric U-Net in Keras: a volume in, class probabilities of each voxel out.

Residual blocks of three convolutions, the first of each within sections only, since sections are
thicker than pixels are wide; pools and resizing likewise; skips that are added.

References
----------
.. [1] K. Lee et al., "Superhuman Accuracy on the SNEMI3D Connectomics Challenge",
   arXiv:1706.00120, 2017.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from inference.keras_on_tensorflow import keras
from inference.training.config import RSUNetConfig

Tensor = Any


def build(
    config: RSUNetConfig,
    *,
    seed: int = 0,
    logits: bool = False,
    synchronised: bool = False,
    shape: tuple[int | None, int | None, int | None, int] = (None, None, None, 1),
    outputs: int | None = None,
) -> keras.Model:
    """Return an untrained network from grey values (b, z, y, x, 1), 0 to 1.

    Parameters
    ----------
    logits : bool
        Leave the last softmax or sigmoid out, for losses.
    synchronised : bool
        Let batch normalisation see the batches of all replicas at once.
    shape : tuple
        Of what is given, if it shall be fixed, for engines that compile for one size.
    outputs : int, optional
        Channels that are given, if they are not of classes: affinities, for example.
    """
    parts = _Parts(config, seed, synchronised)
    given = keras.Input(shape, name="grey")
    x = keras.layers.Rescaling(
        1 / config.grey_unit, -config.grey_zero / config.grey_unit, name="scaled"
    )(given)
    x = parts.conv_finish(x, config.widths[0], (1, 5, 5))
    skips = []
    for level, width in enumerate(config.widths):
        if level:
            x = keras.layers.MaxPooling3D((1, 2, 2))(x)
        x = parts.residual_block(x, width)
        skips.append(x)
    for width, skip in zip(config.widths[-2::-1], skips[-2::-1], strict=True):
        x = keras.layers.UpSampling3D((1, 2, 2))(x)
        x = parts.conv(x, width, 1, use_bias=True)
        x = parts.finish(keras.layers.Add()([x, skip]))
        x = parts.residual_block(x, width)
    x = parts.conv_finish(x, config.widths[0], (1, 5, 5))
    x = parts.conv(x, outputs or config.outputs, 1, use_bias=True)
    if not logits:
        x = keras.layers.Activation(config.head)(x)
    return keras.Model(given, x, name="rsunet")


class _Parts:
    """Layers with one kind of activation and normalisation; each draws from a seed of its own."""

    def __init__(self, config: RSUNetConfig, seed: int, synchronised: bool) -> None:
        self.config = config
        self.seed = seed
        self.synchronised = synchronised
        self.number = 0

    def finish(self, x: Tensor) -> Tensor:
        if self.config.normalised:
            x = keras.layers.BatchNormalization(synchronized=self.synchronised)(x)
        return keras.layers.Activation(self.config.activation)(x)

    def conv(
        self, x: Tensor, width: int, side: int | tuple[int, int, int], *, use_bias: bool
    ) -> Tensor:
        self.number += 1
        seed = int(np.random.SeedSequence([self.seed, self.number]).generate_state(1)[0] >> 1)
        return keras.layers.Conv3D(
            width, side, padding="same", use_bias=use_bias,
            kernel_initializer=keras.initializers.HeNormal(seed=seed),
        )(x)  # fmt: skip

    def conv_finish(self, x: Tensor, width: int, side: int | tuple[int, int, int]) -> Tensor:
        return self.finish(self.conv(x, width, side, use_bias=not self.config.normalised))

    def residual_block(self, x: Tensor, width: int) -> Tensor:
        x = first = self.conv_finish(x, width, (1, 3, 3))
        x = self.conv_finish(x, width, 3)
        x = self.conv(x, width, 3, use_bias=not self.config.normalised)
        return self.finish(keras.layers.Add()([x, first]))
