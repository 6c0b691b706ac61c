"""Look into a `.keras` file before Keras does: nothing in it may run code or read another file.

Such a file names the classes that shall be made when it is opened. Those which a network of a
volume needs are few and known; every other name is refused, so that neither a lambda, nor a class
of somebody's module, nor a layer that reads a vocabulary from a path is ever looked up. The weights
are HDF5, which can point into other files: that is refused too.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

from inference.errors import ModelError

MEMBERS = {"config.json": 16 * 2**20, "metadata.json": 2**20, "model.weights.h5": 4 * 2**30}
"""What a file consists of, and how large each may be when it is unpacked."""

MODELS = ("Functional", "Sequential")
LAYERS = (
    "InputLayer", "Conv3D", "Conv2D", "Conv3DTranspose", "Conv2DTranspose", "MaxPooling3D",
    "MaxPooling2D", "AveragePooling3D", "AveragePooling2D", "UpSampling3D", "UpSampling2D",
    "ZeroPadding3D", "ZeroPadding2D", "Cropping3D", "Cropping2D", "BatchNormalization",
    "LayerNormalization", "GroupNormalization", "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU",
    "Softmax", "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate",
    "Dropout", "SpatialDropout3D", "SpatialDropout2D", "GaussianNoise", "Rescaling", "Identity",
)  # fmt: skip
HELPERS = {
    "keras": ("DTypePolicy",),
    "keras.initializers": (
        "Zeros", "Ones", "Constant", "RandomNormal", "RandomUniform", "TruncatedNormal",
        "VarianceScaling", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal",
        "LecunUniform", "Orthogonal", "OrthogonalInitializer", "Identity",
    ),
    "keras.regularizers": ("L1", "L2", "L1L2", "OrthogonalRegularizer"),
    "keras.constraints": ("MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"),
}  # fmt: skip
ACTIVATIONS = (
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "mish",
    "sigmoid", "hard_sigmoid", "log_sigmoid", "softmax", "log_softmax", "softplus", "softsign",
    "tanh", "exponential",
)  # fmt: skip
OURS = {
    "petalign>FittingSides": ("FittingSides", "inference.backends.by_keras"),
    "petalign>NCC": ("NCC", "inference.ncc_layer"),
}
"""Layers of the project's own, by the names under which Keras registers them: class, module."""
PLAIN = ("__keras_tensor__", "__tuple__")
"""Marks of plain values in the description."""


def inspect(data: bytes) -> None:
    """Refuse a file that is more than a network of known layers and its weights.

    Raises
    ------
    ModelError
        Naming the layer, class or member that is refused.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive)
            description = json.loads(archive.read("config.json"))
            _check_description(description)
            with archive.open("model.weights.h5") as weights:
                _check_weights(weights.read())
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError) as error:
        raise ModelError(f"the model's file is no Keras archive: {error}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelError(
            f"the description in the model's file cannot be read ({type(error).__name__}: {error})"
        ) from None


def _check_members(archive: zipfile.ZipFile) -> None:
    for member in archive.infolist():
        if member.filename not in MEMBERS:
            raise ModelError(
                f"the model's file holds {member.filename[:80]!r}; expected {', '.join(MEMBERS)}: "
                "layers with files of their own are not used"
            )
        if member.file_size > MEMBERS[member.filename]:
            raise ModelError(
                f"{member.filename} of the model has {member.file_size} bytes; at most "
                f"{MEMBERS[member.filename]} are read"
            )


def _check_description(description: Any) -> None:
    if not isinstance(description, dict) or description.get("class_name") not in MODELS:
        found = description.get("class_name") if isinstance(description, dict) else description
        raise ModelError(
            f"the model is a {found!r:.80}; expected {' or '.join(MODELS)}: classes of your own "
            "are not loaded. Save a functional model of Keras' layers"
        )
    _check_class(description, where="the model", known=MODELS)
    # It is not compiled when it is loaded, so its loss and optimiser are not even looked at.
    for inner, where in _objects(description.get("config"), "the model"):
        _check_class(inner, where=where, known=(*LAYERS, *MODELS, *PLAIN))


def _objects(value: Any, where: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each description of an object, and the layer in which it stands."""
    if isinstance(value, list):
        for item in value:
            yield from _objects(item, where)
    elif isinstance(value, dict):
        if "class_name" in value:
            where = f"layer {value['name']!r:.80}" if "name" in value else where
            yield value, where
        for key, item in value.items():
            if key.endswith("activation") and not _is_object(item):
                _check_activation(item, where)
            yield from _objects(item, where)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and "class_name" in value


def _check_class(described: dict[str, Any], *, where: str, known: tuple[str, ...]) -> None:
    name, module = described["class_name"], described.get("module")
    registered = described.get("registered_name")
    if OURS.get(str(registered)) == (name, module):
        return
    is_own = registered not in (None, name)  # "package>name": a class somebody registered
    is_helper = isinstance(module, str) and name in HELPERS.get(module, ())
    is_ours = name in PLAIN if module is None else str(module).partition(".")[0] == "keras"
    if is_own or not (is_helper or (is_ours and name in known)):
        shown = ".".join(str(part) for part in (module, registered if is_own else name) if part)
        raise ModelError(
            f"{where} is a {shown[:120]!r}, which is not loaded: it could run code of its own. "
            f"Known layers are {', '.join(LAYERS)}"
        )


def _check_activation(name: Any, where: str) -> None:
    if name is not None and (not isinstance(name, str) or name not in ACTIVATIONS):
        raise ModelError(
            f"{where} has the activation {name!r:.80}; known are {', '.join(ACTIVATIONS)}"
        )


def _check_weights(data: bytes) -> None:
    """Refuse links and data that lie in other files."""
    import h5py

    def check(group: Any, path: str) -> None:
        for name in group:
            here = f"{path}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ModelError(f"the weights {here[:120]!r} of the model point elsewhere")
            item = group[name]
            if isinstance(item, h5py.Group):
                check(item, here)
            elif item.external or item.is_virtual:
                raise ModelError(f"the weights {here[:120]!r} of the model lie in another file")

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            check(file, "")
    except (OSError, RuntimeError) as error:
        raise ModelError(f"the weights of the model are no HDF5: {error}") from None
