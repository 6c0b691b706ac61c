"""Compile a network for one size of input, and run it."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from inference import native
from inference.engine import heads, sources
from inference.engine import passes as passes_
from inference.engine.choices import Choice, Work, candidates
from inference.engine.contexts import Contexts
from inference.engine.graph import Graph
from inference.engine.lowering import Lowered, Lowering
from inference.engine.passes import Passes
from inference.engine.program import Program, assemble
from inference.engine.shapes import InputShapes
from inference.engine.tuning import Tuner
from inference.errors import BackendError, ConfigError, ShapeError, UnsupportedError

if TYPE_CHECKING:
    from inference.backends.openvino_file import OpenVINONetwork

TILES = (2, 4, 6)
_SMALL_BYTES = 64_000_000
"""Of a sample's results, up to which each thread may have its own."""
Isa = Literal["auto", "avx512", "avx2", "portable"]


@dataclass(frozen=True)
class Settings:
    """How a network is compiled."""

    isa: Isa = "auto"
    passes: Passes = "full"
    threads: int = 1
    precision: Literal["float32"] = "float32"
    strict: bool = False
    """Only direct sums, whose rounding is that of other libraries."""
    largest_tile: Literal[2, 4, 6] = 4
    """Side of Winograd's output tiles, at most. 6 takes fewer products and rounds five times as
    much; see docs/engine.md."""
    tuning: bool = True
    """Whether kernels, and with isa="auto" vectors, are chosen by measuring; else by a formula."""
    cache: Path | None = None
    """Folder of what was measured; None: ``~/.cache/petalign/engine``."""


@overload
def compile(
    model: Any, input_shape: InputShapes | None = None, *, fallback: None = None, **settings: Any
) -> Engine: ...


@overload
def compile(
    model: Any,
    input_shape: InputShapes | None = None,
    *,
    fallback: Literal["openvino"],
    **settings: Any,
) -> Engine | OpenVINONetwork: ...


def compile(
    model: Any,
    input_shape: InputShapes | None = None,
    *,
    fallback: Literal["openvino"] | None = None,
    **settings: Any,
) -> Engine | OpenVINONetwork:
    """Compile a network.

    Parameters
    ----------
    model : keras.Model, path of a .keras or .onnx file, or Graph
        What is to be computed. Files are read without Keras.
    input_shape : sequence of int, or a sequence of those
        (y, x, channels) or (z, y, x, channels), without the batch, for each input. A graph has its
        own. Channels come last for ONNX too, see `from_onnx.read`.
    fallback : {None, "openvino"}
        What runs the network if the engine does not compute it, or has no kernels here; a warning
        says so and names the layer.
    **settings
        Of `Settings`.

    Raises
    ------
    ModelError
        If the file holds no model that may be opened; as an `UnsupportedError`, if the model holds
        a layer that the engine doesn't know.
    BackendError
        If the kernels are not built, the processor lacks the vectors that are asked for, or
        OpenVINO is asked for and not installed.
    """
    try:
        return Engine(_graph(model, input_shape), Settings(**settings))
    except (UnsupportedError, BackendError) as error:
        if fallback is None or input_shape is None:
            raise
        if fallback != "openvino":
            raise ConfigError(f"fallback={fallback!r}: it is None or 'openvino'") from error
        from inference.backends import openvino_file

        threads = settings.get("threads", 1)
        return openvino_file.instead(model, input_shape, threads=threads, why=error)


def _graph(model: Any, input_shape: InputShapes | None) -> Graph:
    if isinstance(model, Graph):
        return model
    if input_shape is None:
        raise ConfigError("the engine compiles for one size: give input_shape, without the batch")
    source = sources.read(model) if isinstance(model, str | Path) else model
    return sources.graph_of(source, input_shape)


