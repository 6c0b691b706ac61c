"""The compiled kernel of matching, relaxation and rendering.

`make install` compiles it (`alignment.native.build`) for each width of vectors that the processor's
family knows; the widest that this processor has is loaded. All of them give the same bits: the
order of operations is fixed, and products and sums are never fused.
"""

from __future__ import annotations

import ctypes
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
from inference.native.builder import ISAS, Sources
from inference.native.libraries import Libraries

__all__ = [
    "ISAS",
    "KERNELS",
    "SOURCES",
    "Image",
    "Nodes",
    "PairInput",
    "Settings",
    "Source",
    "StackInput",
    "library",
]

# The same bits on every processor: a product and a sum are rounded one by one.
SOURCES = Sources(Path(__file__).parent, "_kernel", ("-ffp-contract=off",))
KERNELS = Libraries(SOURCES, "petalign", declare, "matching is slow, relaxation impossible")


def library(isa: str | None = None) -> ctypes.CDLL | None:
    """Return the kernel, by default for the widest vectors that this processor has.

    Returns
    -------
    ctypes.CDLL or None
        None, and one line in the log, where it was not built, or from other sources than lie here.
    """
    chosen = isa or KERNELS.widest()
    return KERNELS.library(chosen) if chosen else None
