"""Stacks with a known truth: twins (one section over and over) and neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tests.accuracy.recipes import Points, Recipe, SectionMap, draw_maps

TruthKind = Literal["twins", "neighbours"]
_COPIES = 3  # of a section, so that its copies' matches close a cycle


@dataclass(frozen=True)
class KnownStack:
    """Sections out of register, and where their tissue comes from."""

    images: NDArray[np.uint8]
    """(nz, y, x); 0 is no data."""
    maps: tuple[SectionMap, ...]
    """Of every section, to px of its base image."""
    base: tuple[int, ...]
    """Of every section, which base image it shows."""
    groups: tuple[range, ...]
    """Sections that are aligned with each other."""

    def place_in(self, fixed: int, z: int, points: Points) -> Points:
        """Return where section `fixed` shows what section z shows at some of its px, (n, 2)."""
        return self.maps[fixed].place_of(self.maps[z].tissue_at(points))


def make_stack(
    base: NDArray[np.uint8], truth: TruthKind, recipe: Recipe, *, seed: int
) -> KnownStack:
    """Warp an aligned stack, or copies of some of its sections, each on its own.

    Parameters
    ----------
    base : uint8 ndarray of shape (nz, y, x)
        Sections in register.
    truth : {"twins", "neighbours"}
        Twins: each of nz / 3 sections three times, so the truth is exact. Neighbours: every section
        once, so matches also follow what changes between sections.
    recipe : Recipe
    seed : int
    """
    shown: tuple[int, ...] = tuple(range(len(base)))
    if truth == "twins":
        shown = tuple(z for z in range(0, len(base), _COPIES) for _ in range(_COPIES))
    step = _COPIES if truth == "twins" else len(shown)
    maps = draw_maps(recipe, len(shown), base.shape[1:], seed)
    images = np.stack([one.expose(base[z]) for one, z in zip(maps, shown, strict=True)])
    groups = tuple(range(k, min(k + step, len(shown))) for k in range(0, len(shown), step))
    return KnownStack(images, tuple(maps), shown, groups)
