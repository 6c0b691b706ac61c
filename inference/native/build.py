"""Compile the kernels of the engine: ``python -m inference.native.build``."""

from __future__ import annotations

from inference.native import SOURCES
from inference.native.builder import build, isas

if __name__ == "__main__":
    used = build(SOURCES)
    if used:
        print(f"compiled the engine ({', '.join(isas())}) with {' '.join(used)}")
    else:
        print("no C++ compiler compiles the engine: networks need another backend")
