"""Networks of Keras models, run by TensorFlow: the backend that takes every model of our layers."""

from __future__ import annotations

import tempfile
import threading
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from inference.backends.keras_archive import inspect
from inference.errors import ModelError
from inference.keras_on_tensorflow import keras, tf
from inference.network import ZYX

_LOADING = threading.Lock()
"""Keras keeps what it is loading in a global scope."""


try:  # One thread: the cores are shared by processes.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
except RuntimeError:  # somebody used it before in this process, with threads of their choice
    pass


class KerasNetwork:
    """A Keras model as an `inference.network.PatchNetwork`.

    Parameters
    ----------
    data : bytes
        A `.keras` file; `inference.backends.keras_archive` looks through it before Keras does.

    Raises
    ------
    ModelError
        If it holds more than known layers and weights, or does not map a volume to a volume.
    """

    def __init__(self, data: bytes) -> None:
        inspect(data)
        self.digest = blake3(data).hexdigest()
        with _LOADING, tempfile.TemporaryDirectory(prefix="petalign-model-") as folder:
            file = Path(folder) / "model.keras"
            file.write_bytes(data)
            try:
                self._model = keras.saving.load_model(file, compile=False, safe_mode=True)
            except Exception as error:
                raise ModelError(
                    f"Keras {keras.__version__} cannot load the model: {_short(error)}"
                ) from error
        self.patch, self.channels = self._sizes()
        self._call = tf.function(
            lambda patches: self._model(patches, training=False), autograph=False
        )

    def _sizes(self) -> tuple[ZYX | None, int]:
        """Return the size of patches that the model was made for, None for any, and channels."""
        inputs, outputs = self._model.inputs, self._model.outputs
        if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 5:
            raise ModelError(
                f"the model has the inputs {[tuple(i.shape) for i in inputs]} and outputs "
                f"{[tuple(o.shape) for o in outputs]}; expected one of each, (batch, z, y, x, "
                "channel)"
            )
        _, z, y, x, channel = inputs[0].shape
        if channel != 1 or outputs[0].shape[-1] is None:
            raise ModelError(
                f"the model takes {channel} channels and gives {outputs[0].shape[-1]}; a volume "
                "has 1, and what it gives must be known"
            )
        size = (z, y, x)
        if None in size and size != (None, None, None):
            raise ModelError(
                f"the model takes patches of {size} (z, y, x); save it with all of them or none"
            )
        return (None if z is None else (z, y, x)), int(outputs[0].shape[-1])

    def shrink(self, patch: ZYX) -> ZYX:
        """Return by how many voxels the output is smaller, at either side; see `PatchNetwork`."""
        if self.patch not in (None, patch):
            raise ModelError(
                f"the model takes patches of {self.patch} (z, y, x), got {patch}; leave "
                "patches.patch_px empty"
            )
        try:
            _, z, y, x, _ = self._model.compute_output_shape((1, *patch, 1))
        except Exception as error:
            raise ModelError(
                f"the model does not take patches of {patch} (z, y, x): {_short(error)}"
            ) from error
        less = [p - n for p, n in zip(patch, (z, y, x), strict=True)]
        if any(n % 2 or n < 0 for n in less):
            raise ModelError(
                f"the model makes {(z, y, x)} of a patch of {patch} (z, y, x); expected as many "
                "voxels, or fewer by the same number at either side. For a model that halves "
                "its resolution, choose patches.patch_px as multiples"
            )
        return less[0] // 2, less[1] // 2, less[2] // 2

    def working_bytes(self, patch: ZYX) -> int:
        """Return what the layers' outputs take for one patch while each is still needed."""
        layers = self._model.layers
        made = [_listed(layer.output) for layer in layers]
        outputs = [tensor for tensors in made for tensor in tensors]
        shapes = _listed(
            keras.Model(self._model.inputs, outputs).compute_output_shape((1, *patch, 1))
        )
        sizes = [4 * int(prod(shape[1:])) for shape in shapes]
        size_of = {id(tensor): size for tensor, size in zip(outputs, sizes, strict=True)}
        # Layers are in the order in which they are computed; the model's own outputs stay.
        last = {id(t): n for n, layer in enumerate(layers) for t in _listed(layer.input)}
        last |= {id(tensor): len(layers) for tensor in self._model.outputs}
        most, live = 0, dict[int, int]()
        for n, tensors in enumerate(made):
            fresh = {id(tensor): size_of[id(tensor)] for tensor in tensors}
            live |= fresh
            # Once more what is being made: before and after its activation.
            most = max(most, sum(live.values()) + sum(fresh.values()))
            live = {key: size for key, size in live.items() if last.get(key, n) > n}
        return most

    def __call__(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map patches; see `PatchNetwork`."""
        return np.asarray(self._call(patches), dtype=np.float32)


def _listed(output: Any) -> list[Any]:
    return list(output) if isinstance(output, list) else [output]


def _short(error: Exception) -> str:
    """Return the last words of an error: Keras repeats the whole model before them."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1][:300]
