"""Sections out of register and damaged by a known amount: the recipes of the accuracy tables.

A section shows at its pixel p the tissue at B(p), px of the base image, (y, x). B is applied as it
is (a backward map), so the truth is exact; where the tissue at t lies in a section, B^-1(t), is
found to 1e-6 px by iteration, since B is continuous and monotone even across folds and cracks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter

from alignment.splines import grid, random_coefficients

Points = NDArray[np.float64]
"""(n, 2), (y, x) px."""
Kind = Literal["fold", "crack", "resin", "no data"]

_MARGIN_PX = 64  # surfaces go this far beyond the section
_RAYLEIGH_P95 = math.sqrt(-2 * math.log(0.05))  # length of a 2-D unit normal vector
_CRACK_GREY, _RESIN_GREY = 240.0, 205.0
_ITERATIONS, _DAMPING = 80, 0.5  # a fold's band has slope 2, which undamped steps do not survive
_BORDER_STEP_PX = 4


@dataclass(frozen=True)
class Recipe:
    """How far sections are out of register, how they look, and how many are damaged."""

    rotation_deg: float = 3.0
    """Largest rotation; uniform, as `stretch`, `shift_px`, `gain` and `bias`."""
    stretch: float = 0.015
    """Largest stretch along y and along x; half as much shear."""
    shift_px: float = 40.0
    elastic_px: float = 10.0
    """95 % of the elastic displacements are shorter."""
    elastic_length_px: float = 120.0
    """Elastic displacements at a distance d correlate by exp(-d^2 / (2 length^2))."""
    gain: float = 0.2
    bias: float = 15.0
    """Grey values."""
    noise: float = 6.0
    """Standard deviation, grey values."""
    folds: int = 2
    """Damaged sections in every 20."""
    cracks: int = 1
    blanks: int = 2
    """Sections with a blank region: in turn without data (0) and of flat resin."""
    defect_px: float = 12.0
    """Width of a fold's band and of the tissue hidden under it, and of a crack."""


RECIPES = {
    "std": Recipe(),
    "hard": Recipe(
        elastic_px=15.0, elastic_length_px=80.0, gain=0.3, noise=12.0, folds=3, cracks=2
    ),
}


