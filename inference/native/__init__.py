"""The compiled kernels of the engine: found, checked and loaded.

`make install` compiles them (`inference.native.build`) for each width of vectors that the
processor's family knows. They fuse products and sums, so that widths differ by rounding.
"""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from pathlib import Path

from inference.native.builder import ISAS, Sources
from inference.native.structures import Op, declare

__all__ = ["ISAS", "SOURCES", "library", "widest"]

SOURCES = Sources(Path(__file__).parent, "_engine", ("-ffp-contract=fast",))

_log = logging.getLogger(__name__)


@cache
def library(isa: str) -> ctypes.CDLL | None:
    """Load the kernels for one width of vectors.

    Returns
    -------
    ctypes.CDLL or None
        None where they were not built, or from other sources than lie here (one line in the log
        says so), or where this processor doesn't have such vectors.
    """
    if isa == "portable":
        return _load(isa)
    portable = library("portable")
    if portable is None or int(portable.petalign_engine_widest()) < ISAS.index(isa):
        return None
    return _load(isa)


def widest() -> str | None:
    """Return the widest vectors that this processor has kernels for; None if there are none."""
    return next((isa for isa in reversed(ISAS) if library(isa) is not None), None)


def _load(isa: str) -> ctypes.CDLL | None:
    path = SOURCES.library(isa)
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError:
        _log.warning("%s is not built: the engine cannot run", path.name)
        return None
    loaded.petalign_engine_sources.restype = ctypes.c_char_p
    built_from = loaded.petalign_engine_sources().decode()
    if built_from != SOURCES.digest() or loaded.petalign_engine_op_bytes() != ctypes.sizeof(Op):
        _log.warning("%s was built from other sources; run `make install`", path.name)
        return None
    declare(loaded)
    return loaded
