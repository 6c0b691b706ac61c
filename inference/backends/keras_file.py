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

from inference.backends.face import Face
from inference.backends.keras_archive import inspect
from inference.errors import ModelError
from inference.keras_on_tensorflow import keras, tf
from inference.network import ZYX, Backend

_LOADING = threading.Lock()
"""Keras keeps what it is loading in a global scope."""


try:  # One thread: the cores are shared by processes.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
except RuntimeError:  # somebody used it before in this process, with threads of their choice
    pass


def read_model(data: bytes) -> Any:
    """Return the model of a `.keras` file, after a look whether it may be opened.

    Raises
    ------
    ModelError
        If it holds more than known layers and weights, or Keras cannot load it.
    """
    inspect(data)
    from inference import ncc_layer  # noqa: F401  # Keras finds our own layers
    from inference.backends import by_keras  # noqa: F401  # once they are imported

    with _LOADING, tempfile.TemporaryDirectory(prefix="petalign-model-") as folder:
        file = Path(folder) / "model.keras"
        file.write_bytes(data)
        try:
            return keras.saving.load_model(file, compile=False, safe_mode=True)
        except Exception as error:
            raise ModelError(
                f"Keras {keras.__version__} cannot load the model: {_short(error)}"
            ) from error


class KerasNetwork:
    """A Keras model as an `inference.network.PatchNetwork`.

    A model of images (batch, y, x, channel) sees each section of a patch by itself.

    Parameters
    ----------
    data : bytes
        A `.keras` file; `inference.backends.keras_archive` looks through it before Keras does.

    Raises
    ------
    ModelError
        If it holds more than known layers and weights, or does not map a volume to a volume.
    """

    backend: Backend = "keras"
    isa = ""

    def __init__(self, data: bytes) -> None:
        self.model = read_model(data)
        self.digest = blake3(data).hexdigest()
        sizes = ([t.shape[1:] for t in ts] for ts in (self.model.inputs, self.model.outputs))
        self._face = Face.of(*sizes)
        self.patch, self.channels = self._face.patch, self._face.channels
        self._call = tf.function(
            lambda patches: self.model(patches, training=False), autograph=False
        )

    def shrink(self, patch: ZYX) -> ZYX:
        """Return by how many voxels the output is smaller, at either side; see `PatchNetwork`."""
        self._face.check_patch(patch)
        try:
            made = self.model.compute_output_shape(self._face.batched(patch))
        except Exception as error:
            raise ModelError(
                f"the model does not take patches of {patch} (z, y, x): {_short(error)}"
            ) from error
        z, y, x = made[:-1] if self._face.is_flat else made[1:-1]
        return self._face.shrink(patch, (z, y, x))

    def working_bytes(self, patch: ZYX, batch: int = 1) -> int:
        """Return what the layers' outputs take for a batch while each is still needed."""
        layers = self.model.layers
        made = [_listed(layer.output) for layer in layers]
        outputs = [tensor for tensors in made for tensor in tensors]
        shapes = _listed(
            keras.Model(self.model.inputs, outputs).compute_output_shape(
                self._face.batched(patch, batch)
            )
        )
        sizes = [4 * int(prod(shape)) for shape in shapes]
        size_of = {id(tensor): size for tensor, size in zip(outputs, sizes, strict=True)}
        # Layers are in the order in which they are computed; the model's own outputs stay.
        last = {id(t): n for n, layer in enumerate(layers) for t in _listed(layer.input)}
        last |= {id(tensor): len(layers) for tensor in self.model.outputs}
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
        batch, z, y, x, _ = patches.shape
        given = patches.reshape(self._face.batched((z, y, x), batch))
        made = np.asarray(self._call(given), dtype=np.float32)
        return made.reshape(batch, -1, *made.shape[-3:])


def _listed(output: Any) -> list[Any]:
    return list(output) if isinstance(output, list) else [output]


def _short(error: Exception) -> str:
    """Return the last words of an error: Keras repeats the whole model before them."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1][:300]
