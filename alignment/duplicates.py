"""Duplicates: does a section show the same exposure, or the same tissue, as another?

A section that was imaged or written twice agrees with itself far better than tissue ever agrees
with its neighbour. Two numbers tell how: the correlation of the *structure* (of 2 to 8 px), which
is near 1 for the same tissue, and that of the *grain* (below 2 px), which is the camera's noise and
near 1 only for the same exposure. Both are taken in small tiles after a search for the shift, and
their median counts, so that a fold or a hole in one of them does not matter.

How alike neighbours are depends on the section's thickness, the voxel and the noise, so the same
tissue is told by comparison with the other pairs of the stack; the same exposure by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.errors import ShapeError

Image = NDArray[np.uint8]

TILE_PX = 128
"""Side of the compared tiles: some 250 nm to 1 um, which moves as one."""
TILES = 5
"""Along y and along x; 25 tiles settle a median."""
REACH_PX = 8
"""Search round the shift of the whole section: what stretches within it."""
SMALL_PX = 512
"""Longest side of the images that the whole shift is found in."""
MIN_VALID = 0.9
"""Share of a tile that must be valid in both."""
MIN_TILES = 3
SAME_GRAIN = 0.8
"""Neighbours reach 0.4 at sections of 40 nm, and 0.7 at slices of 10 nm by ion beam."""
RESAMPLED_GRAIN = 0.6
"""A copy moved by half a pixel keeps 0.7, one stored as JPEG 0.6 to 0.9; another picture of the
same tissue has 0.3."""
SAME_STRUCTURE = 0.9
"""Less is no duplicate, however alike the others are."""
FAR_BETTER = 0.35
"""The same tissue lacks at most this share of what the median pair lacks to a correlation of 1."""
MIN_PAIRS = 5
"""Other pairs of a stack that say what is usual."""


class Likeness(NamedTuple):
    """How alike two sections are."""

    structure: float
    """Median correlation of structure of 2 to 8 px, -1..1; NaN if too little is valid."""
    grain: float
    """Median correlation of what is finer, at the same shift."""
    shift_yx: tuple[float, float]
    """Median shift, px: the moving section shows at p + shift what the fixed one shows at p."""
    tiles: int
    """Compared tiles."""


class Duplicate(StrEnum):
    """What is the same in two sections."""

    EXPOSURE = "exposure"
    """One picture under two names: its noise is the same."""
    TISSUE = "tissue"
    """One section imaged twice."""


UNKNOWN = Likeness(math.nan, math.nan, (math.nan, math.nan), 0)


def measure_likeness(
    fixed: Image,
    moving: Image,
    fixed_valid: NDArray[np.bool_] | None = None,
    moving_valid: NDArray[np.bool_] | None = None,
) -> Likeness:
    """Measure how alike two sections are, up to a shift.

    Parameters
    ----------
    fixed, moving : uint8 ndarray of shape (ny, nx)
        Two sections at one mip, the finer the better: noise averages out. The shift may be up to a
        quarter of the shorter side; a turn by more than about 1 degree hides a duplicate.
    fixed_valid, moving_valid : bool ndarray of shape (ny, nx), optional
        Where tissue may be used; by default everywhere but 0.

    Returns
    -------
    Likeness
        NaN, with 0 tiles, if fewer than 3 tiles are valid in both.

    Raises
    ------
    ShapeError
        If the four arrays differ in shape, or the images are no uint8 (y, x).

    Examples
    --------
    >>> section = np.random.default_rng(0).integers(1, 255, (300, 300), dtype=np.uint8)
    >>> found = measure_likeness(section[10:, 4:], section[:-10, :-4])
    >>> found.shift_yx, found.grain > 0.99
    ((10.0, 4.0), True)
    """
    fixed_valid = fixed > 0 if fixed_valid is None else fixed_valid
    moving_valid = moving > 0 if moving_valid is None else moving_valid
    shapes = {a.shape for a in (fixed, moving, fixed_valid, moving_valid)}
    if len(shapes) != 1 or fixed.ndim != 2 or fixed.dtype != np.uint8 or moving.dtype != np.uint8:
        raise ShapeError(
            "two sections and their valid parts must be uint8 and bool images (y, x) of one shape, "
            f"got {fixed.dtype} {fixed.shape}, {moving.dtype} {moving.shape}, valid "
            f"{fixed_valid.shape} and {moving_valid.shape}; pad the smaller with zeros"
        )
    side = min(TILE_PX, min(fixed.shape) // 2)
    if side < 32:
        return UNKNOWN
    whole = _whole_shift(fixed, moving, fixed_valid, moving_valid)
    found = []
    for corner in _corners(fixed.shape, side):
        tile = _compare_tile(fixed, moving, fixed_valid, moving_valid, corner, side, whole)
        if tile is not None:
            found.append(tile)
    if len(found) < MIN_TILES:
        return UNKNOWN
    structure, grain, dy, dx = (float(v) for v in np.median(np.array(found), axis=0))
    return Likeness(structure, grain, (dy, dx), len(found))


def judge_duplicates[P](likeness: Mapping[P, Likeness]) -> dict[P, Duplicate]:
    """Name the pairs of a stack that show the same exposure, or the same tissue.

    Parameters
    ----------
    likeness : mapping of any key of a pair to Likeness
        Of all pairs of neighbours, so that what is usual is known.

    Returns
    -------
    dict
        The pairs that are duplicates. The same tissue is named only among at least 5 other pairs,
        where its structure correlates by over 0.9 and lacks at most 0.35 of what the median pair
        lacks to 1.

    Examples
    --------
    >>> usual = {z: Likeness(0.4, 0.0, (0.0, 0.0), 9) for z in range(1, 8)}
    >>> copied = Likeness(0.99, 0.97, (0.0, 0.0), 9)
    >>> judge_duplicates({**usual, 8: copied})
    {8: <Duplicate.EXPOSURE: 'exposure'>}
    """
    known = {pair: found for pair, found in likeness.items() if found.tiles >= MIN_TILES}
    lacks = np.array([1 - found.structure for found in known.values()])
    usual = float(np.median(lacks)) if len(known) > MIN_PAIRS else 0.0
    named: dict[P, Duplicate] = {}
    for pair, found in known.items():
        if found.structure < SAME_STRUCTURE:
            continue
        if found.grain >= SAME_GRAIN:
            named[pair] = Duplicate.EXPOSURE
        elif 1 - found.structure <= FAR_BETTER * usual:
            copied = found.grain >= RESAMPLED_GRAIN
            named[pair] = Duplicate.EXPOSURE if copied else Duplicate.TISSUE
    return named


def _corners(shape: tuple[int, ...], side: int) -> list[tuple[int, int]]:
    """Return the first pixels of tiles spread evenly over an image."""
    ys, xs = (np.unique(np.linspace(0, n - side, TILES + 2)[1:-1].astype(int)) for n in shape)
    return [(int(y), int(x)) for y in ys for x in xs]


def _whole_shift(
    fixed: Image, moving: Image, fixed_valid: NDArray[np.bool_], moving_valid: NDArray[np.bool_]
) -> tuple[int, int]:
    """Return the shift of the moving section, px, by correlation of small band-passed images."""
    scale = max(1, math.ceil(max(fixed.shape) / SMALL_PX))
    size = tuple(n // scale for n in fixed.shape[::-1])
    spectra = []
    shape = tuple(cv2.getOptimalDFTSize(2 * n) for n in size[::-1])
    for image, valid in ((fixed, fixed_valid), (moving, moving_valid)):
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        seen = cv2.resize(valid.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.99
        band = _band(small, 1.0, 4.0) * cv2.erode(seen.view(np.uint8), np.ones((9, 9), np.uint8))
        spectra.append(np.fft.rfft2(band, shape))
    # correlation[d] is the sum of fixed(p) * moving(p + d).
    correlation = np.fft.irfft2(spectra[0].conj() * spectra[1], shape)
    offsets = np.arange(-(min(size) // 4), min(size) // 4 + 1)
    near = correlation[np.ix_(offsets, offsets)]
    y, x = np.unravel_index(int(near.argmax()), near.shape)
    return int(offsets[y]) * scale, int(offsets[x]) * scale


def _compare_tile(
    fixed: Image,
    moving: Image,
    fixed_valid: NDArray[np.bool_],
    moving_valid: NDArray[np.bool_],
    corner: tuple[int, int],
    side: int,
    shift: tuple[int, int],
) -> tuple[float, float, float, float] | None:
    """Return (structure, grain, dy, dx) of one tile at its best shift, or None if it has none."""
    (y, x), (ny, nx) = corner, fixed.shape
    top, left = y + shift[0] - REACH_PX, x + shift[1] - REACH_PX
    wide = side + 2 * REACH_PX
    if top < 0 or left < 0 or top + wide > ny or left + wide > nx:
        return None
    part = (slice(y, y + side), slice(x, x + side))
    window = (slice(top, top + wide), slice(left, left + wide))
    if fixed_valid[part].mean() < MIN_VALID or moving_valid[window].mean() < MIN_VALID:
        return None
    patch, scene = fixed[part].astype(np.float32), moving[window].astype(np.float32)
    if patch.std() < 1 or scene.std() < 1:
        return None
    scores = cv2.matchTemplate(_band(scene, 1.0, 4.0), _band(patch, 1.0, 4.0), cv2.TM_CCOEFF_NORMED)
    dy, dx = (int(v) for v in np.unravel_index(int(scores.argmax()), scores.shape))
    there = scene[dy : dy + side, dx : dx + side]
    inner = slice(8, -8)  # blurs near the border see different surroundings
    structure = _correlation(*(_band(a, 1.0, 4.0)[inner, inner] for a in (patch, there)))
    grain = _correlation(*(_band(a, 0.0, 0.8)[inner, inner] for a in (patch, there)))
    return structure, grain, float(shift[0] + dy - REACH_PX), float(shift[1] + dx - REACH_PX)


def _band(image: NDArray[np.float32], fine: float, coarse: float) -> NDArray[np.float32]:
    """Return what a Gaussian of sigma `coarse` takes out and one of sigma `fine` leaves."""
    border = cv2.BORDER_REFLECT
    smooth = cv2.GaussianBlur(image, (0, 0), coarse, borderType=border)
    sharp = cv2.GaussianBlur(image, (0, 0), fine, borderType=border) if fine else image
    return np.asarray(sharp - smooth, np.float32)


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    a, b = one - one.mean(), other - other.mean()
    spread = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / spread if spread > 0 else 0.0
