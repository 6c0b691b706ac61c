"""Networks of Keras models, run by the fused engine; Keras only reads the file."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inference import native
from inference.engine import Engine, compile
from inference.errors import ModelError, ShapeError
from inference.network import ZYX, Backend

if TYPE_CHECKING:
    from inference.backends.keras_file import KerasNetwork


class EngineNetwork:
    """A Keras model as an `inference.network.PatchNetwork`, compiled for one size of patches.

    Kernels are chosen by formula, not by measuring: with the same vectors, all workers compute the
    same bits.

    Parameters
    ----------
    network : KerasNetwork
        As it was read; knows what it makes of a patch.
    isa : str
        Vectors: "avx512", "avx2", "portable", or "auto", the widest of this processor.
    threads : int
        Threads that compute a patch; the result does not depend on them.
    """

    backend: Backend = "engine"

    def __init__(self, network: KerasNetwork, *, isa: str = "auto", threads: int = 1) -> None:
        self._read, self._threads = network, threads
        self.isa = (native.widest() or isa) if isa == "auto" else isa
        self.digest, self.patch = network.digest, network.patch
        self.channels = network.channels
        self._compiled: tuple[ZYX, Engine] | None = None
        self._lock = threading.Lock()

    def compiled(self, patch: ZYX) -> Engine:
        """Return the engine for patches of a size; the last one is kept.

        Raises
        ------
        ModelError
            If the engine does not know a layer; layer and reason are named.
        BackendError
            If this machine has no kernels with such vectors.
        """
        with self._lock:
            if self._compiled is None or self._compiled[0] != patch:
                self._compiled = patch, self._compile(patch)
            return self._compiled[1]

    def _compile(self, patch: ZYX) -> Engine:
        shape = self._read.batched(patch)[1:]
        try:
            return compile(
                self._read.model, shape, isa=self.isa, threads=self._threads, tuning=False
            )
        except ShapeError as error:
            raise ModelError(
                f"the engine cannot compute the model for patches of {patch} (z, y, x): {error}"
            ) from error

    def shrink(self, patch: ZYX) -> ZYX:
        """Return by how many voxels the output is smaller, at either side; see `PatchNetwork`."""
        return self._read.shrink(patch)

    def working_bytes(self, patch: ZYX, batch: int = 1) -> int:
        """Return what a call takes, and the weights as they are laid out for the kernels.

        A batch is computed patch by patch, in the same memory.
        """
        engine = self.compiled(patch)
        return engine.working_bytes + engine.program.weights_bytes

    def __call__(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map patches; see `PatchNetwork`."""
        batch, z, y, x, _ = patches.shape
        given = patches.reshape(self._read.batched((z, y, x), batch))
        made: NDArray[np.float32] = self.compiled((z, y, x))(given)
        return made.reshape(batch, -1, *made.shape[-3:])
