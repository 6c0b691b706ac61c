"""The compiled kernel of matching, relaxation and rendering: found, checked and loaded.

`make install` compiles it (`alignment.native.build`) for each width of vectors that the processor's
family knows; the widest that this processor has is loaded. All of them give the same bits: the
order of operations is fixed, and products and sums are never fused.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
from functools import cache
from pathlib import Path

from alignment.native.structures import (
    Image,
    Nodes,
    PairInput,
    Settings,
    Source,
    StackInput,
    declare,
)

__all__ = [
    "HERE",
    "ISAS",
    "Image",
    "Nodes",
    "PairInput",
    "Settings",
    "Source",
    "StackInput",
    "library",
    "library_path",
    "sources_digest",
]

HERE = Path(__file__).parent
ISAS = ("portable", "avx2", "avx512")
"""Widths of vectors, ascending: 4, 8 and 16 floats. Only the first exists outside x86-64."""

_log = logging.getLogger(__name__)


def sources_digest() -> str:
    """Return the digest of the C++ sources that lie here; the library states that of its own."""
    digest = hashlib.sha256()
    for path in sorted([*HERE.glob("*.hpp"), *HERE.glob("*.cpp")]):
        digest.update(f"{path.name}\0".encode() + path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


def library_path(isa: str) -> Path:
    """Return where the library for one width of vectors lies."""
    return HERE / f"_kernel_{isa}.so"


@cache
def library(isa: str | None = None) -> ctypes.CDLL | None:
    """Load the kernel, by default for the widest vectors that this processor has.

    Returns
    -------
    ctypes.CDLL or None
        None, and one line in the log, where it was not built, or from other sources than lie here.
    """
    portable = _load("portable")
    if portable is None:
        return None
    widest = int(portable.petalign_widest())
    if isa is not None:
        return _load(isa) if ISAS.index(isa) <= widest else None
    for name in reversed(ISAS[1 : widest + 1]):
        found = _load(name)
        if found is not None:
            return found
    return portable


def _load(isa: str) -> ctypes.CDLL | None:
    path = library_path(isa)
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError:
        _log.warning("%s is not built: matching is slow, relaxation impossible", path.name)
        return None
    loaded.petalign_sources.restype = ctypes.c_char_p
    built_from = loaded.petalign_sources().decode()
    if built_from != sources_digest():
        _log.warning("%s was built from other sources; run `make install`", path.name)
        return None
    declare(loaded)
    return loaded
