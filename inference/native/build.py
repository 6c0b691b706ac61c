"""Compile the kernels of the engine: ``python -m inference.native.build``."""

from __future__ import annotations

from inference.native import KERNELS, SOURCES
from inference.native.builder import build_and_say

if __name__ == "__main__":
    build_and_say(SOURCES, "the engine", KERNELS.missing)
