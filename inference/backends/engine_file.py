"""Networks of files, read and run by the fused engine: neither Keras nor TensorFlow is imported."""

from __future__ import annotations

import threading

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from inference import native
from inference.backends.face import Face
from inference.engine import Engine, Graph, compile, sources
from inference.engine.trim import trimmed
from inference.errors import ModelError, ShapeError, UnsupportedError
from inference.network import ZYX, Backend, Tile
from inference.operations import gflop


class EngineNetwork:
    """A model's file as an `inference.network.PatchNetwork`, compiled for one size of patches.

    A model of images (batch, y, x, channel) sees each section of a patch by itself. Kernels are
    chosen by formula, not by measuring: with the same vectors, all workers compute the same bits.

    Parameters
    ----------
    data : bytes
        The file, see `inference.engine.sources.read`.
    isa : str
        Vectors: "avx512", "avx2", "portable", or "auto", the widest of this processor.
    tile_px : int
        Side of Winograd's output tiles, at most: 2, 4 or 6; 1 for direct sums only.
    threads : int
        Threads that compute a patch; the result does not depend on them.
    shrink : tuple of int, optional
        By how many voxels the output shall be smaller than a patch, at either side: what is cropped
        anyway is not computed. Passed over where the network takes off more by itself, or nothing
        would be left.

    Raises
    ------
    ModelError
        If the file holds no network that maps a volume to a volume.
    """

    backend: Backend = "engine"

    def __init__(
        self,
        data: bytes,
        *,
        isa: str = "auto",
        tile_px: Tile = 4,
        threads: int = 1,
        shrink: ZYX | None = None,
    ) -> None:
        self._source, self._threads = sources.read(data), threads
        self._tile_px = tile_px
        self._wanted = shrink or (0, 0, 0)
        inputs = self._source.input_shapes
        sizes = inputs[0][:-1] if inputs else ()
        self._face = Face.of(inputs, [(*sizes, n) for n in self._source.channels])
        self.isa = (native.widest() or isa) if isa == "auto" else isa
        self.digest = blake3(data).hexdigest()
        self.patch, self.channels = self._face.patch, self._face.channels
        self._graph: tuple[ZYX, Graph] | None = None
        self._compiled: tuple[ZYX, Engine] | None = None
        self._lock = threading.Lock()

    def compiled(self, patch: ZYX) -> Engine:
        """Return the engine for patches of a size; the last one is kept.

        Raises
        ------
        UnsupportedError
            If the engine does not know a layer, or nothing is left of such patches.
        BackendError
            If this machine has no kernels with such vectors.
        """
        with self._lock:
            if self._compiled is None or self._compiled[0] != patch:
                engine = compile(
                    self._read(patch),
                    isa=self.isa,
                    strict=self._tile_px == 1,
                    largest_tile=max(2, self._tile_px),
                    threads=self._threads,
                    tuning=False,
                )
                self._compiled = patch, engine
            return self._compiled[1]

    def _read(self, patch: ZYX) -> Graph:
        if self._graph is None or self._graph[0] != patch:
            self._face.check_patch(patch)
            try:
                graph = sources.graph_of(self._source, self._face.batched(patch)[1:])
            except ShapeError as error:
                raise UnsupportedError(
                    f"the engine cannot compute the model for patches of {patch} (z, y, x): {error}"
                ) from error
            made = graph.shapes[graph.outputs[0]][0]
            if made != self.channels:
                raise ModelError(f"the file promises {self.channels} channels, and gives {made}")
            self._graph = patch, self._trimmed(graph, patch)
        return self._graph[1]

    def _trimmed(self, graph: Graph, patch: ZYX) -> Graph:
        own = self._shrink(graph, patch)
        is_apart = self._face.is_flat  # sections are images of their own, none is left out
        wanted = (0, *self._wanted[1:]) if is_apart else self._wanted
        margins = [w - n for w, n in zip(wanted, own, strict=True)]
        left = [p - 2 * w for p, w in zip(patch, wanted, strict=True)]
        if min(margins) < 0 or min(left) < 1:
            return graph
        return trimmed(graph, (margins[0], margins[1], margins[2]))

    def shrink(self, patch: ZYX) -> ZYX:
        """Return by how many voxels the output is smaller, at either side; see `PatchNetwork`."""
        with self._lock:
            graph = self._read(patch)
        return self._shrink(graph, patch)

    def _shrink(self, graph: Graph, patch: ZYX) -> ZYX:
        _, z, y, x = graph.shapes[graph.outputs[0]]
        return self._face.shrink(patch, (patch[0] if self._face.is_flat else z, y, x))

    def working_bytes(self, patch: ZYX, batch: int = 1) -> int:
        """Return what a call takes, and the weights as they are laid out for the kernels.

        A batch is computed patch by patch, in the same memory.
        """
        engine = self.compiled(patch)
        return engine.working_bytes + engine.program.weights_bytes

    def gflop(self, patch: ZYX) -> float:
        """Return 1e9 operations for a patch, as `inference.operations.gflop`."""
        with self._lock:
            of_one = gflop(self._read(patch))
        return of_one * (patch[0] if self._face.is_flat else 1)

    def __call__(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map patches; see `PatchNetwork`."""
        batch, z, y, x, _ = patches.shape
        given = patches.reshape(self._face.batched((z, y, x), batch))
        made: NDArray[np.float32] = self.compiled((z, y, x))(given)
        return made.reshape(batch, -1, *made.shape[-3:])
