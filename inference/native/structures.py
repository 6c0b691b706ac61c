"""The structures that Python and the kernels share: `program.hpp`, declared once more."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_float, c_int, c_int32, c_int64, c_void_p
from enum import IntEnum

Three = c_int32 * 3


class Kind(IntEnum):
    """What an operation does."""

    READ = 0
    WRITE = 1
    ZERO_MARGIN = 2
    ZERO_ALL = 3
    DIRECT = 4
    WINOGRAD = 5
    MAP = 6
    MAX_POOL = 7
    AVERAGE_POOL = 8
    LINEAR_RESIZE = 9
    SOFTMAX = 10
    COPY = 11


ACTIVATIONS = {"linear": 0, "relu": 1, "leaky": 2, "elu": 3, "tanh": 4, "sigmoid": 5}


class Tensor(ctypes.Structure):
    """Where a tensor lies in the arena, or in an array of the caller's."""

    _fields_ = (
        ("origin", c_int64),
        ("block", c_int64),
        ("plane", c_int64),
        ("row", c_int64),
        ("pixel", c_int32),
        ("lanes", c_int32),
        ("channels", c_int32),
        ("depth", c_int32),
        ("height", c_int32),
        ("width", c_int32),
        ("before_y", c_int32),
        ("after_y", c_int32),
        ("before_x", c_int32),
        ("after_x", c_int32),
        ("external", c_int32),
    )


class Op(ctypes.Structure):
    """One operation of a program."""

    _fields_ = (
        ("kind", c_int32),
        ("activation", c_int32),
        ("alpha", c_float),
        ("has_residual", c_int32),
        ("sides", Three),
        ("stride", Three),
        ("before", Three),
        ("vectors", c_int32),
        ("pixels", c_int32),
        ("tile", c_int32),
        ("tiles", c_int32),
        ("slices", c_int32),
        ("depth_parts", c_int32),
        ("is_streamed", c_int32),
        ("channel", c_int32),
        ("input", Tensor),
        ("output", Tensor),
        ("residual", Tensor),
        ("weights", c_void_p),
        ("bias", c_void_p),
        ("factor", c_void_p),
        ("index", c_void_p),
    )


def declare(library: ctypes.CDLL) -> None:
    """Tell ctypes what the library's functions take and return."""
    library.petalign_engine_open.argtypes = [c_int, c_int64, c_int64]
    library.petalign_engine_open.restype = c_void_p
    library.petalign_engine_close.argtypes = [c_void_p]
    library.petalign_engine_close.restype = None
    library.petalign_engine_run.argtypes = [
        c_void_p,
        POINTER(Op),
        c_int,
        POINTER(c_void_p),
        POINTER(c_double),
    ]
    library.petalign_engine_run.restype = None
