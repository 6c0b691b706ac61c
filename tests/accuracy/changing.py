"""Sections whose tissue changes from one to the next by any amount, and whose truth is exact.

Twins agree too well: real neighbours correlate by 0.2 to 0.7. Stacks of real neighbours have that,
but nobody knows to a pixel where their tissue went. So every copy of a section is blended with
other, unrelated tissue of the same stack, here more and there less: what two copies share lies
exactly where the recipe put it, and the rest differs as between neighbours that are far apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from tests.accuracy.recipes import Recipe, draw_maps
from tests.accuracy.stacks import KnownStack

COPIES = 3
PATCH_PX = 160.0
"""Distance over which the share of foreign tissue changes."""
_TURNS = 7  # the eight ways to lay down a square, but for the right one


def make_changing(
    base: NDArray[np.uint8], recipe: Recipe, *, seed: int, groups: int, most: float = 0.95
) -> KnownStack:
    """Warp copies of some sections, each blended with foreign tissue, so that the truth is exact.

    Parameters
    ----------
    base : uint8 ndarray of shape (nz, y, x)
        Sections of one tissue; they are cut to squares.
    recipe : Recipe
    seed : int
    groups : int
        How many sections are copied, `COPIES` times each.
    most : float
        Largest share of foreign tissue, as an amplitude: two copies that hold a share s each
        correlate by 1 - s^2.
    """
    side = min(base.shape[1:])
    base = base[:, :side, :side]
    random = np.random.default_rng([seed, 5])
    chosen = np.linspace(0, len(base) - 1, groups).round().astype(int)
    shown = [int(z) for z in chosen for _ in range(COPIES)]
    maps = draw_maps(recipe, len(shown), (side, side), seed)
    images = []
    for z, one in zip(shown, maps, strict=True):
        foreign = base[(z + random.integers(len(base) // 3, 2 * len(base) // 3 + 1)) % len(base)]
        turn = int(random.integers(1, _TURNS + 1))
        foreign = np.rot90(foreign[::-1] if turn > 3 else foreign, turn % 4)
        images.append(one.expose(_blend(base[z], foreign, most * _shares(side, random))))
    ranges = tuple(range(k, k + COPIES) for k in range(0, len(shown), COPIES))
    return KnownStack(np.stack(images), tuple(maps), tuple(shown), ranges)


def _shares(side: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Return a smooth map (side, side) whose values are spread evenly over 0..1."""
    coarse = 8
    noise = random.normal(size=(side // coarse + 3,) * 2)
    smooth = zoom(gaussian_filter(noise, PATCH_PX / coarse / 2, mode="wrap"), coarse, order=1)
    smooth = smooth[:side, :side]
    ranks = smooth.ravel().argsort().argsort()
    return (ranks / (ranks.size - 1)).reshape(side, side)


def _blend(
    tissue: NDArray[np.uint8], foreign: NDArray[np.uint8], share: NDArray[np.float64]
) -> NDArray[np.float64]:
    one, other = (image - image.mean() for image in (tissue.astype(float), foreign.astype(float)))
    other *= one.std() / other.std()
    return np.clip(np.sqrt(1 - share**2) * one + share * other + tissue.mean(), 0, 255)
