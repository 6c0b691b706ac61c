"""Choose kernels by measuring them, once for each machine and each kind of convolution.

What was measured is kept in a folder, one small file for each convolution, named by a digest of all
that it depends on. Files appear whole or not at all; one that is damaged, or says something else
than its name, is measured again.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from inference.engine.choices import Choice, Work, cost
from inference.engine.graph import Graph, Node
from inference.engine.lowering import lower
from inference.engine.ops import Activation, Conv, Input, Kind
from inference.engine.program import Program, assemble
from inference.native import SOURCES
from inference.native.structures import Kind as Step

_MOST = 6  # candidates that are measured
_WORSE = 2.0  # by the formula, than its best: not measured
_FLOPS = 1.5e9  # of a measurement: a part of a larger image
_ROUNDS = 4
_NEW = ".new-"  # begins the names of files that are being written
_WRITING_S = 3600.0  # longer than a small file is ever being written

_log = logging.getLogger(__name__)


class Tuner:
    """Measures the kernels of one width of vectors, and remembers."""

    def __init__(self, isa: str, library: ctypes.CDLL, folder: Path | None) -> None:
        self.isa, self.library = isa, library
        self.folder = folder or Path.home() / ".cache" / "petalign" / "engine"
        self.measured = 0
        """How many convolutions had to be measured."""
        self.total_s = 0.0
        """Of all that was asked for, as often as it was."""
        self._known: dict[Work, tuple[Choice, float]] = {}

    def best(self, work: Work, possible: Sequence[Choice]) -> Choice:
        """Return the fastest way to compute a convolution; `possible` begins with the likeliest."""
        if work.is_plain or len(possible) == 1:
            return possible[0]
        if work not in self._known:
            self._known[work] = self._read(work, possible) or self._measured(work, possible)
        choice, seconds = self._known[work]
        self.total_s += seconds
        return choice

    def _measured(self, work: Work, possible: Sequence[Choice]) -> tuple[Choice, float]:
        self.measured += 1
        limit = _WORSE * cost(work, possible[0])
        tried = [choice for choice in possible[:_MOST] if cost(work, choice) <= limit]
        seconds = self._seconds(work, tried)
        best = tried[int(np.argmin(seconds))]
        self._write(self._signature(work, possible), best, min(seconds))
        return best, min(seconds)

    def _seconds(self, work: Work, choices: Sequence[Choice]) -> list[float]:
        """Return the processor time of a convolution, computed on a part of its image, each way.

        All have their turn in every round: what else the machine does meanwhile meets all alike.
        """
        part = _part(work, max(choice.tile**2 * choice.tiles for choice in choices))
        with ExitStack() as stack:
            trials = [stack.enter_context(_Trial(self.library, part, c)) for c in choices]
            rounds = [[trial.turn() for trial in trials] for _ in range(_ROUNDS)]
        return [float(s) * work.flops / part.flops for s in np.min(rounds, axis=0)]

    # ------------------------------------------------------------------ the folder

    def _signature(self, work: Work, possible: Sequence[Choice]) -> dict[str, Any]:
        """Return all that a choice depends on: also what there was to choose from."""
        words = "\n".join(choice.in_words() for choice in possible)
        return {
            "possible": hashlib.sha256(words.encode()).hexdigest()[:16],
            "kernels": SOURCES.digest(),
            "isa": self.isa,
            "machine": _machine(),
            "work": json.loads(json.dumps(asdict(work))),
        }

    def _path(self, signature: dict[str, Any]) -> Path:
        text = json.dumps(signature, sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def _read(self, work: Work, possible: Sequence[Choice]) -> tuple[Choice, float] | None:
        signature = self._signature(work, possible)
        try:
            found = json.loads(self._path(signature).read_text(encoding="utf-8"))
            choice, seconds = Choice(**found["choice"]), float(found["seconds"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        is_this = found.get("of") == signature and choice in possible
        return (choice, seconds) if is_this else None

    def _write(self, signature: dict[str, Any], choice: Choice, seconds: float) -> None:
        text = json.dumps({"of": signature, "choice": choice.as_json(), "seconds": seconds})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            handle, name = tempfile.mkstemp(dir=self.folder, prefix=_NEW)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).replace(self._path(signature))
        except OSError as error:
            _log.info("what was measured is not kept: %s", error)

    def _sweep(self) -> None:
        """Remove what a process left that was killed while it wrote."""
        for path in self.folder.glob(f"{_NEW}*"):
            with suppress(OSError):  # another process was faster
                if time.time() - path.stat().st_mtime > _WRITING_S:
                    path.unlink()


class _Trial:
    """One way to compute a convolution, ready to be timed within its context."""

    def __init__(self, library: ctypes.CDLL, work: Work, choice: Choice) -> None:
        self._library, self._program = library, _program(work, choice)
        ops = self._program.ops
        self._op = next(n for n, op in enumerate(ops) if op.kind in _CONVOLUTIONS)
        self._arrays = _arrays(self._program)
        self._addresses = (ctypes.c_void_p * len(self._arrays))(
            *(a.ctypes.data for a in self._arrays)
        )

    def __enter__(self) -> _Trial:
        """Take memory and compute once."""
        program = self._program
        arena, scratch = program.arena_floats, program.scratch_floats
        self._context = self._library.petalign_engine_open(1, arena, scratch)
        if not self._context:
            raise MemoryError("no room to measure convolutions")
        self._run(0, len(program.ops))
        return self

    def __exit__(self, *_: object) -> None:
        """Give the memory back."""
        self._library.petalign_engine_close(self._context)

    def turn(self) -> float:
        """Compute the convolution once and return its processor time."""
        start = time.thread_time()
        self._run(self._op, 1)
        return time.thread_time() - start

    def _run(self, first: int, count: int) -> None:
        ops = ctypes.pointer(self._program.ops[first])
        self._library.petalign_engine_run(self._context, ops, count, self._addresses, None)


_CONVOLUTIONS = (Step.DIRECT, Step.WINOGRAD)


@cache
def _machine() -> str:
    """Return what tells kinds of processors apart."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return platform.processor() or platform.machine()
    names = ("vendor_id", "cpu family", "model", "model name", "cache size", "CPU part")
    fields = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    kept = {name.strip(): value.strip() for name, value in fields.items()}
    return "; ".join(f"{name} {kept[name]}" for name in names if name in kept)


