"""The tissues of the accuracy tables: real stacks in register, and the phantom."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from alignment.phantom import Phantom, PhantomConfig

DATA = Path(os.environ.get("ALIGN_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))
SECTIONS = 20

Stack = NDArray[np.uint8]


def read_vnc() -> Stack:
    """Return 20 x 1024 x 1024, Drosophila VNC, ssTEM; its own alignment is off by some px."""
    return read_set("vnc_stack1")[:SECTIONS]


def read_isbi() -> Stack:
    """Return 20 x 512 x 512, Drosophila VNC, ssTEM; its own alignment is off by some px."""
    return read_set("isbi2012_test")[:SECTIONS]


def read_fib() -> Stack:
    """Return 20 x 500 x 500, Drosophila medulla, FIB-SEM: every 4th plane, enlarged twice."""
    planes = read_set("fib_medulla_ts2")[::4][:SECTIONS]
    ny, nx = planes.shape[1:]
    return np.stack(
        [cv2.resize(p, (2 * nx, 2 * ny), interpolation=cv2.INTER_CUBIC) for p in planes]
    )


def read_phantom() -> Stack:
    """Return 20 x 1024 x 1024 of made-up neuropil, in register and undamaged."""
    tissue = Phantom(
        PhantomConfig(sections=SECTIONS, fold_section=None, blank_section=None, corner_section=None)
    )
    return np.stack([np.rint(tissue.tissue(z)).astype(np.uint8) for z in range(SECTIONS)])


SETS: dict[str, Callable[[], Stack]] = {
    "vnc": read_vnc,
    "isbi": read_isbi,
    "fib": read_fib,
    "phantom": read_phantom,
}


def missing(name: str) -> str | None:
    """Say which data a set lacks, None if it can be read."""
    folder = {"vnc": "vnc_stack1", "isbi": "isbi2012_test", "fib": "fib_medulla_ts2"}.get(name)
    if folder is None or (DATA / folder / "raw.tif").exists():
        return None
    return f"{folder}/raw.tif is not in {DATA}; set ALIGN_TEST_DATA"


def read_set(folder: str) -> Stack:
    """Return the voxels of a set of the test data, by the name of its folder."""
    return np.asarray(tifffile.imread(DATA / folder / "raw.tif"))
