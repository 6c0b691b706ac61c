"""Compile the kernel: ``python -m alignment.native.build``.

The machine's C++ compiler does it, or the one in the ``ziglang`` wheel where there is none. Each
library appears under its name only when it is whole, so that builds may run side by side.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from alignment.native import HERE, ISAS, library_path, sources_digest

FLAGS = (
    "-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden",
    "-fno-math-errno", "-Wall", "-Wno-psabi",
    # The same bits on every processor: a product and a sum are rounded one by one.
    "-ffp-contract=off",
)  # fmt: skip
VECTORS = {
    "portable": ("-DLANES=4",),
    "avx2": ("-DLANES=8",),
    "avx512": ("-DLANES=16", "-mprefer-vector-width=512"),
}
PROCESSORS = {"portable": "x86-64", "avx2": "x86-64-v3", "avx512": "x86-64-v4"}


def isas() -> tuple[str, ...]:
    """Return the widths of vectors that are worth compiling for on this kind of processor."""
    return ISAS if platform.machine() in ("x86_64", "AMD64") else ISAS[:1]


def compilers() -> list[list[str]]:
    """Return the commands that may compile C++, best first."""
    named = os.environ.get("CXX")
    found = [shutil.which(name) for name in ([named] if named else ["c++", "g++", "clang++"])]
    commands = [[path] for path in dict.fromkeys(found) if path]
    if importlib.util.find_spec("ziglang"):
        commands.append([sys.executable, "-m", "ziglang", "c++"])
    return commands


def compile_library(compiler: list[str], isa: str) -> None:
    """Compile one library.

    Raises
    ------
    subprocess.CalledProcessError
        If the compiler refuses; its words are in `stderr`.
    """
    target = library_path(isa)
    with tempfile.TemporaryDirectory(dir=HERE, prefix=".build-") as folder:
        made = Path(folder) / target.name
        defines = (f'-DPETALIGN_SOURCES="{sources_digest()}"', f"-DPETALIGN_ISA={isa}")
        flags = [*FLAGS, *VECTORS[isa], *_processor(compiler, isa), *defines]
        command = [*compiler, *flags, *map(str, sorted(HERE.glob("*.cpp")))]
        subprocess.run([*command, "-o", str(made)], check=True, capture_output=True, text=True)
        made.replace(target)


def _processor(compiler: list[str], isa: str) -> list[str]:
    """Return the flags that name the processor; zig means this one unless told otherwise."""
    if len(isas()) == 1:
        return ["-mcpu=generic"] if "ziglang" in compiler else []
    name = PROCESSORS[isa]
    return (
        [f"-march={name.replace('-', '_')}", "-s"] if "ziglang" in compiler else [f"-march={name}"]
    )


def build() -> list[str]:
    """Compile all libraries with the first compiler that can; return that compiler, or nothing."""
    for compiler in compilers():
        try:
            for isa in isas():
                compile_library(compiler, isa)
        except subprocess.CalledProcessError as error:
            print(f"{' '.join(compiler)} cannot compile the kernel:\n{error.stderr}")
        else:
            return compiler
    return []


if __name__ == "__main__":
    used = build()
    if used:
        print(f"compiled the kernel ({', '.join(isas())}) with {' '.join(used)}")
    else:
        print("no C++ compiler compiles the kernel: matching is slow, relaxation impossible")
