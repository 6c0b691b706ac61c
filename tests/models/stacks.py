"""The stacks that the shipped networks learn from: only those whose licence allows it.

Made-up neuropil costs nothing and looks like sections seen by transmission; two small real sets
keep the networks from learning how it is made. Of the isotropic one, planes along each axis are
averaged by four, as a section of 40 nm is seen through; its inner cube alone is shown in plane, so
that no plane that is held out along one axis is seen along another.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from alignment.phantom import Phantom, PhantomConfig
from alignment.pyramid import halve
from tests.accuracy.sets import read_set

Voxels = NDArray[np.uint8]

SECTIONS, SIDE = 24, 1024
PLANES = 4
"""Of 10 nm, in a section."""
INNER = 212
"""Of the 250 planes of the isotropic set: the share that is trained on."""


def phantom(seed: int, *, halved: bool) -> Voxels:
    """Return made-up neuropil in register, without damage; grey values 1..255."""
    whole = {"fold_section": None, "blank_section": None, "corner_section": None}
    side = SIDE if halved else SIDE // 2
    drawn = Phantom(PhantomConfig(sections=SECTIONS, height=side, width=side, seed=seed, **whole))
    sections = [np.rint(drawn.tissue(z)).clip(1, 255).astype(np.uint8) for z in range(SECTIONS)]
    stack = np.stack(sections)
    return halve(stack) if halved else stack


def fib(axis: int) -> Voxels:
    """Return sections of 40 nm of the isotropic set, along an axis."""
    planes = np.moveaxis(read_set("fib_medulla_ts2"), axis, 0)[:, :INNER, :INNER]
    number = len(planes) // PLANES
    thick = planes[: number * PLANES].reshape(number, PLANES, INNER, INNER)
    return np.rint(thick.mean(axis=1)).astype(np.uint8)


STACKS: dict[str, Callable[[], Voxels]] = {
    "phantom-11": lambda: phantom(11, halved=True),
    "phantom-12": lambda: phantom(12, halved=True),
    "phantom-13": lambda: phantom(13, halved=True),
    "phantom-21": lambda: phantom(21, halved=False),
    "fib-z": lambda: fib(0),
    "fib-y": lambda: fib(1),
    "fib-x": lambda: fib(2),
    "pinky": lambda: read_set("pinky_sample1"),
}
"""All at 7 to 10 nm; each gets an equal share of the pairs."""


def write_stacks(folder: Path, tell: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Write those that are not there yet; return all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in STACKS.items():
        path = folder / f"{name}.tif"
        if not path.exists():
            tell(f"making {path.name}")
            partial = folder / f".{name}.tif"
            tifffile.imwrite(partial, make(), compression="zlib")
            partial.replace(path)
    return [folder / f"{name}.tif" for name in STACKS]