def _part(work: Work, pixels: int) -> Work:
    """Return a smaller image that shows what the whole one costs, of some pixels at least."""
    z, y, x = work.size
    deep = min(z, work.sides[0] + 3)
    part = replace(work, size=(deep, y, x))
    rows = max(int(y * _FLOPS / max(part.flops, 1)), 16, -(-pixels // x))
    return replace(part, size=(deep, min(y, rows), x))


def _program(work: Work, choice: Choice) -> Program:
    """Return the program of a convolution alone."""
    sides, stride = work.sides, work.stride
    kernel = np.zeros((*sides, work.inputs, work.outputs), np.float32)  # times are those of any
    bias = np.zeros(work.outputs, np.float32)
    z, y, x = (((k - 1) // 2, k // 2) for k in sides)
    kind: Kind = work.activation  # type: ignore[assignment]
    op = Conv(
        kernel,
        bias,
        stride,
        (z, y, x),
        Activation(kind, 1.0),
        np.ones_like(bias) if work.is_residual else None,
    )
    z0, y0, x0 = ((n - 1) * s + 1 for n, s in zip(work.size, stride, strict=True))
    nodes = [Node("given", Input((work.inputs, z0, y0, x0)))]
    if work.is_residual:
        nodes.append(Node("more", Input((work.outputs, *work.size))))
    names = tuple(node.name for node in nodes)
    nodes.append(Node("made", op, names))
    lowered = lower(Graph(tuple(nodes), ("made", "made")), work.lanes, lambda _: choice)
    return assemble(lowered.steps, is_shared=False)


def _arrays(program: Program) -> list[np.ndarray[Any, Any]]:
    random = np.random.default_rng(1)
    arrays = []
    for op in program.ops:
        for tensor in (op.input, op.output):
            if tensor.external >= 0:
                size = tensor.depth * tensor.height * tensor.width * tensor.channels
                arrays.append((tensor.external, random.normal(size=size).astype(np.float32)))
    return [array for _, array in sorted(arrays, key=lambda pair: pair[0])]
