"""Compile the kernel: ``python -m alignment.native.build``."""

from __future__ import annotations

from alignment.native import KERNELS, SOURCES
from inference.native.builder import build_and_say

if __name__ == "__main__":
    build_and_say(SOURCES, "the kernel", KERNELS.missing)
