"""A static plan of memory: buffers whose contents are not needed at the same time share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference.engine.layout import Buffer

ALIGNED = 1024
"""Buffers begin at multiples of this, floats."""
SLACK = 16_384
"""Behind the last buffer, floats: blocks of registers read past the end of a row."""


@dataclass
class Life:
    """From which step of the program to which a buffer's content is needed, both included."""

    buffer: Buffer
    first: int
    last: int


def plan(lives: Sequence[Life], *, is_shared: bool) -> int:
    """Give every buffer its origin, the largest first, each as far in front as it may lie.

    Returns
    -------
    int
        Floats of the arena.
    """
    placed: list[Life] = []
    size = 0
    for life in sorted(lives, key=lambda life: -life.buffer.floats):
        origin = 0
        for other in sorted(placed, key=lambda life: life.buffer.origin):
            if is_shared and not _overlap(life, other):
                continue
            if origin + life.buffer.floats <= other.buffer.origin:
                break
            origin = max(origin, _aligned(other.buffer.origin + other.buffer.floats))
        life.buffer.origin = origin
        placed.append(life)
        size = max(size, origin + life.buffer.floats)
    return size + SLACK


def _overlap(a: Life, b: Life) -> bool:
    return a.first <= b.last and b.first <= a.last


def _aligned(floats: int) -> int:
    return -(-floats // ALIGNED) * ALIGNED


def alone(lives: Sequence[Life]) -> set[str]:
    """Return the names of buffers whose memory no other ever uses."""
    spans = {
        life.buffer.name: (life.buffer.origin, life.buffer.origin + life.buffer.floats)
        for life in lives
    }
    return {
        name
        for name, (start, stop) in spans.items()
        if not any(a < stop and start < b for other, (a, b) in spans.items() if other != name)
    }
