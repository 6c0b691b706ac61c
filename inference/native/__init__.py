"""The compiled kernels of the engine.

`make install` compiles them (`inference.native.build`) for each width of vectors that the
processor's family knows. They fuse products and sums, so that widths differ by rounding.
"""

from __future__ import annotations

from pathlib import Path

from inference.native.builder import ISAS, Sources
from inference.native.libraries import Libraries
from inference.native.structures import declare

__all__ = ["ISAS", "KERNELS", "SOURCES", "library", "widest"]

SOURCES = Sources(Path(__file__).parent, "_engine", ("-ffp-contract=fast",))
KERNELS = Libraries(SOURCES, "petalign_engine", declare, "the engine cannot run")

library = KERNELS.library
widest = KERNELS.widest
