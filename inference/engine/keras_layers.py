"""How each kind of Keras layer is written into a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from inference.engine.builder import Builder
from inference.engine.ops import (
    NO_MARGINS,
    Activation,
    Add,
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
from inference.errors import ModelError

_PLAIN: dict[str, Kind] = {
    "linear": "linear",
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "softmax": "softmax",
}


def _refuse(layer: Any, why: str) -> ModelError:
    return ModelError(
        f"the engine does not compute the layer {layer.name!r} ({type(layer).__name__}): {why}; "
        "run the network by another backend"
    )


def _triple(sizes: Sequence[int]) -> Triple:
    """Return sizes (y, x) or (z, y, x) as three."""
    z, y, x = (1, *sizes) if len(sizes) == 2 else sizes
    return int(z), int(y), int(x)


def _margins(layer: Any, pairs: Sequence[Sequence[int]]) -> Margins:
    _check_format(layer)
    z, y, x = ((int(a), int(b)) for a, b in ([(0, 0), *pairs] if len(pairs) == 2 else pairs))
    return z, y, x


def _check_format(layer: Any) -> None:
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise _refuse(layer, "channels must come last")


def _activation(layer: Any) -> Activation:
    function = getattr(layer.activation, "__name__", type(layer.activation).__name__)
    if function == "elu":
        return Activation("elu", 1.0)
    if function == "leaky_relu":
        return Activation("leaky", 0.2)  # what the function of Keras does without an argument
    if function not in _PLAIN:
        raise _refuse(layer, f"its activation {function!r} is not known")
    return Activation(_PLAIN[function])


def _check_conv(layer: Any) -> None:
    _check_format(layer)
    if getattr(layer, "groups", 1) != 1:
        raise _refuse(layer, f"it has {layer.groups} groups")
    if any(n != 1 for n in layer.dilation_rate):
        raise _refuse(layer, f"it is dilated by {layer.dilation_rate}")
    if layer.padding not in ("valid", "same"):
        raise _refuse(layer, f"its padding is {layer.padding!r}")


def _weights(layer: Any) -> tuple[Any, Any]:
    kernel = np.asarray(layer.kernel, np.float32)
    if kernel.ndim == 4:
        kernel = kernel[np.newaxis]
    return kernel, np.asarray(layer.bias, np.float32) if layer.use_bias else None


def _channels(builder: Builder) -> tuple[int, int]:
    """Return how the axis of channels may be called; the batch is axis 0."""
    return -1, 3 if builder.is_flat else 4


def _conv(builder: Builder, layer: Any, x: list[str]) -> str:
    _check_conv(layer)
    kernel, bias = _weights(layer)
    return builder.conv(
        layer.name,
        x[0],
        kernel,
        bias,
        stride=_triple(layer.strides),
        padding=layer.padding,
        activation=_activation(layer),
    )


def _transposed(builder: Builder, layer: Any, x: list[str]) -> str:
    _check_conv(layer)
    if getattr(layer, "output_padding", None) is not None:
        raise _refuse(layer, f"its output_padding is {layer.output_padding}")
    kernel, bias = _weights(layer)
    kernel = np.ascontiguousarray(kernel.swapaxes(3, 4))  # Keras: channels out, channels in
    stride = _triple(layer.strides)
    z, y, x_ = (
        _transposed_crop(k, s, is_same=layer.padding == "same")
        for k, s in zip(kernel.shape[:3], stride, strict=True)
    )
    zeros = np.zeros(kernel.shape[4], np.float32)
    op = TransposedConv(kernel, zeros if bias is None else bias, stride, (z, y, x_))
    done = builder.add(layer.name, op, x[0])
    return builder.activated(f"{layer.name}/activation", done, _activation(layer))


def _transposed_crop(side: int, stride: int, *, is_same: bool) -> tuple[int, int]:
    beyond = side - stride  # of n * stride; negative: zeros are added
    if beyond < 0:
        return 0, beyond
    return (beyond // 2, beyond - beyond // 2) if is_same else (0, 0)


def _normalised(builder: Builder, layer: Any, x: list[str]) -> str:
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    if axis not in _channels(builder):
        raise _refuse(layer, f"it normalises axis {axis}, not channels")
    mean, variance = (np.asarray(w, np.float64) for w in (layer.moving_mean, layer.moving_variance))
    scale = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale = scale * np.asarray(layer.gamma, np.float64)
    shift = -mean * scale
    if layer.center:
        shift = shift + np.asarray(layer.beta, np.float64)
    return builder.add(layer.name, Scale(scale.astype(np.float32), shift.astype(np.float32)), x[0])


def _rescaled(builder: Builder, layer: Any, x: list[str]) -> str:
    channels = builder.shape(x[0])[0]
    scale, shift = (
        np.broadcast_to(np.asarray(n, np.float32), (channels,)) for n in (layer.scale, layer.offset)
    )
    return builder.add(layer.name, Scale(scale, shift), x[0])


def _activate(builder: Builder, layer: Any, x: list[str]) -> str:
    return builder.activated(layer.name, x[0], _activation(layer))


def _relu(builder: Builder, layer: Any, x: list[str]) -> str:
    if layer.max_value is not None or layer.threshold:
        raise _refuse(layer, "it has a largest value or a threshold")
    slope = float(layer.negative_slope or 0)
    kind = Activation("leaky", slope) if slope else Activation("relu")
    return builder.activated(layer.name, x[0], kind)


def _leaky(builder: Builder, layer: Any, x: list[str]) -> str:
    return builder.activated(layer.name, x[0], Activation("leaky", float(layer.negative_slope)))


def _elu(builder: Builder, layer: Any, x: list[str]) -> str:
    return builder.activated(layer.name, x[0], Activation("elu", float(layer.alpha)))


def _softmax(builder: Builder, layer: Any, x: list[str]) -> str:
    if layer.axis not in _channels(builder):
        raise _refuse(layer, f"it runs over axis {layer.axis}, not channels")
    return builder.activated(layer.name, x[0], Activation("softmax"))


def _add(builder: Builder, layer: Any, x: list[str]) -> str:
    total = x[0]
    for other in x[1:]:
        total = builder.add(layer.name, Add(), total, other)
    return total


def _concat(builder: Builder, layer: Any, x: list[str]) -> str:
    if layer.axis not in _channels(builder):
        raise _refuse(layer, f"it joins axis {layer.axis}, not channels")
    return builder.add(layer.name, Concat(), *x)


def _pool(kind: Literal["max", "average"]) -> Any:
    def read(builder: Builder, layer: Any, x: list[str]) -> str:
        _check_format(layer)
        size, stride = _triple(layer.pool_size), _triple(layer.strides)
        margins = builder.same(x[0], size, stride) if layer.padding == "same" else NO_MARGINS
        return builder.add(layer.name, Pool(kind, size, stride, margins), x[0])

    return read


def _resize(builder: Builder, layer: Any, x: list[str]) -> str:
    _check_format(layer)
    kind = getattr(layer, "interpolation", "nearest")
    kinds: dict[str, Literal["nearest", "linear"]] = {"nearest": "nearest", "bilinear": "linear"}
    if kind not in kinds:
        raise _refuse(layer, f"its interpolation is {kind!r}")
    return builder.add(layer.name, Resize(_triple(layer.size), kinds[kind]), x[0])


def _crop(builder: Builder, layer: Any, x: list[str]) -> str:
    return builder.add(layer.name, Crop(_margins(layer, layer.cropping)), x[0])


def _pad(builder: Builder, layer: Any, x: list[str]) -> str:
    return builder.add(layer.name, Pad(_margins(layer, layer.padding)), x[0])


def _same(builder: Builder, layer: Any, x: list[str]) -> str:
    return x[0]


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
