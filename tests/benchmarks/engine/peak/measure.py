"""The float32 peak of the machine, measured: ``python -m tests.benchmarks.engine.peak.measure``.

A loop of fused products and sums in registers, compiled for each width of vectors; the fastest
counts. A direct sum cannot be faster than that; Winograd's can, in the operations of a direct sum.
"""

from __future__ import annotations

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from inference import native
from inference.native.builder import ISAS, Sources, build

SOURCES = Sources(Path(__file__).parent, "_peak", ("-ffp-contract=fast",))
_TURN_S = 0.05


def peak_gflop_s(threads: int, turns: int = 5) -> float | None:
    """Return GFLOP/s of some threads together, of their best turn; None without a compiler."""
    rates = [_rate(library, threads, turns) for library in _libraries()]
    return max(rates, default=None)


def _rate(library: ctypes.CDLL, threads: int, turns: int) -> float:
    """Return the rate of a library: that of each thread by its own time, summed up."""
    flops = library.petalign_peak_flops()
    rounds = max(int(1_000_000 * _TURN_S / _seconds(library, 1_000_000)), 1)

    def seconds(_: int) -> float:
        return _seconds(library, rounds)

    with ThreadPoolExecutor(threads) as pool:
        rates = [
            sum(flops * rounds / taken for taken in pool.map(seconds, range(threads)))
            for _ in range(turns)
        ]
    return float(max(rates) / 1e9)


def _seconds(library: ctypes.CDLL, rounds: int) -> float:
    """Return what the processor spent on this thread: others may use the cores meanwhile."""
    start = time.thread_time()
    library.petalign_peak(rounds)  # ctypes lets go of the lock
    return time.thread_time() - start


@cache
def _libraries() -> list[ctypes.CDLL]:
    widest = native.widest()
    here = ISAS[: ISAS.index(widest) + 1] if widest else ISAS[:1]
    if not all(SOURCES.library(isa).exists() and _is_fresh(isa) for isa in here):
        build(SOURCES)
    found = []
    for isa in here:
        if SOURCES.library(isa).exists():
            library = ctypes.CDLL(str(SOURCES.library(isa)))
            library.petalign_peak.argtypes = [ctypes.c_long]
            library.petalign_peak.restype = ctypes.c_float
            found.append(library)
    return found


def _is_fresh(isa: str) -> bool:
    source = SOURCES.folder / "peak.cpp"
    return SOURCES.library(isa).stat().st_mtime >= source.stat().st_mtime


if __name__ == "__main__":
    for threads in (1, 2):
        print(f"{threads} threads: {peak_gflop_s(threads)} GFLOP/s in float32")
