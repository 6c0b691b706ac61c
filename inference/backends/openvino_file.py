"""Networks that the engine does not compute, run by OpenVINO: with the same arrays in and out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.backends import openvino_runtime
from inference.engine.graph import Graph
from inference.engine.onnx_model import OnnxModel, layout_of, parse
from inference.engine.shapes import InputShapes, listed
from inference.errors import ModelError, ShapeError

Floats = NDArray[np.float32]


class OpenVINONetwork:
    """A network, compiled by OpenVINO for one size of input; called like an `Engine`.

    Parameters
    ----------
    model : keras.Model, path of a .keras or .onnx file, or OnnxModel
        Keras and TensorFlow are imported for those of Keras.
    input_shape : sequence of int, or a sequence of those
        As of `inference.engine.compile`.
    threads : int
        Threads that compute one sample; 0 leaves it to the library.
    why : str
        Why the engine does not compute it, for the plan.

    Raises
    ------
    BackendError
        If OpenVINO is not installed, or TensorFlow for a model of Keras.
    """

    def __init__(
        self, model: Any, input_shape: InputShapes, *, threads: int = 1, why: str = ""
    ) -> None:
        self.why = why
        self.library = openvino_runtime.library(f"{why}; it can be run" if why else "it is to run")
        self.shapes = listed(input_shape)
        if isinstance(model, Graph):
            raise ModelError(f"OpenVINO takes models and files, not graphs: {why}")
        self._orders: list[str] | None = None
        self._compiled = openvino_runtime.compiled(self.library, self._read(model), threads)

    def _read(self, model: Any) -> Any:
        """Return the model of OpenVINO."""
        if isinstance(model, str | Path):
            data = Path(model).read_bytes()
            model = _keras(data) if data.startswith(b"PK\x03\x04") else parse(data)
        if not isinstance(model, OnnxModel):
            return self._of_keras(model)
        read = self.library.Core().read_model(model.data)
        self._orders = [model.layouts[name] for name in (*model.inputs, *model.outputs)]
        sizes = [
            self.library.PartialShape([_length(axis, shape) for axis in order])
            for order, shape in zip(self._orders, self.shapes, strict=False)
        ]
        read.reshape(dict(zip(read.inputs, sizes, strict=True)))
        return read

    def _of_keras(self, model: Any) -> Any:
        from inference.keras_on_tensorflow import tf

        sizes = [tf.TensorSpec((None, *shape)) for shape in self.shapes]
        if len(sizes) != len(model.inputs):
            raise ModelError(f"the model takes {len(model.inputs)} inputs, got {len(sizes)} shapes")
        traced = tf.function(
            lambda *given: model(given[0] if len(given) == 1 else list(given), training=False),
            autograph=False,
        )
        return self.library.convert_model(traced.get_concrete_function(*sizes))

    def __call__(self, *inputs: Floats) -> Any:
        """Compute a batch (n, ..., channels); several outputs come as a tuple.

        Raises
        ------
        ShapeError
            If an input has another shape than the network was compiled for.
        """
        shapes = [np.shape(given)[1:] for given in inputs]
        if shapes != self.shapes:
            raise ShapeError(
                f"the network was compiled for inputs of {self.shapes} without the batch, got "
                f"{shapes}; compile it again for another size"
            )
        given = [np.asarray(array, np.float32) for array in inputs]
        if self._orders is not None:
            given = [_ordered(a, o) for a, o in zip(given, self._orders, strict=False)]
        request = self._compiled.create_infer_request()  # one is not for two threads
        made = [np.array(found) for found in request.infer(dict(enumerate(given))).values()]
        if self._orders is not None:
            orders = self._orders[len(inputs) :]
            made = [_channels_last(a, o) for a, o in zip(made, orders, strict=True)]
        return made[0] if len(made) == 1 else tuple(made)

    def plan(self) -> str:
        """Return in words what computes the network, and why."""
        return f"OpenVINO {self.library.__version__}, float32: {self.why}"


def instead(
    model: Any, input_shape: InputShapes, *, threads: int, why: Exception
) -> OpenVINONetwork:
    """Compile a network by OpenVINO, with a warning that says why it isn't the engine."""
    reason = str(why).partition("; ")[0]
    network = OpenVINONetwork(model, input_shape, threads=threads, why=reason)
    warnings.warn(f"the network is computed by OpenVINO: {reason}", stacklevel=3)
    return network


def _keras(data: bytes) -> Any:
    from inference.backends.keras_file import read_model

    return read_model(data)


def _length(axis: str, shape: tuple[int, ...]) -> int:
    if axis == "n":
        return -1
    return shape[_last(len(shape) + 1).index(axis) - 1]


def _last(rank: int) -> str:
    """Return the engine's own order of axes."""
    return layout_of(rank).replace("c", "") + "c"


def _ordered(array: Floats, order: str) -> Floats:
    """Return an array, channels last, with its axes as the file has them."""
    last = _last(array.ndim)
    return np.ascontiguousarray(array.transpose([last.index(axis) for axis in order]))


def _channels_last(array: Floats, order: str) -> Floats:
    if len(order) != array.ndim:  # neither images nor volumes: as the file has them
        return array
    return np.ascontiguousarray(array.transpose([order.index(a) for a in _last(array.ndim)]))
