"""Put sections out of register by a known amount, and damage some of them.

Section z shows at its pixel p the tissue at B_z(p), both (y, x) in px of mip 0. `Misalignment`
draws the maps B_z: they are applied as they are, and never inverted, so the truth is exact.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator
from scipy.ndimage import map_coordinates, spline_filter

from alignment.config import Config
from alignment.errors import DataError, ShapeError
from alignment.splines import evaluate_surfaces, grid, random_coefficients
from alignment.truth import Truth

SectionIndex = Annotated[int, Field(ge=0)]

DEFECTS = ("blank_section", "fold_section", "crack_section", "corner_section")
"""The settings that name a damaged section."""

_CLIP = 2.5  # normal draws are cut here, which bounds the tissue that a stack needs
_RAYLEIGH_P95 = math.sqrt(-2.0 * math.log(0.05))  # length of a 2-D unit normal vector
_MARGIN_PX = 64  # maps are defined this far beyond the section, for nodes past its last pixel
_CORNER = 0.3  # legs of the missing corner, as a share of the section's sides
_BAND_ROWS = 1024  # rows that are warped at once, which bounds the memory
_AFFINE, _ELASTIC, _SEAM, _EXPOSURE = range(4)  # random streams of one section


class MisalignmentConfig(Config):
    """How sections are put out of register, and what goes wrong with some of them."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 7
    """The same seed gives the same stack."""
    rotation_deg: Annotated[float, Field(ge=0.0, le=60.0)] = 3.0
    """Standard deviation of a section's rotation; draws are cut at 2.5 standard deviations."""
    shift_px: Annotated[float, Field(ge=0.0, le=1e4)] = 30.0
    """Standard deviation of a section's shift, along y and along x."""
    stretch: Annotated[float, Field(ge=0.0, le=0.1)] = 0.015
    """Standard deviation of a section's stretch along y and along x; half as much shear."""
    elastic_px: Annotated[float, Field(ge=0.0, le=1e3)] = 8.0
    """95 % of the elastic displacements are shorter than this."""
    elastic_length_px: Annotated[float, Field(gt=0.0, le=1e5)] = 150.0
    """Distance at which elastic displacements still correlate by exp(-1/2) = 0.61."""
    contrast: Annotated[float, Field(ge=0.0, le=0.5)] = 0.08
    """Standard deviation of a section's gain, gamma and (times 100 grey values) brightness."""
    noise: Annotated[float, Field(ge=0.0, le=100.0)] = 5.0
    """Standard deviation of the detector's noise at mid grey, grey values."""
    blank_section: SectionIndex | None = None
    """A section that was lost: all 0."""
    fold_section: SectionIndex | None = None
    """A section with a fold: a dark band, under which a strip of tissue is hidden."""
    crack_section: SectionIndex | None = None
    """A section with a crack: a bright band without tissue."""
    corner_section: SectionIndex | None = None
    """A section that does not fill its image: one corner is 0."""
    defect_px: Annotated[float, Field(ge=1.0, le=256.0)] = 12.0
    """Width of the fold's band and of the tissue hidden in it, and of the crack."""

    @model_validator(mode="after")
    def _defects_are_apart(self) -> Self:
        found = [getattr(self, name) for name in DEFECTS if getattr(self, name) is not None]
        if len(set(found)) < len(found):
            raise ValueError(
                f"{', '.join(f'{name}={getattr(self, name)}' for name in DEFECTS)}: "
                "give every defect a section of its own"
            )
        return self


class _Seam(NamedTuple):
    """A fold or a crack: a slightly bent line across a section."""

    kind: Literal["fold", "crack"]
    centre: NDArray[np.float64]
    normal: NDArray[np.float64]
    bend_px: float
    bend_length_px: float
    phase: float


