"""What readers of Keras layers ask of them: settings in the engine's terms, weights of a shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inference.engine.keras_model import Layer
from inference.engine.ops import Activation, Array, Kind, Triple
from inference.errors import UnsupportedError

_PLAIN: dict[str, Kind] = {
    "linear": "linear",
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "softmax": "softmax",
}


def refuse(layer: Layer, why: str) -> UnsupportedError:
    """Return the error that names a layer."""
    return UnsupportedError(
        f"the engine does not compute the layer {layer.name!r} ({layer.kind}): {why}; "
        "run the network by another backend"
    )


def triple(sizes: Sequence[int]) -> Triple:
    """Return sizes (y, x) or (z, y, x) as three."""
    z, y, x = (1, *sizes) if len(sizes) == 2 else sizes
    return int(z), int(y), int(x)


def check_format(layer: Layer) -> None:
    """Refuse channels that don't come last."""
    if layer.config.get("data_format", "channels_last") != "channels_last":
        raise refuse(layer, "channels must come last")


def activation(layer: Layer) -> Activation:
    """Return the activation that is part of a layer."""
    function = layer.config["activation"]
    if isinstance(function, Mapping):  # a layer in the place of a function
        function = function.get("class_name")
    if function == "elu":
        return Activation("elu", 1.0)
    if function == "leaky_relu":
        return Activation("leaky", 0.2)  # what the function of Keras does without an argument
    if function not in _PLAIN:
        raise refuse(layer, f"its activation {function!r} is not known")
    return Activation(_PLAIN[function])


def weights(layer: Layer, *shapes: tuple[int, ...]) -> tuple[Array, ...]:
    """Return the weights if they are of these shapes."""
    found = [weight.shape for weight in layer.weights]
    if found != list(shapes):
        raise UnsupportedError(
            f"the layer {layer.name!r} ({layer.kind}) has weights of {found}; expected "
            f"{list(shapes)}. Save the model again with the present version of Keras"
        )
    return layer.weights