class SectionMap:
    """The map B of one section, and its defect.

    Parameters
    ----------
    recipe : Recipe
    shape_yx : tuple of int
        Of the section.
    border_px : int
        What the base image has more on each side.
    seed : list of int
        The same seed gives the same section.
    defect : Kind, optional
        What is wrong with it.
    """

    def __init__(
        self,
        recipe: Recipe,
        shape_yx: tuple[int, int],
        border_px: int,
        seed: list[int],
        defect: Kind | None = None,
    ) -> None:
        self.recipe, self.shape_yx, self.border_px, self.defect = (
            recipe,
            shape_yx,
            border_px,
            defect,
        )
        random = np.random.default_rng([*seed, 0])
        angle = math.radians(recipe.rotation_deg * random.uniform(-1, 1))
        stretch = recipe.stretch * random.uniform(-1, 1, 3) * (1, 0.5, 1)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        self.linear = turn @ (np.eye(2) + stretch[[[0, 1], [1, 2]]])
        self.shift = recipe.shift_px * random.uniform(-1, 1, 2)
        self._centre = (np.array(shape_yx, np.float64) - 1) / 2
        extent = tuple(n + 2.0 * _MARGIN_PX for n in shape_yx)
        self._surfaces, self._spacing = random_coefficients(
            np.random.default_rng([*seed, 1]), 2, recipe.elastic_length_px, (extent[0], extent[1])
        )
        random = np.random.default_rng([*seed, 2])
        self._angle = random.uniform(0, 2 * math.pi)
        self._phase = random.uniform(0, 2 * math.pi)
        side = min(shape_yx)
        self._place = self._centre + random.uniform(-0.25, 0.25, 2) * side
        self._radius = random.uniform(0.06, 0.11) * side
        self._look = random.uniform(-1, 1, 2)
        self._noise = [*seed, 3]

    def tissue_at(self, points: Points) -> Points:
        """Return B(p), px of the base image."""
        at = np.asarray(points, np.float64)
        offset = at - self._centre
        push = np.zeros_like(offset)
        if self.defect in ("fold", "crack"):
            # +-1 on the two sides, linear across the band.
            side = np.clip(self._seam_distance(at) * 2 / self.recipe.defect_px, -1, 1)
            sign = 1.0 if self.defect == "fold" else -1.0
            push = sign * self.recipe.defect_px / 2 * side[:, None] * self._normal()
        moved = (offset + push) @ self.linear.T + self._centre + self.shift + self.border_px
        return moved + self._elastic(at)

    def place_of(self, tissue: Points) -> Points:
        """Return B^-1: where the section shows the tissue at some px of the base image.

        NaN where the map does not come within 0.01 px of it.
        """
        inverse = np.linalg.inv(self.linear).T
        origin = self._centre + self.shift + self.border_px
        at = (np.asarray(tissue, np.float64) - origin) @ inverse + self._centre
        for _ in range(_ITERATIONS):
            at += _DAMPING * (tissue - self.tissue_at(at)) @ inverse
        missed = np.hypot(*(self.tissue_at(at) - tissue).T) > 0.01
        at[missed] = np.nan
        return at

    def defect_distance(self, points: Points) -> NDArray[np.float64]:
        """Return the distance (n,) to the defect, px; negative inside, inf if there is none."""
        at = np.asarray(points, np.float64)
        if self.defect is None:
            return np.full(len(at), np.inf)
        if self.defect in ("fold", "crack"):
            return np.abs(self._seam_distance(at)) - self.recipe.defect_px / 2
        y, x = (at - self._place).T
        bumpy = 1 + 0.2 * np.sin(3 * np.arctan2(y, x) + self._phase)
        return np.hypot(y, x) - self._radius * bumpy

    def shows_tissue(self, points: Points) -> NDArray[np.bool_]:
        """Return where the section shows tissue: on it, and not in the defect."""
        at = np.asarray(points, np.float64)
        with np.errstate(invalid="ignore"):
            inside = ((at >= 0) & (at <= np.array(self.shape_yx) - 1)).all(1)
        return inside & (self.defect_distance(np.nan_to_num(at)) > 0)

    def expose(self, base: NDArray[np.floating | np.integer]) -> NDArray[np.uint8]:
        """Return the picture of the section.

        Parameters
        ----------
        base : ndarray of shape (y, x)
            Grey values 0..255 of the tissue, `border_px` more on each side than the section.

        Returns
        -------
        uint8 ndarray of `shape_yx`
            1..255; 0 where there is no data.
        """
        height, width = self.shape_yx
        at = grid(np.arange(height), np.arange(width)).reshape(2, -1).T
        coefficients = spline_filter(base.astype(np.float32), order=3, output=np.float32)
        grey = map_coordinates(coefficients, self.tissue_at(at).T, order=3, prefilter=False)
        grey = np.clip(grey, 0, 255)
        damaged = self.defect_distance(at) <= 0
        if self.defect == "fold":  # three layers absorb three times
            grey[damaged] = 160 * (grey[damaged] / 255) ** 3
        elif self.defect is not None:
            grey[damaged] = _CRACK_GREY if self.defect == "crack" else _RESIN_GREY
        gain, bias = self._look * (self.recipe.gain, self.recipe.bias)
        noise = np.random.default_rng(self._noise).normal(scale=self.recipe.noise, size=grey.shape)
        picture = np.clip(np.rint(128 + (1 + gain) * (grey - 128) + bias + noise), 1, 255)
        if self.defect == "no data":
            picture[damaged] = 0
        return picture.reshape(height, width).astype(np.uint8)

    def fits(self) -> bool:
        """Say whether all that the section shows lies on the base image."""
        height, width = self.shape_yx
        rows, columns = np.arange(height), np.arange(width)
        outline = np.concatenate(
            [
                grid(y, x).reshape(2, -1).T
                for y, x in ((rows[[0, -1]], columns), (rows, columns[[0, -1]]))
            ]
        )
        shown = self.tissue_at(outline)
        last = np.array(self.shape_yx) + 2 * self.border_px - 1
        return bool((shown >= 2).all() and (shown <= last - 2).all())

    def _elastic(self, at: Points) -> Points:
        std = self.recipe.elastic_px / _RAYLEIGH_P95
        where = ((at + _MARGIN_PX) / self._spacing + 1).T
        surfaces = [
            map_coordinates(one, where, order=3, mode="nearest", prefilter=False)
            for one in self._surfaces
        ]
        return std * np.stack(surfaces, axis=-1)

    def _normal(self) -> NDArray[np.float64]:
        return np.array([math.sin(self._angle), math.cos(self._angle)])

    def _seam_distance(self, at: Points) -> NDArray[np.float64]:
        side, (ny, nx) = min(self.shape_yx), self._normal()
        y, x = (at - self._place).T
        bend = np.sin(2 * math.pi * (nx * y - ny * x) / (0.7 * side) + self._phase)
        return ny * y + nx * x - 0.012 * side * bend


def draw_maps(recipe: Recipe, count: int, base_yx: tuple[int, int], seed: int) -> list[SectionMap]:
    """Draw the maps of `count` sections that show no place outside their base image.

    Parameters
    ----------
    recipe : Recipe
    count : int
    base_yx : tuple of int
        Of the base images. Sections are smaller by the least border that suffices for all of them,
        and by what makes their sides multiples of 8 px.
    seed : int

    Returns
    -------
    list of SectionMap
        Damaged ones are spread over the sections by the seed.
    """
    kinds: list[Kind] = ["fold"] * recipe.folds + ["crack"] * recipe.cracks
    kinds += [("no data", "resin")[k % 2] for k in range(recipe.blanks)]  # type: ignore[misc]
    damaged: list[Kind | None] = [None] * count
    rounds = -(-count // 20)
    for k in range(rounds):
        block = np.arange(k * 20, min((k + 1) * 20, count))
        random = np.random.default_rng([seed, 4, k])
        drawn = random.permutation(len(kinds))[: -(-len(block) * len(kinds) // 20)]
        for z, kind in zip(random.permutation(block), drawn, strict=False):
            damaged[z] = kinds[kind]
    border = _BORDER_STEP_PX
    while True:
        height, width = ((n - 2 * border) // 8 * 8 for n in base_yx)
        if min(height, width) < 64:
            raise ValueError(
                f"base images of {base_yx} px leave sections of less than 64 px; lower the "
                "recipe's shift_px, rotation_deg or elastic_px"
            )
        maps = [
            SectionMap(recipe, (height, width), border, [seed, z], defect)
            for z, defect in enumerate(damaged)
        ]
        if all(one.fits() for one in maps):
            return maps
        border += _BORDER_STEP_PX
