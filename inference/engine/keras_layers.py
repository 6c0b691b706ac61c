"""How each kind of Keras layer is written into a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from inference.engine.builder import Builder
from inference.engine.keras_model import Layer
from inference.engine.ops import (
    NO_MARGINS,
    Activation,
    Add,
    Array,
    Concat,
    Crop,
    Kind,
    Margins,
    Pad,
    Pool,
    Resize,
    Scale,
    TransposedConv,
    Triple,
)
from inference.errors import UnsupportedError

_PLAIN: dict[str, Kind] = {
    "linear": "linear",
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "softmax": "softmax",
}


def _refuse(layer: Layer, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"the engine does not compute the layer {layer.name!r} ({layer.kind}): {why}; "
        "run the network by another backend"
    )


def _triple(sizes: Sequence[int]) -> Triple:
    """Return sizes (y, x) or (z, y, x) as three."""
    z, y, x = (1, *sizes) if len(sizes) == 2 else sizes
    return int(z), int(y), int(x)


def _margins(layer: Layer, pairs: Sequence[Sequence[int]]) -> Margins:
    _check_format(layer)
    z, y, x = ((int(a), int(b)) for a, b in ([(0, 0), *pairs] if len(pairs) == 2 else pairs))
    return z, y, x


def _check_format(layer: Layer) -> None:
    if layer.config.get("data_format", "channels_last") != "channels_last":
        raise _refuse(layer, "channels must come last")


def _activation(layer: Layer) -> Activation:
    function = layer.config["activation"]
    if isinstance(function, Mapping):  # a layer in the place of a function
        function = function.get("class_name")
    if function == "elu":
        return Activation("elu", 1.0)
    if function == "leaky_relu":
        return Activation("leaky", 0.2)  # what the function of Keras does without an argument
    if function not in _PLAIN:
        raise _refuse(layer, f"its activation {function!r} is not known")
    return Activation(_PLAIN[function])


def _check_conv(layer: Layer) -> None:
    _check_format(layer)
    config = layer.config
    if config.get("groups", 1) != 1:
        raise _refuse(layer, f"it has {config['groups']} groups")
    if any(n != 1 for n in config["dilation_rate"]):
        raise _refuse(layer, f"it is dilated by {tuple(config['dilation_rate'])}")
    if config["padding"] not in ("valid", "same"):
        raise _refuse(layer, f"its padding is {config['padding']!r}")


def _weights(layer: Layer, *shapes: tuple[int, ...]) -> tuple[Array, ...]:
    """Return the weights if they are of these shapes."""
    found = [weight.shape for weight in layer.weights]
    if found != list(shapes):
        raise UnsupportedError(
            f"the layer {layer.name!r} ({layer.kind}) has weights of {found}; expected "
            f"{list(shapes)}. Save the model again with the present version of Keras"
        )
    return layer.weights


def _kernel(layer: Layer, channels: tuple[int, int], filters: int) -> tuple[Array, Array]:
    """Return a kernel with three sides, and the bias or zeros.

    Parameters
    ----------
    channels : (int, int)
        The last two axes of the kernel.
    filters : int
        Length of the bias.
    """
    sides = tuple(layer.config["kernel_size"])
    bias = [(filters,)] if layer.config["use_bias"] else []
    kernel, *rest = _weights(layer, (*sides, *channels), *bias)
    if kernel.ndim == 4:
        kernel = kernel[np.newaxis]
    return kernel, rest[0] if rest else np.zeros(filters, np.float32)


def _channels(builder: Builder) -> tuple[int, int]:
    """Return how the axis of channels may be called; the batch is axis 0."""
    return -1, 3 if builder.is_flat else 4


def _conv(builder: Builder, layer: Layer, x: list[str]) -> str:
    _check_conv(layer)
    filters = int(layer.config["filters"])
    kernel, bias = _kernel(layer, (builder.shape(x[0])[0], filters), filters)
    return builder.conv(
        layer.name,
        x[0],
        kernel,
        bias,
        stride=_triple(layer.config["strides"]),
        padding=layer.config["padding"],
        activation=_activation(layer),
    )


def _transposed(builder: Builder, layer: Layer, x: list[str]) -> str:
    _check_conv(layer)
    config = layer.config
    if config.get("output_padding") is not None:
        raise _refuse(layer, f"its output_padding is {config['output_padding']}")
    filters = int(config["filters"])
    # Keras: channels out, channels in
    kernel, bias = _kernel(layer, (filters, builder.shape(x[0])[0]), filters)
    kernel = np.ascontiguousarray(kernel.swapaxes(3, 4))
    stride = _triple(config["strides"])
    z, y, x_ = (
        _transposed_crop(k, s, is_same=config["padding"] == "same")
        for k, s in zip(kernel.shape[:3], stride, strict=True)
    )
    op = TransposedConv(kernel, bias, stride, (z, y, x_))
    done = builder.add(layer.name, op, x[0])
    return builder.activated(f"{layer.name}/activation", done, _activation(layer))


def _transposed_crop(side: int, stride: int, *, is_same: bool) -> tuple[int, int]:
    beyond = side - stride  # of n * stride; negative: zeros are added
    if beyond < 0:
        return 0, beyond
    return (beyond // 2, beyond - beyond // 2) if is_same else (0, 0)


def _normalised(builder: Builder, layer: Layer, x: list[str]) -> str:
    config = layer.config
    axis = config["axis"] if isinstance(config["axis"], int) else config["axis"][0]
    if axis not in _channels(builder):
        raise _refuse(layer, f"it normalises axis {axis}, not channels")
    names = [name for name in ("scale", "center") if config[name]]
    vectors = [(builder.shape(x[0])[0],)] * (len(names) + 2)
    weights = [weight.astype(np.float64) for weight in _weights(layer, *vectors)]
    named = dict(zip([*names, "mean", "variance"], weights, strict=True))
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
    return builder.activated(layer.name, x[0], _activation(layer))


def _relu(builder: Builder, layer: Layer, x: list[str]) -> str:
    if layer.config["max_value"] is not None or layer.config["threshold"]:
        raise _refuse(layer, "it has a largest value or a threshold")
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
        raise _refuse(layer, f"it runs over axis {layer.config['axis']}, not channels")
    return builder.activated(layer.name, x[0], Activation("softmax"))


def _add(builder: Builder, layer: Layer, x: list[str]) -> str:
    total = x[0]
    for other in x[1:]:
        total = builder.add(layer.name, Add(), total, other)
    return total


def _concat(builder: Builder, layer: Layer, x: list[str]) -> str:
    if layer.config["axis"] not in _channels(builder):
        raise _refuse(layer, f"it joins axis {layer.config['axis']}, not channels")
    return builder.add(layer.name, Concat(), *x)


def _pool(kind: Literal["max", "average"]) -> Any:
    def read(builder: Builder, layer: Layer, x: list[str]) -> str:
        _check_format(layer)
        config = layer.config
        size, stride = _triple(config["pool_size"]), _triple(config["strides"])
        is_same = config["padding"] == "same"
        margins = builder.same(x[0], size, stride) if is_same else NO_MARGINS
        return builder.add(layer.name, Pool(kind, size, stride, margins), x[0])

    return read


def _resize(builder: Builder, layer: Layer, x: list[str]) -> str:
    _check_format(layer)
    kind = layer.config.get("interpolation", "nearest")
    kinds: dict[str, Literal["nearest", "linear"]] = {"nearest": "nearest", "bilinear": "linear"}
    if kind not in kinds:
        raise _refuse(layer, f"its interpolation is {kind!r}")
    return builder.add(layer.name, Resize(_triple(layer.config["size"]), kinds[kind]), x[0])


def _crop(builder: Builder, layer: Layer, x: list[str]) -> str:
    return builder.add(layer.name, Crop(_margins(layer, layer.config["cropping"])), x[0])


def _pad(builder: Builder, layer: Layer, x: list[str]) -> str:
    return builder.add(layer.name, Pad(_margins(layer, layer.config["padding"])), x[0])


def _same(builder: Builder, layer: Layer, x: list[str]) -> str:
    return x[0]


_OF_SEVERAL = ("Add", "Concatenate")


def check_inputs(layer: Layer, inputs: Sequence[str]) -> None:
    """Refuse a layer that is called with more inputs than it is read with, as with a mask."""
    is_right = len(inputs) >= 1 if layer.kind in _OF_SEVERAL else len(inputs) == 1
    if not is_right:
        raise _refuse(layer, f"it is called with {len(inputs)} tensors")


READERS = {
    "Activation": _activate,
    "Add": _add,
    "AveragePooling2D": _pool("average"),
    "AveragePooling3D": _pool("average"),
    "BatchNormalization": _normalised,
    "Concatenate": _concat,
    "Conv2D": _conv,
    "Conv2DTranspose": _transposed,
    "Conv3D": _conv,
    "Conv3DTranspose": _transposed,
    "Cropping2D": _crop,
    "Cropping3D": _crop,
    "Dropout": _same,
    "ELU": _elu,
    "FittingSides": _same,  # of NCCNet: passes its input on
    "Identity": _same,
    "LeakyReLU": _leaky,
    "MaxPooling2D": _pool("max"),
    "MaxPooling3D": _pool("max"),
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
