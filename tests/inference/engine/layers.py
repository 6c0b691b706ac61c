"""Every kind of layer that the engine reads, for tests; sizes are odd, channels few."""

from __future__ import annotations

import keras
from keras import layers

from tests.engine_networks import drawn

_ACTIVATIONS = {
    "relu": lambda: layers.ReLU(),
    "relu with a slope": lambda: layers.ReLU(negative_slope=0.3),
    "leaky": lambda: layers.LeakyReLU(negative_slope=0.1),
    "elu": lambda: layers.ELU(alpha=0.7),
    "tanh": lambda: layers.Activation("tanh"),
    "sigmoid": lambda: layers.Activation("sigmoid"),
    "leaky by name": lambda: layers.Activation("leaky_relu"),
    "softmax": lambda: layers.Softmax(),
}

FLAT = {
    "conv 3 same": lambda: layers.Conv2D(5, 3, padding="same", activation="relu"),
    "conv 3 same, many": lambda: layers.Conv2D(19, 3, padding="same", activation="elu"),
    "conv 3 valid": lambda: layers.Conv2D(17, 3),
    "conv 5 same": lambda: layers.Conv2D(18, 5, padding="same", activation="tanh"),
    "conv 5 valid": lambda: layers.Conv2D(4, 5),
    "conv 2 same": lambda: layers.Conv2D(6, 2, padding="same", activation="sigmoid"),
    "conv 1": lambda: layers.Conv2D(37, 1, activation="softmax"),
    "conv 7 x 1": lambda: layers.Conv2D(6, (7, 1), padding="same"),
    "conv strided same": lambda: layers.Conv2D(6, 3, strides=2, padding="same"),
    "conv strided 3 valid": lambda: layers.Conv2D(6, (4, 3), strides=(3, 2), use_bias=False),
    "transposed 2": lambda: layers.Conv2DTranspose(5, 2, strides=2),
    "transposed 3 same": lambda: layers.Conv2DTranspose(
        5, 3, strides=2, padding="same", activation="relu"
    ),
    "transposed 4 valid": lambda: layers.Conv2DTranspose(18, 4, strides=(2, 3)),
    "transposed 1 of 2": lambda: layers.Conv2DTranspose(5, 1, strides=2),
    "transposed 3 of 1": lambda: layers.Conv2DTranspose(5, 3, padding="same"),
    "normalised": lambda: layers.BatchNormalization(),
    "rescaled": lambda: layers.Rescaling(0.5, 0.2),
    "max pool": lambda: layers.MaxPooling2D(2),
    "max pool 3 of 2 same": lambda: layers.MaxPooling2D(3, strides=2, padding="same"),
    "average pool": lambda: layers.AveragePooling2D((2, 3)),
    "average pool same": lambda: layers.AveragePooling2D(3, strides=2, padding="same"),
    "nearest": lambda: layers.UpSampling2D((2, 3)),
    "linear": lambda: layers.UpSampling2D((2, 3), interpolation="bilinear"),
    "crop": lambda: layers.Cropping2D(((1, 2), (0, 3))),
    "zeros": lambda: layers.ZeroPadding2D(((1, 2), (0, 3))),
    "dropout": lambda: layers.Dropout(0.5),
    **_ACTIVATIONS,
}

SOLID = {
    "conv 3 same": lambda: layers.Conv3D(5, 3, padding="same", activation="relu"),
    "conv 3 same, many": lambda: layers.Conv3D(34, 3, padding="same", activation="elu"),
    "conv 3 valid": lambda: layers.Conv3D(17, 3),
    "conv 1 x 3 x 3": lambda: layers.Conv3D(17, (1, 3, 3), padding="same"),
    "conv 1 x 5 x 5": lambda: layers.Conv3D(17, (1, 5, 5), padding="same"),
    "conv 5 same": lambda: layers.Conv3D(3, 5, padding="same"),
    "conv strided": lambda: layers.Conv3D(6, 3, strides=2, padding="same"),
    "transposed 2": lambda: layers.Conv3DTranspose(5, 2, strides=2),
    "transposed 1 x 4 x 4": lambda: layers.Conv3DTranspose(
        5, (1, 4, 4), strides=(1, 2, 2), padding="same"
    ),
    "normalised": lambda: layers.BatchNormalization(),
    "max pool": lambda: layers.MaxPooling3D((1, 2, 2)),
    "max pool 3 same": lambda: layers.MaxPooling3D(3, strides=2, padding="same"),
    "average pool": lambda: layers.AveragePooling3D(2),
    "nearest": lambda: layers.UpSampling3D((1, 2, 2)),
    "crop": lambda: layers.Cropping3D(((1, 2), (0, 3), (1, 1))),
    "zeros": lambda: layers.ZeroPadding3D(((1, 2), (0, 3), (1, 1))),
}


def model_of(make, shape):
    """Return a model of one layer with random weights."""
    given = keras.Input(shape)
    return drawn(keras.Model(given, make()(given)))
