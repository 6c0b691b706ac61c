"""Compile the kernel: ``python -m alignment.native.build``."""

from __future__ import annotations

from alignment.native import HERE
from inference.native import builder
from inference.native.builder import Sources, compilers, isas

__all__ = ["build", "compile_library", "compilers", "isas"]

# The same bits on every processor: a product and a sum are rounded one by one.
FLAGS = ("-ffp-contract=off",)


def compile_library(compiler: list[str], isa: str) -> None:
    """Compile one library, see `builder.compile_library`."""
    builder.compile_library(_sources(), compiler, isa)


def build() -> list[str]:
    """Compile all libraries with the first compiler that can; return that compiler, or nothing."""
    return builder.build(_sources())


def _sources() -> Sources:
    return Sources(HERE, "_kernel", FLAGS)


if __name__ == "__main__":
    used = build()
    if used:
        print(f"compiled the kernel ({', '.join(isas())}) with {' '.join(used)}")
    else:
        print("no C++ compiler compiles the kernel: matching is slow, relaxation impossible")
