"""NCCNet in Keras on TensorFlow: to train it, and to run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.config import NCCNetConfig
from inference.keras_on_tensorflow import keras, tf
from inference.model import Network, Predict
from inference.nccnet import check_sides, layers

Tensor = Any


def build(config: NCCNetConfig, *, seed: int = 0) -> keras.Model:
    """Return an untrained network from grey values (b, y, x, 1) to features (b, y, x, channels).

    Kernels are drawn as Glorot and Bengio do, always the same for a seed; biases are 0. Layers
    carry the names of `nccnet.layers`. Under mixed precision the output is float32 nevertheless.
    Sides that don't fit raise a `ShapeError` where they are known.
    """
    return keras.Model(*_graph(config, seed, slice(-1, None)), name="nccnet")


def build_pyramid(config: NCCNetConfig, *, seed: int = 0) -> keras.Model:
    """Return the network with all outputs of the decoder: the coarsest first, its output last.

    For losses that sum over levels. Weights have the names and values that `build` gives them.
    """
    return keras.Model(*_graph(config, seed, slice(None)), name="nccnet")


def weights_of(model: keras.Model) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a network, or of one inside a siamese model, by their names."""
    inner = next((layer for layer in model.layers if layer.name == "nccnet"), model)
    return {
        f"{layer.name}/{weight.name}": np.asarray(weight, np.float32)
        for layer in inner.layers
        for weight in layer.weights
    }


def set_weights(model: keras.Model, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Give a network, as by `build`, its weights by name."""
    for layer in model.layers:
        for weight in layer.weights:
            weight.assign(weights[f"{layer.name}/{weight.name}"])


def to_keras(network: Network) -> keras.Model:
    """Return a network with its trained weights, to be run or trained further."""
    model = build(network.config)
    set_weights(model, network.weights)
    return model


def predictor(network: Network) -> Predict:
    """Return the function of images (y, x) to features (y, x, channels).

    Traced once for each size of image; threads may share it.
    """
    model = to_keras(network)
    traced = tf.function(lambda images: model(images, training=False), reduce_retracing=False)

    def predict(image: NDArray[np.float32]) -> NDArray[np.float32]:
        features = traced(tf.constant(image[np.newaxis, ..., np.newaxis], tf.float32))
        return np.asarray(features[0], np.float32)

    return predict


@keras.saving.register_keras_serializable(package="petalign")
class FittingSides(keras.layers.Layer):  # type: ignore[misc]
    """Passes images on if the network takes their size, and else says which it takes."""

    def __init__(self, config: dict[str, Any] | NCCNetConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = NCCNetConfig.model_validate(config)

    def call(self, images: Tensor) -> Tensor:
        """Check the sides, if they are known."""
        if None not in images.shape[1:3]:
            check_sides((images.shape[1], images.shape[2]), self.network)
        return images

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "config": self.network.model_dump(mode="json")}


def _graph(config: NCCNetConfig, seed: int, wanted: slice) -> tuple[Tensor, Any]:
    images = keras.Input((None, None, 1), name="grey")
    outputs = layers(FittingSides(config, name="sides")(images), config, _Keras(seed))[wanted]
    return images, outputs[0] if len(outputs) == 1 else outputs


class _Keras:
    """Reads the description of a network with Keras' symbolic tensors."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.number = 0  # of convolutions so far: each draws from a seed of its own

    def scale(self, x: Tensor, zero: float, unit: float) -> Tensor:
        return keras.layers.Rescaling(1 / unit, -zero / unit, name="scaled")(x)

    def conv(self, x: Tensor, name: str, side_px: int, channels: int) -> Tensor:
        seed = int(np.random.SeedSequence([self.seed, self.number]).generate_state(1)[0])
        self.number += 1
        return keras.layers.Conv2D(
            channels,
            side_px,
            padding="same",
            activation="tanh",
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
            dtype="float32" if name == "output" and _is_half() else None,
            name=name,
        )(x)

    def pool(self, x: Tensor) -> Tensor:
        return keras.layers.MaxPooling2D(2)(x)

    def enlarge(self, x: Tensor) -> Tensor:
        return keras.layers.UpSampling2D(2, interpolation="nearest")(x)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return keras.layers.Add()([x, y])


def _is_half() -> bool:
    return keras.config.dtype_policy().compute_dtype in ("float16", "bfloat16")
