"""A program: the steps that compute a graph, with all addresses, for one width of vectors."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.engine import memory
from inference.engine.layout import Buffer, Place
from inference.engine.memory import Life
from inference.engine.ops import LINEAR, Activation
from inference.engine.packing import aligned
from inference.native.structures import ACTIVATIONS, Kind, Op, Tensor, Three

Somewhere = Place | Tensor


@dataclass(frozen=True)
class Step:
    """One operation, before addresses are known."""

    kind: Kind
    label: str
    """What it does, in words."""
    output: Somewhere
    input: Somewhere | None = None
    residual: Place | None = None
    activation: Activation = LINEAR
    numbers: Mapping[str, int | tuple[int, int, int]] = field(default_factory=dict)
    """Fields of `structures.Op` by name."""
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Likewise, those that are addresses."""
    scratch_floats: int = 0

    def buffers(self) -> list[Buffer]:
        """Return the buffers that it reads or writes."""
        places = (self.input, self.output, self.residual)
        return [place.buffer for place in places if isinstance(place, Place)]


@dataclass(frozen=True)
class Program:
    """Steps with their addresses."""

    ops: ctypes.Array[Op]
    labels: tuple[str, ...]
    arena_floats: int
    scratch_floats: int
    held: tuple[NDArray[Any], ...]
    """What the operations point to."""

    @property
    def weights_bytes(self) -> int:
        """Memory for weights, as they are laid out."""
        return sum(array.nbytes for array in self.held)


def assemble(steps: Sequence[Step], *, is_shared: bool) -> Program:
    """Plan the memory of the steps' buffers and write the program down."""
    steps = _with_margins(steps)
    lives = _lives(steps)
    arena = memory.plan(lives, is_shared=is_shared)
    once = memory.alone(lives)  # nobody else writes there: margins are 0 from the beginning
    steps = [step for step in steps if not _is_needless(step, once)]
    held: list[NDArray[Any]] = []
    ops = (Op * len(steps))(*(_op(step, held) for step in steps))
    scratch = max((step.scratch_floats for step in steps), default=0)
    return Program(ops, tuple(step.label for step in steps), arena, scratch, tuple(held))


def _with_margins(steps: Sequence[Step]) -> list[Step]:
    """Zero the margin of every buffer before it is first written."""
    found, written = [], set()
    for step in steps:
        if isinstance(step.output, Place) and step.output.buffer.name not in written:
            buffer = step.output.buffer
            written.add(buffer.name)
            if buffer.margin:
                whole = Place(buffer, np.arange(buffer.blocks * buffer.lanes), buffer.size)
                found.append(Step(Kind.ZERO_MARGIN, f"margin of {buffer.name}", whole))
        found.append(step)
    return found


def _is_needless(step: Step, once: set[str]) -> bool:
    return (
        step.kind == Kind.ZERO_MARGIN
        and isinstance(step.output, Place)
        and step.output.buffer.name in once
    )


def _lives(steps: Sequence[Step]) -> list[Life]:
    lives: dict[str, Life] = {}
    for n, step in enumerate(steps):
        for buffer in step.buffers():
            lives.setdefault(buffer.name, Life(buffer, n, n)).last = n
    return list(lives.values())


def _op(step: Step, held: list[NDArray[Any]]) -> Op:
    op = Op(kind=step.kind, output=_tensor(step.output))
    if step.input is not None:
        op.input = _tensor(step.input)
    if step.residual is not None:
        op.residual = step.residual.tensor()
        op.has_residual = 1
    op.activation = ACTIVATIONS[step.activation.kind]
    op.alpha = step.activation.alpha
    for name, value in step.numbers.items():
        setattr(op, name, Three(*value) if isinstance(value, tuple) else value)
    for name, array in step.arrays.items():
        held.append(aligned(array))
        setattr(op, name, held[-1].ctypes.data)
    return op


def _tensor(somewhere: Somewhere) -> Tensor:
    return somewhere.tensor() if isinstance(somewhere, Place) else somewhere
