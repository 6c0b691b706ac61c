"""How convolutions of Keras are written into a graph."""

from __future__ import annotations

import numpy as np

from inference.engine.builder import Builder
from inference.engine.keras_model import Layer
from inference.engine.keras_settings import activation, check_format, refuse, triple, weights
from inference.engine.ops import Array, TransposedConv


def _check_conv(layer: Layer) -> None:
    check_format(layer)
    config = layer.config
    if config.get("groups", 1) != 1:
        raise refuse(layer, f"it has {config['groups']} groups")
    if any(n != 1 for n in config["dilation_rate"]):
        raise refuse(layer, f"it is dilated by {tuple(config['dilation_rate'])}")
    if config["padding"] not in ("valid", "same"):
        raise refuse(layer, f"its padding is {config['padding']!r}")


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
    kernel, *rest = weights(layer, (*sides, *channels), *bias)
    if kernel.ndim == 4:
        kernel = kernel[np.newaxis]
    return kernel, rest[0] if rest else np.zeros(filters, np.float32)


def conv(builder: Builder, layer: Layer, x: list[str]) -> str:
    """Read `Conv2D` or `Conv3D`."""
    _check_conv(layer)
    filters = int(layer.config["filters"])
    kernel, bias = _kernel(layer, (builder.shape(x[0])[0], filters), filters)
    return builder.conv(
        layer.name,
        x[0],
        kernel,
        bias,
        stride=triple(layer.config["strides"]),
        padding=layer.config["padding"],
        activation=activation(layer),
    )


def transposed(builder: Builder, layer: Layer, x: list[str]) -> str:
    """Read `Conv2DTranspose` or `Conv3DTranspose`."""
    _check_conv(layer)
    config = layer.config
    if config.get("output_padding") is not None:
        raise refuse(layer, f"its output_padding is {config['output_padding']}")
    filters = int(config["filters"])
    # Keras: channels out, channels in
    kernel, bias = _kernel(layer, (filters, builder.shape(x[0])[0]), filters)
    kernel = np.ascontiguousarray(kernel.swapaxes(3, 4))
    stride = triple(config["strides"])
    z, y, x_ = (
        _transposed_crop(k, s, is_same=config["padding"] == "same")
        for k, s in zip(kernel.shape[:3], stride, strict=True)
    )
    op = TransposedConv(kernel, bias, stride, (z, y, x_))
    done = builder.add(layer.name, op, x[0])
    return builder.activated(f"{layer.name}/activation", done, activation(layer))


def _transposed_crop(side: int, stride: int, *, is_same: bool) -> tuple[int, int]:
    beyond = side - stride  # of n * stride; negative: zeros are added
    if beyond < 0:
        return 0, beyond
    return (beyond // 2, beyond - beyond // 2) if is_same else (0, 0)
