"""Memory and threads that a program runs in: lent to one call at a time, and used again."""

from __future__ import annotations

import ctypes
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from inference.engine.program import Program


class Contexts:
    """Those of one program, made when they are asked for.

    Parameters
    ----------
    library : ctypes.CDLL
        The kernels.
    program : Program
        Says how much memory is needed.
    """

    def __init__(self, library: ctypes.CDLL, program: Program) -> None:
        self._library, self._program = library, program
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        self._lock = threading.Lock()

    @contextmanager
    def lent(self, threads: int) -> Iterator[int]:
        """Give a context of so many threads; nobody else has it meanwhile.

        Raises
        ------
        MemoryError
            If there is no room for another one.
        """
        with self._lock:
            free = self._free[threads]
            context = free.pop() if free else None
        context = self._opened(threads) if context is None else context
        try:
            yield context
        finally:
            with self._lock:
                self._free[threads].append(context)

    def _opened(self, threads: int) -> int:
        program = self._program
        sizes = program.arena_floats, program.scratch_floats
        context = self._library.petalign_engine_open(threads, *sizes)
        if not context:
            size = 4e-6 * (sizes[0] + threads * sizes[1])
            raise MemoryError(f"no room for {size:,.0f} MB; use smaller patches")
        return int(context)

    def __del__(self) -> None:
        """Give the memory back."""
        for contexts in self._free.values():
            for context in contexts:
                self._library.petalign_engine_close(context)
