"""Small networks of random weights, as files; TensorFlow is imported by who asks for one."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import pytest


def model_file(*, seed: int = 0, size=(None, None, None), padding: str = "same", channels: int = 2):
    """Return the bytes of a `.keras` file: three convolutions that together see 3 px far."""
    keras = _keras()
    layers = keras.layers
    image = keras.Input((*size, 1))

    def conv(x, filters, kernel, n, activation):
        start = keras.initializers.GlorotUniform(seed=1000 * seed + n)
        bias = keras.initializers.RandomUniform(-0.1, 0.1, seed=1000 * seed + n)
        return layers.Conv3D(
            filters, kernel, padding=padding, activation=activation, kernel_initializer=start,
            bias_initializer=bias,
        )(x)  # fmt: skip

    x = conv(image, 4, 3, 1, "relu")
    x = layers.BatchNormalization()(x)
    x = conv(x, 4, 5, 2, "tanh")
    return saved(keras.Model(image, conv(x, channels, 1, 3, "sigmoid")))


def saved(model) -> bytes:
    """Return what `model.save` writes."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        file = Path(folder) / "model.keras"
        model.save(file)
        return file.read_bytes()


def _keras():
    pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
    import keras

    return keras
