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

HERE = Path(__file__).parent
ISAS = ("portable", "avx2", "avx512")
"""Widths of vectors, ascending: 4, 8 and 16 floats. Only the first exists outside x86-64."""

_log = logging.getLogger(__name__)


class Image(ctypes.Structure):
    """A feature image in steps of 1/256, and where it is valid; see `moments.hpp`."""

    _fields_ = (
        ("grey", ctypes.c_void_p),
        ("valid", ctypes.c_void_p),
        ("ny", ctypes.c_int32),
        ("nx", ctypes.c_int32),
    )


class Settings(ctypes.Structure):
    """What all jobs of a call have in common; see `ncc.cpp`."""

    _fields_ = (
        ("template_px", ctypes.c_int32),
        ("positions", ctypes.c_int32),
        ("transform_px", ctypes.c_int32),
        ("is_tent", ctypes.c_int32),
        ("min_overlap", ctypes.c_double),
    )


class Source(ctypes.Structure):
    """A section's image, and what its pixels are; see `remap.cpp`."""

    _fields_ = (
        ("pixels", ctypes.c_void_p),
        ("marks", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("ny", ctypes.c_int32),
        ("nx", ctypes.c_int32),
    )


class Nodes(ctypes.Structure):
    """Positions at the nodes of a grid, in steps of 1/32 px; see `remap.cpp`."""

    _fields_ = (
        ("at", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("my", "mx", "spacing", "oy", "ox", "y0", "x0")),
    )


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
        _log.warning("%s is not built; matching runs without it, ten times slower", path.name)
        return None
    loaded.petalign_sources.restype = ctypes.c_char_p
    built_from = loaded.petalign_sources().decode()
    if built_from != sources_digest():
        _log.warning("%s was built from other sources; run `make install`", path.name)
        return None
    shared = (
        *(ctypes.POINTER(Settings), ctypes.POINTER(Image), ctypes.c_int),
        *(ctypes.c_void_p, ctypes.c_long),
    )
    loaded.petalign_match.argtypes = (*shared, ctypes.c_void_p)
    loaded.petalign_surfaces.argtypes = (*shared, ctypes.c_int, ctypes.c_void_p)
    drawn = (ctypes.POINTER(Source), ctypes.c_void_p, ctypes.c_int)
    loaded.petalign_remap.argtypes = (
        *(*drawn, ctypes.POINTER(Nodes), ctypes.c_int, ctypes.c_int),
        *(ctypes.c_void_p, ctypes.c_int64),
    )
    loaded.petalign_remap_at.argtypes = (
        *(*drawn, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p),
    )
    return loaded
