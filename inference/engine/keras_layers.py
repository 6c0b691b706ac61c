"""How each kind of Keras layer is written into a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from inference.engine.builder import Builder
from inference.engine.keras_convolutions import conv, transposed
from inference.engine.keras_model import Layer
from inference.engine.keras_settings import activation, check_format, refuse, triple, weights
from inference.engine.ops import (
    NO_MARGINS,
    Activation,
    Add,
    Concat,
    Correlate,
    Crop,
    Margins,
    Pad,
    Pool,
    Resize,
    Scale,
)


def _margins(layer: Layer, pairs: Sequence[Sequence[int]]) -> Margins:
    check_format(layer)
    z, y, x = ((int(a), int(b)) for a, b in ([(0, 0), *pairs] if len(pairs) == 2 else pairs))
    return z, y, x


def _channels(builder: Builder) -> tuple[int, int]:
    """Return how the axis of channels may be called; the batch is axis 0."""
    return -1, 3 if builder.is_flat else 4


def _normalised(builder: Builder, layer: Layer, x: list[str]) -> str:
    config = layer.config
    axis = config["axis"] if isinstance(config["axis"], int) else config["axis"][0]
    if axis not in _channels(builder):
        raise refuse(layer, f"it normalises axis {axis}, not channels")
    names = [name for name in ("scale", "center") if config[name]]
    vectors = [(builder.shape(x[0])[0],)] * (len(names) + 2)
    found = [weight.astype(np.float64) for weight in weights(layer, *vectors)]
    named = dict(zip([*names, "mean", "variance"], found, strict=True))
    scale = 1 / np.sqrt(named["variance"] + config["epsilon"]) * named.get("scale", 1.0)
    shift = named.get("center", 0.0) - named["mean"] * scale
    return builder.add(layer.name, Scale(scale.astype(np.float32), shift.astype(np.float32)), x[0])


def _rescaled(builder: Builder, layer: Layer, x: list[str]) -> str:
    channels = builder.shape(x[0])[0]
    scale, shift = (
        np.broadcast_to(np.asarray(layer.config[name], np.float32), (channels,))
        for name in ("scale", "offset")
    )
    return builder.add(layer.name, Scale(scale, shift), x[0])


def _activate(builder: Builder, layer: Layer, x: list[str]) -> str:
    return builder.activated(layer.name, x[0], activation(layer))


def _relu(builder: Builder, layer: Layer, x: list[str]) -> str:
    if layer.config["max_value"] is not None or layer.config["threshold"]:
        raise refuse(layer, "it has a largest value or a threshold")
    slope = float(layer.config["negative_slope"] or 0)
    kind = Activation("leaky", slope) if slope else Activation("relu")
    return builder.activated(layer.name, x[0], kind)


def _leaky(builder: Builder, layer: Layer, x: list[str]) -> str:
    slope = float(layer.config["negative_slope"])
    return builder.activated(layer.name, x[0], Activation("leaky", slope))


def _elu(builder: Builder, layer: Layer, x: list[str]) -> str:
    return builder.activated(layer.name, x[0], Activation("elu", float(layer.config["alpha"])))


def _softmax(builder: Builder, layer: Layer, x: list[str]) -> str:
    if layer.config["axis"] not in _channels(builder):
        raise refuse(layer, f"it runs over axis {layer.config['axis']}, not channels")
    return builder.activated(layer.name, x[0], Activation("softmax"))


def _add(builder: Builder, layer: Layer, x: list[str]) -> str:
    total = x[0]
    for other in x[1:]:
        total = builder.add(layer.name, Add(), total, other)
    return total


def _concat(builder: Builder, layer: Layer, x: list[str]) -> str:
    if layer.config["axis"] not in _channels(builder):
        raise refuse(layer, f"it joins axis {layer.config['axis']}, not channels")
    return builder.add(layer.name, Concat(), *x)


def _pool(kind: Literal["max", "average"]) -> Any:
    def read(builder: Builder, layer: Layer, x: list[str]) -> str:
        check_format(layer)
        config = layer.config
        size, stride = triple(config["pool_size"]), triple(config["strides"])
        is_same = config["padding"] == "same"
        margins = builder.same(x[0], size, stride) if is_same else NO_MARGINS
        return builder.add(layer.name, Pool(kind, size, stride, margins), x[0])

    return read


def _resize(builder: Builder, layer: Layer, x: list[str]) -> str:
    check_format(layer)
    kind = layer.config.get("interpolation", "nearest")
    kinds: dict[str, Literal["nearest", "linear"]] = {"nearest": "nearest", "bilinear": "linear"}
    if kind not in kinds:
        raise refuse(layer, f"its interpolation is {kind!r}")
    return builder.add(layer.name, Resize(triple(layer.config["size"]), kinds[kind]), x[0])


def _crop(builder: Builder, layer: Layer, x: list[str]) -> str:
    return builder.add(layer.name, Crop(_margins(layer, layer.config["cropping"])), x[0])


def _pad(builder: Builder, layer: Layer, x: list[str]) -> str:
    return builder.add(layer.name, Pad(_margins(layer, layer.config["padding"])), x[0])


def _same(builder: Builder, layer: Layer, x: list[str]) -> str:
    return x[0]


def _correlated(builder: Builder, layer: Layer, x: list[str]) -> str:
    similarity = layer.config["similarity"]
    if similarity not in ("pearson", "cosine"):
        raise refuse(layer, f"its similarity is {similarity!r}")
    return builder.add(layer.name, Correlate(similarity), *x)  # by either method


_OF_SEVERAL = ("Add", "Concatenate")


def check_inputs(layer: Layer, inputs: Sequence[str]) -> None:
    """Refuse a layer that is called with more inputs than it is read with, as with a mask."""
    expected = 2 if layer.kind == "NCC" else 1
    if len(inputs) != expected and layer.kind not in _OF_SEVERAL:
        raise refuse(layer, f"it is called with {len(inputs)} tensors")


READERS = {
    "Activation": _activate,
    "Add": _add,
    "AveragePooling2D": _pool("average"),
    "AveragePooling3D": _pool("average"),
    "BatchNormalization": _normalised,
    "Concatenate": _concat,
    "Conv2D": conv,
    "Conv2DTranspose": transposed,
    "Conv3D": conv,
    "Conv3DTranspose": transposed,
    "Cropping2D": _crop,
    "Cropping3D": _crop,
    "Dropout": _same,
    "ELU": _elu,
    "FittingSides": _same,  # of NCCNet: passes its input on
    "Identity": _same,
    "LeakyReLU": _leaky,
    "MaxPooling2D": _pool("max"),
    "MaxPooling3D": _pool("max"),
    "NCC": _correlated,  # the end of a siamese network
    "ReLU": _relu,
    "Rescaling": _rescaled,
    "Softmax": _softmax,
    "SpatialDropout2D": _same,
    "SpatialDropout3D": _same,
    "UpSampling2D": _resize,
    "UpSampling3D": _resize,
    "ZeroPadding2D": _pad,
    "ZeroPadding3D": _pad,
}
"""Kinds of layers by the names of their classes; what is missing here is refused."""
