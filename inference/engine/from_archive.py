"""Read a `.keras` file without Keras: its description is JSON, its weights are HDF5.

`inference.backends.keras_archive` looks through the file first, as it does before Keras opens one.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np

from inference.backends.keras_archive import inspect
from inference.engine.keras_model import Call, KerasModel, Layer, Tensor, call_of
from inference.engine.ops import Array
from inference.errors import ModelError


def read(data: bytes) -> KerasModel:
    """Return the model that a file holds.

    Raises
    ------
    ModelError
        If it holds more than known layers and weights, or is not as Keras 3 writes it.
    """
    inspect(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        description = json.loads(archive.read("config.json"))
        weights = archive.read("model.weights.h5")
    try:
        with h5py.File(io.BytesIO(weights), "r") as file:
            return _Reader(file).model(description, "")
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"the description of the model is not as Keras 3 writes it: {type(error).__name__} "
            f"{error}. Save it again with the present version of Keras"
        ) from error


class _Reader:
    """Reads models out of one file."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def model(self, described: Mapping[str, Any], path: str) -> KerasModel:
        """Return the model whose weights lie at a path, "" for the whole."""
        config = described["config"]
        is_sequence = described["class_name"] == "Sequential"
        layers: dict[str, Layer | KerasModel] = {}
        for part, where in _placed(config["layers"], is_sequence=is_sequence):
            layers[part["config"]["name"]] = self._layer(part, f"{path}/layers/{where}")
        return _sequence(config, layers) if is_sequence else _functional(config, layers)

    def _layer(self, described: Mapping[str, Any], path: str) -> Layer | KerasModel:
        if described["class_name"] in ("Functional", "Sequential"):
            return self.model(described, path)
        config = described["config"]
        weights = self._weights(f"{path}/vars", config["name"])
        return Layer(described["class_name"], config["name"], config, weights)

    def _weights(self, path: str, name: str) -> tuple[Array, ...]:
        """Return the weights of a layer in Keras' order; none if the file has none there."""
        group = self.file.get(path.lstrip("/"))
        if group is None:
            return ()
        stored = group.attrs.get("name", name)  # versions before 3.7 don't write it
        if stored != name:
            raise ModelError(
                f"the weights at {path!r} of the model are those of the layer {stored!r}, and "
                f"those of {name!r} were expected; save it again with the present version of Keras"
            )
        found = [group[str(n)] for n in range(len(group))]
        for weight in found:
            if weight.dtype.kind != "f":
                raise ModelError(
                    f"the layer {name!r} has weights of the type {weight.dtype}; expected floats: "
                    "save the model in float32"
                )
        return tuple(np.asarray(weight[()], np.float32) for weight in found)


def _placed(layers: Any, *, is_sequence: bool) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield descriptions of layers, and the names under which their weights lie.

    Those are made of the classes, counted in the order of the layers.
    """
    counts: dict[str, int] = {}
    for described in layers:
        if is_sequence and described["class_name"] == "InputLayer":
            yield described, "none"
            continue
        if str(described.get("module")).startswith("keras.src.ops"):  # no layer: holds nothing
            yield described, "none"
            continue
        name = _snake_case(described["class_name"])
        count = counts[name] = counts.get(name, -1) + 1
        yield described, f"{name}_{count}" if count else name


def _snake_case(name: str) -> str:
    """Return the name of a class as Keras writes it in files.

    >>> _snake_case("Conv3DTranspose"), _snake_case("BatchNormalization")
    ('conv3d_transpose', 'batch_normalization')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _sequence(config: Mapping[str, Any], layers: Mapping[str, Layer | KerasModel]) -> KerasModel:
    first, *rest = layers.values()
    if not isinstance(first, Layer) or first.kind != "InputLayer":
        raise ModelError(
            f"the model {config['name']!r} was saved before it had an input; call it once, or "
            "begin it with keras.Input"
        )
    last, calls = Tensor(first.name, 0, 0), dict[tuple[str, int], Call]()
    for layer in rest:
        calls[layer.name, 0] = Call(layer, (last,))
        last = Tensor(layer.name, 0, 0)
    size = tuple(first.config["batch_shape"][1:])
    return KerasModel(config["name"], (Tensor(first.name, 0, 0),), (last,), calls, (size,))


def _functional(config: Mapping[str, Any], layers: Mapping[str, Layer | KerasModel]) -> KerasModel:
    calls = {
        (described["config"]["name"], n): call_of(
            layers[described["config"]["name"]], [given["args"], given["kwargs"]]
        )
        for described in config["layers"]
        for n, given in enumerate(described["inbound_nodes"])
    }
    inputs, outputs = (_tensors(config[name]) for name in ("input_layers", "output_layers"))
    # Here, and nowhere else, Keras counts calls of models from 1.
    models = {d["config"]["name"] for d in config["layers"] if d["class_name"] == "Functional"}
    outputs = tuple(t._replace(call=t.call - (t.layer in models)) for t in outputs)
    given = [layers[tensor.layer] for tensor in inputs]
    sizes = [tuple(one.config["batch_shape"][1:]) for one in given if isinstance(one, Layer)]
    return KerasModel(config["name"], inputs, outputs, calls, tuple(sizes))


def _tensors(value: Any) -> tuple[Tensor, ...]:
    """Return ["name", call, output], or a structure of those, as Keras flattens it."""
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        return (Tensor(*value),)
    parts = [value[name] for name in sorted(value)] if isinstance(value, dict) else value
    return tuple(tensor for part in parts for tensor in _tensors(part))
