"""What the compiled kernel's functions take: the C++ sources say what it means."""

from __future__ import annotations

import ctypes


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


class PairInput(ctypes.Structure):
    """The matches of one pair of sections; see `relax.cpp`."""

    _fields_ = (
        ("z", ctypes.c_int32),
        ("fixed", ctypes.c_int32),
        ("my", ctypes.c_int32),
        ("mx", ctypes.c_int32),
        ("ratio", ctypes.c_double),
        ("match", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("precision", ctypes.c_void_p),
    )


class StackInput(ctypes.Structure):
    """A stack of elastic sheets; see `relax.cpp`."""

    _fields_ = (
        ("nz", ctypes.c_int32),
        ("ny", ctypes.c_int32),
        ("nx", ctypes.c_int32),
        ("n_pairs", ctypes.c_int32),
        ("px_per_node", ctypes.c_double),
        ("poisson_ratio", ctypes.c_double),
        ("stiffness", ctypes.c_void_p),
        ("mass", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
        ("pairs", ctypes.POINTER(PairInput)),
        ("threads", ctypes.c_int32),
    )


_POINTER = ctypes.c_void_p
_STACK_FUNCTIONS = {
    "delete": (),
    "evaluate": (_POINTER, _POINTER, _POINTER, ctypes.c_double, ctypes.c_int),
    "prepare": (),
    "solve": (_POINTER, _POINTER, ctypes.c_double, ctypes.c_int, _POINTER),
    "apply": (_POINTER, _POINTER),
    "cycle": (_POINTER, _POINTER),
    "link_forces": (ctypes.c_uint64, _POINTER, _POINTER),
    "sheet_forces": (ctypes.c_uint64, _POINTER, _POINTER),
    "information": (_POINTER,),
    "condense": (ctypes.c_int,),
    "level": (ctypes.c_int, _POINTER),
    "sheets": (ctypes.c_int, _POINTER, _POINTER),
    "links": (ctypes.c_int, ctypes.c_int, _POINTER, _POINTER),
}


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


def declare(loaded: ctypes.CDLL) -> None:
    """Say which arguments a library's functions take."""
    shared = (
        *(ctypes.POINTER(Settings), ctypes.POINTER(Image), ctypes.c_int),
        *(ctypes.c_void_p, ctypes.c_long),
    )
    loaded.petalign_match.argtypes = (*shared, ctypes.c_void_p)
    loaded.petalign_stack_new.argtypes = (ctypes.POINTER(StackInput),)
    loaded.petalign_stack_new.restype = ctypes.c_void_p
    for name, arguments in _STACK_FUNCTIONS.items():
        function = getattr(loaded, f"petalign_stack_{name}")
        function.argtypes = (ctypes.c_void_p, *arguments)
    loaded.petalign_surfaces.argtypes = (*shared, ctypes.c_int, ctypes.c_void_p)
    drawn = (ctypes.POINTER(Source), ctypes.c_void_p, ctypes.c_int)
    loaded.petalign_remap.argtypes = (
        *(*drawn, ctypes.POINTER(Nodes), ctypes.c_int, ctypes.c_int),
        *(ctypes.c_void_p, ctypes.c_int64),
    )
    loaded.petalign_remap_at.argtypes = (
        *(*drawn, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p),
    )
