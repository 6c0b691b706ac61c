"""Blocks of a worker behind each other: while one is computed, the next is read, the last written.

A task that computes lets its worker begin the next one, which reads and then waits for its turn.
Before it leaves its turn, it waits until the block before it is written. So for each thread of a
worker there are three blocks at most, and neither reading nor writing keeps a core from computing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto

from alignment.blockwise import let_next_begin, own_threads, own_worker


class Step(Enum):
    """What a block is at, after it was read."""

    COMPUTE = auto()
    WRITE = auto()


class Turn:
    """The turns that one block takes, one after the other."""

    def __init__(self, free: dict[Step, threading.Semaphore]) -> None:
        self._free = free
        self._held: threading.Semaphore | None = None

    def take(self, step: Step) -> None:
        """Wait for the turn of a step, and only then leave the one before."""
        self._free[step].acquire()
        self.leave()
        self._held = self._free[step]
        if step is Step.COMPUTE:
            let_next_begin()

    def leave(self) -> None:
        """Give up the turn that is held, if one is."""
        if self._held is not None:
            self._held.release()
        self._held = None


@contextmanager
def own_turn() -> Iterator[Turn]:
    """Give the turns of this task among those of its worker; they end with the block."""
    turn = Turn(_free_of(own_worker()))
    try:
        yield turn
    finally:
        turn.leave()


_all: dict[str, dict[Step, threading.Semaphore]] = {}
_lock = threading.Lock()


def _free_of(worker: str) -> dict[Step, threading.Semaphore]:
    """Return the free turns of a worker, of which a process may hold several."""
    with _lock:
        if worker not in _all:
            width = own_threads() if worker else 1
            _all[worker] = {step: threading.Semaphore(width) for step in Step}
        return _all[worker]
