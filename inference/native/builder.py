"""Compile C++ sources into one library for each width of vectors: what all our kernels share.

The machine's C++ compiler does it, or the one in the ``ziglang`` wheel where there is none. Each
library appears under its name only when it is whole, so that builds may run side by side.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ISAS = ("portable", "avx2", "avx512")
"""Widths of vectors, ascending: 4, 8 and 16 floats. Only the first exists outside x86-64."""
FLAGS = (
    "-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden",
    "-fno-math-errno", "-Wall", "-Wno-psabi", f"-I{Path(__file__).parent}",
)  # fmt: skip
VECTORS = {
    "portable": ("-DLANES=4",),
    "avx2": ("-DLANES=8",),
    "avx512": ("-DLANES=16", "-mprefer-vector-width=512"),
}
PROCESSORS = {"portable": "x86-64", "avx2": "x86-64-v3", "avx512": "x86-64-v4"}


SHARED = tuple(Path(__file__).parent / name for name in ("processor.hpp", "threads.hpp"))
"""Headers that the sources of other folders include as well."""


@dataclass(frozen=True)
class Sources:
    """The C++ files of a folder, which make one library for each width of vectors."""

    folder: Path
    stem: str
    """Libraries are called ``<stem>_<width>.so``, beside the sources."""
    flags: tuple[str, ...]
    """For the compiler, beside those that all kernels have."""

    def digest(self) -> str:
        """Return the digest of the sources; a library states that of its own."""
        found = hashlib.sha256()
        own = [*self.folder.glob("*.hpp"), *self.folder.glob("*.cpp")]
        for path in sorted({*own, *SHARED}):
            found.update(f"{path.name}\0".encode() + path.read_bytes().replace(b"\r\n", b"\n"))
        return found.hexdigest()[:16]

    def library(self, isa: str) -> Path:
        """Return where the library for one width of vectors lies."""
        return self.folder / f"{self.stem}_{isa}.so"


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


def compile_library(sources: Sources, compiler: list[str], isa: str) -> None:
    """Compile one library.

    Raises
    ------
    subprocess.CalledProcessError
        If the compiler refuses; its words are in `stderr`.
    """
    target = sources.library(isa)
    with tempfile.TemporaryDirectory(dir=sources.folder, prefix=".build-") as folder:
        made = Path(folder) / target.name
        defines = (f'-DPETALIGN_SOURCES="{sources.digest()}"', f"-DPETALIGN_ISA={isa}")
        flags = [*FLAGS, *sources.flags, *VECTORS[isa], *_processor(compiler, isa), *defines]
        command = [*compiler, *flags, *map(str, sorted(sources.folder.glob("*.cpp")))]
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


def build(sources: Sources) -> list[str]:
    """Compile all libraries with the first compiler that can; return that compiler, or nothing."""
    for compiler in compilers():
        try:
            with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
                list(pool.map(partial(compile_library, sources, compiler), isas()))
        except subprocess.CalledProcessError as error:
            print(f"{' '.join(compiler)} cannot compile {sources.folder}:\n{error.stderr}")
        else:
            return compiler
    return []


def build_and_say(sources: Sources, name: str, missing: str) -> None:
    """Compile all libraries and print by what, or what is missing without them."""
    used = build(sources)
    if used:
        print(f"compiled {name} ({', '.join(isas())}) with {' '.join(used)}")
    else:
        print(f"no C++ compiler compiles {name}: {missing}")
