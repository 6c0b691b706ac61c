"""Stacks with a known truth: twins (one section over and over) and neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tests.accuracy.recipes import Points, Recipe, SectionMap, draw_maps

TruthKind = Literal["twins", "neighbours"]


class Change(Protocol):
    """How tissue moves from section to section of a base stack."""

    def between(self, fixed: int, moving: int, points: Points) -> Points:
        """Return the displacement (n, 2), px, at points of `moving`; NaN where unknown."""


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

    change: Change | None = None
    """How the tissue moves between base images; None if it does not."""

    def place_in(self, fixed: int, z: int, points: Points, *, is_changed: bool = True) -> Points:
        """Return where section `fixed` shows what section z shows at some of its px, (n, 2).

        NaN where that is not known.
        """
        tissue = self.maps[z].tissue_at(points)
        if self.change is not None and is_changed:
            tissue = tissue + self.change.between(self.base[fixed], self.base[z], tissue)
        return self.maps[fixed].place_of(tissue)


def make_stack(
    base: NDArray[np.uint8],
    truth: TruthKind,
    recipe: Recipe,
    *,
    seed: int,
    change: Change | None = None,
    copies: int = _COPIES,
) -> KnownStack:
    """Warp an aligned stack, or copies of some of its sections, each on its own.

    Parameters
    ----------
    base : uint8 ndarray of shape (nz, y, x)
        Sections in register.
    truth : {"twins", "neighbours"}
        Twins: every third section three times, so the truth is exact. Neighbours: every section
        once, so matches also follow what changes between sections.
    recipe : Recipe
    seed : int
    change : Change, optional
        Of neighbours: how the tissue moves between the images of `base`.
    copies : int
        Of twins: every `copies`-th section is taken, so many times.
    """
    shown: tuple[int, ...] = tuple(range(len(base)))
    if truth == "twins":
        shown = tuple(z for z in range(0, len(base), copies) for _ in range(copies))
    step = copies if truth == "twins" else len(shown)
    maps = draw_maps(recipe, len(shown), base.shape[1:], seed)
    images = np.stack([one.expose(base[z]) for one, z in zip(maps, shown, strict=True)])
    groups = tuple(range(k, min(k + step, len(shown))) for k in range(0, len(shown), step))
    return KnownStack(images, tuple(maps), shown, groups, change if truth == "neighbours" else None)