class Misalignment:
    """The maps B_z of a stack, exact and smooth away from folds and cracks.

    B_z(p) = centre + A_z (q - centre) + t_z + e_z(p), with A_z a rotation times a stretch, e_z a
    cubic B-spline surface whose coefficients are a smoothed Gaussian random field, and q = p but
    for sections with a seam: the two sides of a fold lie nearer to each other than in the tissue,
    those of a crack further apart. Every section is drawn on its own, so a stack can stream.

    Parameters
    ----------
    config : MisalignmentConfig
    shape : (nz, height, width)

    Raises
    ------
    DataError
        If a defect is asked for in a section that the stack does not have.
    """

    def __init__(self, config: MisalignmentConfig, shape: tuple[int, int, int]) -> None:
        for name in DEFECTS:
            z = getattr(config, name)
            if z is not None and z >= shape[0]:
                raise DataError(
                    f"{name}={z} names no section of a stack of {shape[0]}; "
                    f"use 0..{shape[0] - 1}, or null for none"
                )
        self.config = config
        self.shape = shape
        self._centre = (np.array(shape[1:], np.float64) - 1) / 2

    def displacement(self, z: int, y: ArrayLike, x: ArrayLike) -> NDArray[np.float64]:
        """Return B_z(p) - p, (2, ny, nx) in px, at the grid of rows `y` and columns `x`."""
        rows, columns = np.asarray(y, np.float64), np.asarray(x, np.float64)
        linear, shift = self._affine(z)
        offset = grid(rows, columns) - self._centre[:, None, None]
        push = np.zeros_like(offset)
        seam = self._seam(z)
        if seam is not None:
            width = self.config.defect_px
            # +-1 on the two sides; linear across the band, which a fold compresses to a half.
            side = np.clip(_signed_distance(seam, rows, columns) * 2 / width, -1, 1)
            sign = 1.0 if seam.kind == "fold" else -1.0
            push = sign * width / 2 * seam.normal[:, None, None] * side
        moved = np.einsum("ij,jyx->iyx", linear, offset + push)
        return moved - offset + shift[:, None, None] + self._elastic(z, rows, columns)

    def shows_tissue(
        self, z: int, y: ArrayLike, x: ArrayLike, *, margin_px: float = 0.0
    ) -> NDArray[np.bool_]:
        """Return where on the grid section z shows tissue at least `margin_px` from a defect."""
        rows, columns = np.asarray(y, np.float64), np.asarray(x, np.float64)
        height, width = self.shape[1:]
        shown = np.ones((rows.size, columns.size), bool)
        if z == self.config.blank_section:
            shown[:] = False
        if z == self.config.corner_section:
            shown &= rows[:, None] / height + columns / width > _CORNER + margin_px * (
                math.hypot(1 / height, 1 / width)
            )
        seam = self._seam(z)
        if seam is not None:
            distance = np.abs(_signed_distance(seam, rows, columns))
            shown &= distance > self.config.defect_px / 2 + margin_px
        return shown

    def extent(self, z: int) -> tuple[int, int, int, int]:
        """Return the box (y0, x0, y1, x1) of whole px that holds all tissue of section z."""
        rows, columns = (np.arange(n) for n in self.shape[1:])
        sides = ((rows[[0, -1]], columns), (rows, columns[[0, -1]]))
        # The map keeps neighbourhoods, so the section's outline goes round all it shows.
        outline = np.concatenate(
            [(self.displacement(z, *g) + grid(*g)).reshape(2, -1) for g in sides], axis=1
        )
        (y0, x0), (y1, x1) = np.floor(outline.min(axis=1)), np.ceil(outline.max(axis=1))
        return int(y0), int(x0), int(y1) + 1, int(x1) + 1

    def truth(self, step_px: int = 8) -> Truth:
        """Return the maps at nodes `step_px` apart, up to or just beyond the last pixel."""
        if not 1 <= step_px <= _MARGIN_PX:
            raise DataError(f"step_px must be in 1..{_MARGIN_PX}, got {step_px}")
        nz, height, width = self.shape
        y, x = (np.arange(-(-(n - 1) // step_px) + 1) * step_px for n in (height, width))
        # A seam that passes between four nodes is nearer than 0.71 steps to one of them.
        shown = [self.shows_tissue(z, y, x, margin_px=0.75 * step_px) for z in range(nz)]
        inside = (y < height)[:, None] & (x < width)
        return Truth(
            np.stack([self.displacement(z, y, x) for z in range(nz)]).astype(np.float32),
            np.stack(shown) & inside,
            step_px,
        )

    def warp(
        self, z: int, tissue: NDArray[Any], *, origin_yx: tuple[int, int] = (0, 0)
    ) -> NDArray[np.float32]:
        """Return what section z shows, (height, width), of an image of the tissue.

        The image's first pixel is the tissue at `origin_yx`; it is mirrored beyond its border.
        Interpolated by a cubic spline at exact positions: cv2.remap rounds them to 1/32 px.
        """
        _, height, width = self.shape
        origin = np.array(origin_yx, np.float64)[:, None, None]
        columns = np.arange(width)
        coefficients = spline_filter(tissue, order=3, output=np.float32, mode="mirror")
        shown = np.empty((height, width), np.float32)
        for top in range(0, height, _BAND_ROWS):
            rows = np.arange(top, min(top + _BAND_ROWS, height))
            at = self.displacement(z, rows, columns) + grid(rows, columns) - origin
            band = shown[top : top + rows.size]
            map_coordinates(coefficients, at, band, order=3, mode="mirror", prefilter=False)
        return shown

    def expose(self, z: int, grey: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the picture of section z: its defects, contrast, illumination and noise.

        `grey` (height, width), 0..255, is the tissue as seen through the map. No data is 0 in the
        result, tissue 1..255.
        """
        random = self._random(z, _EXPOSURE)
        contrast = self.config.contrast
        gain, gamma, light = np.clip(random.standard_normal(3), -_CLIP, _CLIP) * contrast
        rows, columns = (np.arange(n, dtype=np.float64) for n in self.shape[1:])
        shown = self.shows_tissue(z, rows, columns)
        image: NDArray[np.floating[Any]] = np.clip(grey, 0, 255).astype(np.float32)
        seam = self._seam(z)
        if seam is not None and seam.kind == "fold":  # three layers absorb three times
            image = np.where(shown, image, 160 * (image / 255) ** 3)
        elif seam is not None:
            image = np.where(shown, image, np.float32(240))
        image = 255 * (image / 255) ** np.float32(math.exp(gamma))
        image = 128 + np.float32(math.exp(gain)) * (image - 128) + np.float32(100 * light)
        uneven = self._surfaces(random, 1, 0.5 * max(self.shape[1:]), rows, columns)[0]
        image *= (1 + 0.25 * contrast * uneven).astype(np.float32)
        noise = random.standard_normal(image.shape, np.float32)
        image += self.config.noise * noise * np.sqrt(np.clip(image, 16, 255) / 128)
        picture = np.clip(np.rint(image), 1, 255).astype(np.uint8)
        if z in (self.config.blank_section, self.config.corner_section):
            picture[~shown] = 0
        return picture

    def _random(self, z: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, stream, z])

    def _affine(self, z: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        draw = np.clip(self._random(z, _AFFINE).standard_normal(6), -_CLIP, _CLIP)
        angle = math.radians(self.config.rotation_deg * draw[0])
        rotation = np.array(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        stretch = self.config.stretch * np.array([[draw[1], draw[2] / 2], [draw[2] / 2, draw[3]]])
        return rotation @ (np.eye(2) + stretch), self.config.shift_px * draw[4:]

    def _elastic(
        self, z: int, rows: NDArray[np.float64], columns: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        std = self.config.elastic_px / _RAYLEIGH_P95
        length = self.config.elastic_length_px
        return std * self._surfaces(self._random(z, _ELASTIC), 2, length, rows, columns)

    def _surfaces(
        self,
        random: np.random.Generator,
        count: int,
        length_px: float,
        rows: NDArray[np.float64],
        columns: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return smooth random surfaces of unit variance over the section, (count, ny, nx)."""
        height, width = (n + 2 * _MARGIN_PX for n in self.shape[1:])
        coefficients, spacing = random_coefficients(random, count, length_px, (height, width))
        origin = (-_MARGIN_PX, -_MARGIN_PX)
        return evaluate_surfaces(coefficients, spacing, origin, rows, columns)

    def _seam(self, z: int) -> _Seam | None:
        if z not in (self.config.fold_section, self.config.crack_section):
            return None
        random = self._random(z, _SEAM)
        angle = random.uniform(0, 2 * math.pi)
        side = min(self.shape[1:])
        return _Seam(
            "fold" if z == self.config.fold_section else "crack",
            self._centre + random.uniform(-0.15, 0.15, 2) * side,
            np.array([math.sin(angle), math.cos(angle)]),
            bend_px=0.012 * side,
            bend_length_px=random.uniform(0.5, 0.9) * side,
            phase=random.uniform(0, 2 * math.pi),
        )


def misalign(
    images: NDArray[np.uint8], config: MisalignmentConfig, *, step_px: int = 8
) -> tuple[NDArray[np.uint8], Truth]:
    """Put an aligned stack out of register, with known truth.

    Parameters
    ----------
    images : uint8 ndarray of shape (nz, height, width)
        Sections in register.
    config : MisalignmentConfig
    step_px : int
        Distance of the truth's nodes.

    Returns
    -------
    sections : uint8 ndarray of shape (nz, height - 2 m, width - 2 m)
        With m just so large that every pixel shows tissue of `images`, so there is no black border.
    truth : Truth
        Tissue positions are px of `images`.

    Raises
    ------
    ShapeError
        If `images` is no uint8 stack.
    DataError
        If less than 64 px a side would be left.
    """
    if images.ndim != 3 or images.dtype != np.uint8:
        raise ShapeError(
            f"images must be uint8 of shape (nz, height, width), got {images.dtype} {images.shape}"
        )
    nz, height, width = images.shape
    border = _least_border(config, images.shape)
    drawn = Misalignment(config, (nz, height - 2 * border, width - 2 * border))
    sections = [
        drawn.expose(z, drawn.warp(z, images[z], origin_yx=(-border, -border))) for z in range(nz)
    ]
    truth = drawn.truth(step_px)
    return np.stack(sections), replace(truth, to_tissue=truth.to_tissue + np.float32(border))


def _least_border(config: MisalignmentConfig, shape: tuple[int, ...]) -> int:
    """Return the least border (px) within which sections show no place outside `shape`."""
    nz, height, width = shape
    most = (min(height, width) - 64) // 2

    def fits(border: int) -> bool:
        drawn = Misalignment(config, (nz, height - 2 * border, width - 2 * border))
        boxes = np.array([drawn.extent(z) for z in range(nz)]) + border
        # The cubic spline needs two px more.
        return bool(boxes[:, :2].min() >= 2 and np.all(boxes[:, 2:] <= (height - 2, width - 2)))

    if most < 0 or not fits(most):
        raise DataError(
            f"sections of {height} x {width} px leave less than 64 px once the places outside them "
            "are cut off; give larger ones or lower shift_px, rotation_deg or elastic_px"
        )
    return bisect_left(range(most), True, key=fits)


def _signed_distance(
    seam: _Seam, rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance (px) to the seam, positive on the side of its normal."""
    y, x = rows[:, None] - seam.centre[0], columns - seam.centre[1]
    across = seam.normal[0] * y + seam.normal[1] * x
    along = seam.normal[1] * y - seam.normal[0] * x
    return across - seam.bend_px * np.sin(2 * math.pi * along / seam.bend_length_px + seam.phase)
