"""The stacks that rates are measured on and that plans are tried with; none is in both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from alignment.commands.sample import write_phantom
from alignment.phantom import PhantomConfig
from tests.accuracy.sets import DATA


@dataclass(frozen=True)
class Case:
    """One run."""

    name: str
    source: Callable[[Path], str]
    """Makes the stack in a folder and returns its URI or path."""
    settings: dict[str, Any] = field(default_factory=dict)


def _real(name: str, sections: int, side: int, *, copies: int = 1) -> Callable[[Path], str]:
    """Take a corner of a real stack; with copies, mirrored ones beside and below it."""

    def write(folder: Path) -> str:
        path = folder / "raw.tif"
        if not path.exists():
            images = np.asarray(tifffile.imread(DATA / name / "raw.tif"))[:sections, :side, :side]
            for axis in (1, 2) if copies > 1 else ():
                images = np.concatenate([images, np.flip(images, axis)], axis)
            tifffile.imwrite(path, images, photometric="minisblack")
        return str(path)

    return write


def _phantom(sections: int, side: int) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        path = folder / "raw.zarr"
        if not path.exists():
            write_phantom(path.as_uri(), PhantomConfig(sections=sections, height=side, width=side))
        return path.as_uri()

    return write


CALIBRATION = (
    Case("vnc_stack1, 16 x 512 x 512", _real("vnc_stack1", 16, 512)),
    Case("vnc_stack1, 10 x 1024 x 1024", _real("vnc_stack1", 10, 1024)),
    Case(
        "vnc_stack1 beside itself, 3 x 2048 x 2048",
        _real("vnc_stack1", 3, 1024, copies=2),
        {"volume": {"aligned_shard": [32, 1024, 1024]}, "coarse": {"mip": 1}},
    ),
)
TRIALS = (
    Case("isbi2012_test, 24 x 512 x 512", _real("isbi2012_test", 24, 512)),
    Case("aligntk_z00-07, 8 x 1024 x 1024", _real("aligntk_z00-07", 8, 1024)),
    Case("phantom, 8 x 1536 x 1536", _phantom(8, 1536)),
)