class Engine:
    """A compiled network. Threads may share it: each call has memory of its own."""

    def __init__(self, graph: Graph, settings: Settings | None = None) -> None:
        self.settings = settings = settings or Settings()
        if settings.precision != "float32":
            raise ConfigError(f"precision {settings.precision!r} is not known; it is 'float32'")
        if settings.largest_tile not in TILES:
            raise ConfigError(f"largest_tile={settings.largest_tile}: it is one of {TILES}")
        if settings.threads < 1:
            raise ConfigError(f"threads={settings.threads}: at least one is needed")
        body, self.heads = heads.split(graph)
        self.graph = passes_.apply(body, settings.passes)
        self.isa, self._library, lowered = self._lowered()
        is_shared = "memory" in passes_.chosen(settings.passes)
        self.program: Program = assemble(lowered.steps, is_shared=is_shared)
        self.choices = lowered.choices
        self._contexts = Contexts(self._library, self.program)

    def _lowered(self) -> tuple[str, ctypes.CDLL, Lowered]:
        """Choose all kernels, by measuring for every width of vectors that may be the fastest.

        Wide vectors waste lanes on few channels, and on some processors take twice as long.
        """
        settings, found = self.settings, []
        largest = 1 if settings.strict else settings.largest_tile
        for isa in _isas(settings.isa, is_tuned=settings.tuning):
            library = _library(isa)
            tuner = Tuner(isa, library, settings.cache)

            def choose(work: Work, tuner: Tuner = tuner) -> Choice:
                possible = candidates(work, largest_tile=largest)
                return tuner.best(work, possible) if settings.tuning else possible[0]

            lanes = int(library.petalign_engine_lanes())
            lowering = Lowering(self.graph, lanes, choose, settings.threads)
            found.append((tuner.total_s, isa, library, lowering))
        _, isa, library, lowering = min(found, key=lambda one: one[0])
        return isa, library, lowering.lowered()

    # ------------------------------------------------------------------ running

    def __call__(self, *inputs: NDArray[np.float32]) -> Any:
        """Compute a batch (n, ..., channels); several outputs come as a tuple.

        Of several inputs, each has the batch's samples in the same order.

        Raises
        ------
        ShapeError
            If the input has another shape than the network was compiled for.
        """
        given = self._checked(inputs)
        batch, threads = len(given[0]), self.settings.threads
        made = {
            name: np.empty((batch, *self._outer(name)), np.float32) for name in self.graph.outputs
        }

        def compute(sample: int, threads: int) -> None:
            arrays = [array[sample] for array in (*given, *made.values())]
            with self._contexts.lent(threads) as context:
                self._run(context, arrays)

        apart = batch // threads * threads if self._is_small else 0
        if apart:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda sample: compute(sample, 1), range(apart)))
        for sample in range(apart, batch):
            compute(sample, threads)
        found = [head(made) for head in self.heads]
        return found[0] if len(found) == 1 else tuple(found)

    def _checked(self, inputs: tuple[NDArray[np.float32], ...]) -> list[NDArray[np.float32]]:
        if len(self.graph.inputs) != len(inputs):
            raise ShapeError(
                f"the network takes {len(self.graph.inputs)} inputs, got {len(inputs)}"
            )
        found = [np.ascontiguousarray(array, np.float32) for array in inputs]
        for node, given in zip(self.graph.inputs, found, strict=True):
            expected = self._outer(node.name)
            if given.shape[1:] != expected or len(given) != len(found[0]):
                raise ShapeError(
                    f"the network was compiled for batches (n, {', '.join(map(str, expected))}), "
                    f"got {given.shape}; compile it again for another size"
                )
        return found

    def _outer(self, name: str) -> tuple[int, ...]:
        """Return the shape of a result as the caller sees it, without the batch."""
        channels, z, y, x = self.graph.shapes[name]
        return (y, x, channels) if self.graph.is_flat else (z, y, x, channels)

    def _run(
        self, context: int, arrays: list[NDArray[np.float32]], seconds: Any | None = None
    ) -> None:
        addresses = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        ops = self.program.ops
        self._library.petalign_engine_run(context, ops, len(ops), addresses, seconds)

    @property
    def _is_small(self) -> bool:
        """Whether threads take samples of their own: they need not wait for each other then."""
        return self.settings.threads > 1 and 4 * self.program.arena_floats <= _SMALL_BYTES

    # ------------------------------------------------------------------ what it does

    @property
    def working_bytes(self) -> int:
        """Memory that a call takes beside its input, its output and the weights."""
        program, threads = self.program, self.settings.threads
        arenas = threads if self._is_small else 1
        return 4 * (arenas * program.arena_floats + threads * program.scratch_floats)

    def plan(self) -> str:
        """Return in words what passes did, and what is computed in which order."""
        lines = [f"{self.isa}, {self.settings.threads} threads, float32"]
        lines += [f"pass: {note}" for note in self.graph.notes]
        lines += [f"{n:3} {label}" for n, label in enumerate(self.program.labels)]
        lines += [f"then {head.words}" for head in self.heads if head.words]
        weights = self.program.weights_bytes / 1e6
        lines.append(f"memory: {self.working_bytes / 1e6:,.1f} MB, weights {weights:,.1f} MB")
        return "\n".join(lines)

    def profile(self, *inputs: NDArray[np.float32]) -> list[tuple[str, float]]:
        """Compute the first of a batch and return what each step took, s on the clock."""
        given = [array[0] for array in self._checked(inputs)]
        made = [np.empty(self._outer(name), np.float32) for name in self.graph.outputs]
        seconds = (ctypes.c_double * len(self.program.ops))()
        with self._contexts.lent(self.settings.threads) as context:
            self._run(context, [*given, *made], seconds)
        return list(zip(self.program.labels, seconds, strict=True))


def _isas(isa: Isa, *, is_tuned: bool) -> list[str]:
    """Return the widths of vectors to choose from, the widest first."""
    if isa != "auto":
        return [isa]
    widest = native.widest()
    if widest == "avx512" and is_tuned:
        return [name for name in ("avx512", "avx2") if native.library(name) is not None]
    return [widest or isa]


def _library(isa: str) -> ctypes.CDLL:
    library = native.library(isa) if isa in native.ISAS else None
    if library is None:
        raise BackendError(
            f"the engine has no kernels for isa={isa!r} here: run `make install`, use 'auto', or "
            "another backend"
        )
    return library
