"""Compile a network for one size of input, and run it."""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inference import native
from inference.engine import passes as passes_
from inference.engine import sources
from inference.engine.choices import Choice, Work, candidates
from inference.engine.graph import Graph
from inference.engine.lowering import Lowered, Lowering
from inference.engine.passes import Passes
from inference.engine.program import Program, assemble
from inference.engine.shapes import InputShapes
from inference.engine.tuning import Tuner
from inference.errors import BackendError, ConfigError, ShapeError

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
    tuning: bool = True
    """Whether kernels, and with isa="auto" vectors, are chosen by measuring; else by a formula."""
    cache: Path | None = None
    """Folder of what was measured; None: ``~/.cache/petalign/engine``."""


def compile(model: Any, input_shape: InputShapes | None = None, **settings: Any) -> Engine:
    """Compile a network.

    Parameters
    ----------
    model : keras.Model, path of a .keras file, or Graph
        What is to be computed. A file is read without Keras.
    input_shape : sequence of int
        (y, x, channels) or (z, y, x, channels), without the batch. A graph has its own.
    **settings
        Of `Settings`.

    Raises
    ------
    ModelError
        If the file holds no model that may be opened; as an `UnsupportedError`, if the model holds
        a layer that the engine doesn't know.
    BackendError
        If the kernels are not built, or the processor lacks the vectors that are asked for.
    """
    return Engine(_graph(model, input_shape), Settings(**settings))


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
        if settings.threads < 1:
            raise ConfigError(f"threads={settings.threads}: at least one is needed")
        self.graph = passes_.apply(graph, settings.passes)
        self.isa, self._library, lowered = self._lowered()
        is_shared = "memory" in passes_.chosen(settings.passes)
        self.program: Program = assemble(lowered.steps, is_shared=is_shared)
        self.choices = lowered.choices
        self._contexts: list[int] = []
        self._lock = threading.Lock()

    def _lowered(self) -> tuple[str, ctypes.CDLL, Lowered]:
        """Choose all kernels, by measuring for every width of vectors that may be the fastest.

        Wide vectors waste lanes on few channels, and on some processors take twice as long.
        """
        settings, found = self.settings, []
        for isa in _isas(settings.isa, is_tuned=settings.tuning):
            library = _library(isa)
            tuner = Tuner(isa, library, settings.cache)

            def choose(work: Work, tuner: Tuner = tuner) -> Choice:
                possible = candidates(work, is_strict=settings.strict)
                return tuner.best(work, possible) if settings.tuning else possible[0]

            lanes = int(library.petalign_engine_lanes())
            lowering = Lowering(self.graph, lanes, choose, settings.threads)
            found.append((tuner.total_s, isa, library, lowering))
        _, isa, library, lowering = min(found, key=lambda one: one[0])
        return isa, library, lowering.lowered()

    # ------------------------------------------------------------------ running

    def __call__(self, x: NDArray[np.float32]) -> Any:
        """Compute a batch (n, ..., channels); several outputs come as a tuple.

        Raises
        ------
        ShapeError
            If the input has another shape than the network was compiled for.
        """
        given = self._checked(x)
        made = [
            np.empty((len(given), *self._outer(name)), np.float32) for name in self.graph.outputs
        ]
        context = self._take()
        try:
            for n in range(len(given)):
                self._run(context, [given[n], *(output[n] for output in made)])
        finally:
            with self._lock:
                self._contexts.append(context)
        return made[0] if len(made) == 1 else tuple(made)

    def _checked(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(self.graph.inputs) != 1:
            raise ShapeError(f"the network takes {len(self.graph.inputs)} inputs")
        expected = self._outer(self.graph.inputs[0].name)
        given = np.ascontiguousarray(x, np.float32)
        if given.shape[1:] != expected:
            raise ShapeError(
                f"the network was compiled for batches (n, {', '.join(map(str, expected))}), got "
                f"{given.shape}; compile it again for another size"
            )
        return given

    def _outer(self, name: str) -> tuple[int, ...]:
        """Return the shape of a result as the caller sees it, without the batch."""
        channels, z, y, x = self.graph.shapes[name]
        return (y, x, channels) if self.graph.is_flat else (z, y, x, channels)

    def _take(self) -> int:
        with self._lock:
            if self._contexts:
                return self._contexts.pop()
        program = self.program
        context = self._library.petalign_engine_open(
            self.settings.threads, program.arena_floats, program.scratch_floats
        )
        if not context:
            raise MemoryError(
                f"no room for {self.working_bytes / 1e6:,.0f} MB; use smaller patches"
            )
        return int(context)

    def _run(
        self, context: int, arrays: list[NDArray[np.float32]], seconds: Any | None = None
    ) -> None:
        addresses = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        ops = self.program.ops
        self._library.petalign_engine_run(context, ops, len(ops), addresses, seconds)

    def __del__(self) -> None:
        """Give the memory back."""
        for context in getattr(self, "_contexts", ()):
            self._library.petalign_engine_close(context)

    # ------------------------------------------------------------------ what it does

    @property
    def working_bytes(self) -> int:
        """Memory that a call takes beside its input, its output and the weights."""
        floats = self.program.arena_floats + self.settings.threads * self.program.scratch_floats
        return 4 * floats

    def plan(self) -> str:
        """Return in words what passes did, and what is computed in which order."""
        lines = [f"{self.isa}, {self.settings.threads} threads, float32"]
        lines += [f"pass: {note}" for note in self.graph.notes]
        lines += [f"{n:3} {label}" for n, label in enumerate(self.program.labels)]
        weights = self.program.weights_bytes / 1e6
        lines.append(f"memory: {self.working_bytes / 1e6:,.1f} MB, weights {weights:,.1f} MB")
        return "\n".join(lines)

    def profile(self, x: NDArray[np.float32]) -> list[tuple[str, float]]:
        """Compute the first of a batch and return what each step took, s on the clock."""
        given = self._checked(x)[0]
        made = [np.empty(self._outer(name), np.float32) for name in self.graph.outputs]
        seconds = (ctypes.c_double * len(self.program.ops))()
        context = self._take()
        self._run(context, [given, *made], seconds)
        with self._lock:
            self._contexts.append(context)
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
