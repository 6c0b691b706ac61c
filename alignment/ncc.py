"""The engine of matching: many templates against their search windows, with all statistics.

Masked zero-normalised cross-correlation by real Fourier transforms in the compiled kernel
(`alignment.native`). A window is transformed once for all templates that are compared with it, and
a template once for all windows, if their jobs follow each other; a match then costs one inverse
transform, and one more for the turned template, its null hypothesis. Sums under the template's
weights slide over a whole image once. Nothing of a match depends on the other jobs of a call, and
every processor gives the same bits.

`alignment.correlation` defines the same numbers in numpy. It is the oracle of the tests, and does
the work, ten times slower, where no compiler could make the kernel.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from alignment import native
from alignment.correlation import (
    Bools,
    Floats,
    Peaks,
    box_taper,
    find_peaks,
    ncc_surface,
    tent_taper,
)
from alignment.errors import ShapeError

STEP = 1 / 256
"""Features enter the correlation in whole multiples of this."""
LARGEST = 2047
"""Most multiples of `STEP`, 8 in features: what is beyond, as next to dirt, is cut off."""
MAX_TEMPLATE_PX = 512
"""With larger ones the sums of 32 bits would overflow."""
_ALIGNMENT_PX = 32  # of a transform's size: two of the widest vectors
_CHUNK_PX = 2**18  # rounded at a time
_BATCH = 32  # of numpy's way: patches whose transforms fit the second-level cache

Weights = Literal["tent", "box"]


class Job(NamedTuple):
    """One match: where in which image the search window and the template begin, px (y, x).

    Both may reach beyond their image, which is taken to go on with invalid pixels.
    """

    fixed: int
    window_y: int
    window_x: int
    moving: int
    template_y: int
    template_x: int


@dataclass(frozen=True)
class FeatureImage:
    """A feature image as the kernel reads it."""

    grey: NDArray[np.int16]
    """(y, x), multiples of `STEP`; 0 where invalid."""
    valid: NDArray[np.uint8]
    """(y, x), 1 where tissue may be used."""

    @classmethod
    def of(cls, features: Floats, valid: Bools) -> Self:
        """Round features (y, x) to multiples of `STEP`; what is not valid is not looked at.

        Raises
        ------
        ShapeError
            If the two differ in shape or are not two-dimensional.
        """
        if features.ndim != 2 or features.shape != valid.shape:
            raise ShapeError(
                "a feature image needs features and valid of one shape (y, x), got "
                f"{features.shape} and {valid.shape}"
            )
        grey = np.zeros(features.shape, np.int16)
        rows = max(1, _CHUNK_PX // max(features.shape[1], 1))
        for first in range(0, len(features), rows):  # all at once would need three copies
            part = slice(first, first + rows)
            steps = features[part] * np.float32(1 / STEP)
            np.clip(np.rint(steps, out=steps), -LARGEST, LARGEST, out=steps)
            np.copyto(grey[part], steps, where=valid[part], casting="unsafe")
        return cls(grey, np.ascontiguousarray(valid, np.uint8))


def transform_px(window_px: int) -> int:
    """Return the side of the transforms for search windows of a side, px.

    >>> transform_px(256), transform_px(176), transform_px(200)
    (256, 192, 224)
    """
    size = -(-window_px // _ALIGNMENT_PX) * _ALIGNMENT_PX
    while _largest_factor(size) > 7:
        size += _ALIGNMENT_PX
    return size


def engine_name() -> str:
    """Return which of the two ways computes: their answers differ by rounding.

    >>> engine_name() in ("native", "numpy")
    True
    """
    return "numpy" if native.library() is None else "native"


def find_matches(
    images: Sequence[FeatureImage],
    jobs: NDArray[np.int32],
    *,
    template_px: int,
    search_radius_px: int,
    min_overlap: float,
    weights: Weights = "tent",
    isa: str | None = None,
) -> tuple[Peaks, Floats]:
    """Find the best place of every template in its search window, and how it stands out.

    Parameters
    ----------
    images : sequence of FeatureImage
        What the jobs speak of, at one mip.
    jobs : int32 ndarray of shape (n, 6)
        Rows of `Job`. Jobs that share a template or a window should follow each other.
    template_px, search_radius_px : int
        Side t of the templates, and r; search windows have the side t + 2 r.
    min_overlap : float
        Least share of the weights that must lie on pixels valid in both.
    weights : "tent" or "box"
        Of a template's pixels, see `correlation.tent_taper`; a box weighs all alike.
    isa : str, optional
        One of `native.ISAS`, for tests; by default the widest vectors of this processor.

    Returns
    -------
    peaks : Peaks
        See `correlation.find_peaks`; offsets count from a surface's first position, so that
        ``(r, r)`` is the middle of the window.
    overlap : float32 ndarray of shape (n,)
        Share of the template's weights that lies on its valid pixels; NaN where there is no peak.

    Raises
    ------
    ShapeError
        If the sizes are out of range, or a job names an image that is not there.
    """
    settings, rows = _checked(images, jobs, template_px, search_radius_px, min_overlap, weights)
    library = native.library(isa)
    if library is None:
        return _find_by_numpy(images, rows, template_px, search_radius_px, min_overlap, weights)
    found = np.empty((len(rows), 14), np.float64)
    _run(library.petalign_match, settings, images, rows, found)
    dy, dx, score, ratio, *rest = found.T
    r_delta, (sharpness, mirror, curvature, overlap), inverse = rest[:3], rest[3:7], rest[7:]
    single = np.float32
    peaks = Peaks(
        offset=np.stack([dy, dx]),
        score=score.astype(single),
        ratio=ratio.astype(single),
        r_delta=np.stack(r_delta).astype(single),
        sharpness=sharpness.astype(single),
        mirror=mirror.astype(single),
        curvature_ratio=curvature.astype(single),
        inverse_curvature=np.stack(inverse),
    )
    return peaks, overlap.astype(single)


def score_surfaces(
    images: Sequence[FeatureImage],
    jobs: NDArray[np.int32],
    *,
    template_px: int,
    search_radius_px: int,
    min_overlap: float,
    weights: Weights = "tent",
    is_turned: bool = False,
    isa: str | None = None,
) -> Floats:
    """Return the whole surfaces (n, 2 r + 1, 2 r + 1) of what `find_matches` looks at.

    Scores are NaN where unknown. `is_turned` turns the templates by 180 degrees; the other
    parameters and errors are those of `find_matches`.
    """
    settings, rows = _checked(images, jobs, template_px, search_radius_px, min_overlap, weights)
    library = native.library(isa)
    if library is None:
        both = _surfaces_by_numpy(images, rows, template_px, search_radius_px, min_overlap, weights)
        return both[1 if is_turned else 0]
    side = settings.positions
    surfaces = np.empty((len(rows), side, side), np.float32)
    _run(library.petalign_surfaces, settings, images, rows, surfaces, is_turned=is_turned)
    return surfaces


def _checked(
    images: Sequence[FeatureImage],
    jobs: NDArray[np.int32],
    template_px: int,
    search_radius_px: int,
    min_overlap: float,
    weights: Weights,
) -> tuple[native.Settings, NDArray[np.int32]]:
    if not 2 <= template_px <= MAX_TEMPLATE_PX or search_radius_px < 1:
        raise ShapeError(
            f"templates must have 2 to {MAX_TEMPLATE_PX} px and search radii 1 px or more, got "
            f"{template_px} and {search_radius_px}; set match.levels[].template_px and "
            "search_radius_px, or match at a coarser mip"
        )
    rows = np.ascontiguousarray(jobs, np.int32)
    if rows.ndim != 2 or rows.shape[1] != len(Job._fields):
        raise ShapeError(f"jobs must have shape (n, {len(Job._fields)}), got {rows.shape}")
    named = rows[:, [0, 3]]
    if named.size and not (named.min() >= 0 and named.max() < len(images)):
        raise ShapeError(f"jobs name image {named.max()} of {len(images)}, counted from 0")
    positions = 2 * search_radius_px + 1
    size = transform_px(template_px + positions - 1)
    return native.Settings(template_px, positions, size, weights == "tent", min_overlap), rows


def _run(
    function: ctypes._NamedFuncPointer,
    settings: native.Settings,
    images: Sequence[FeatureImage],
    jobs: NDArray[np.int32],
    out: NDArray[np.float64] | Floats,
    *,
    is_turned: bool | None = None,
) -> None:
    seen = (native.Image * len(images))(
        *(native.Image(i.grey.ctypes.data, i.valid.ctypes.data, *i.grey.shape) for i in images)
    )
    extra = () if is_turned is None else (int(is_turned),)
    failed = function(
        ctypes.byref(settings),
        seen,
        len(images),
        jobs.ctypes.data,
        len(jobs),
        *extra,
        out.ctypes.data,
    )
    if failed:
        raise MemoryError(
            f"no memory for matching {len(jobs)} templates of {settings.template_px} px; lower "
            "match.levels[].search_radius_px or match at a coarser mip"
        )


# --------------------------------------------------------------------------- without the kernel


def _find_by_numpy(
    images: Sequence[FeatureImage],
    jobs: NDArray[np.int32],
    template_px: int,
    search_radius_px: int,
    min_overlap: float,
    weights: Weights,
) -> tuple[Peaks, Floats]:
    surfaces, turned = _surfaces_by_numpy(
        images, jobs, template_px, search_radius_px, min_overlap, weights
    )
    peaks = find_peaks(surfaces, turned)
    taper = _taper(weights, template_px)
    share = [
        float((_cut(images[job[3]].valid, job[4:], template_px) * taper).sum()) for job in jobs
    ]
    overlap = np.asarray(share, np.float32) / taper.sum()
    return peaks, np.where(np.isnan(peaks.score), np.float32(np.nan), overlap)


def _surfaces_by_numpy(
    images: Sequence[FeatureImage],
    jobs: NDArray[np.int32],
    template_px: int,
    search_radius_px: int,
    min_overlap: float,
    weights: Weights,
) -> tuple[Floats, Floats]:
    """Return the surfaces of the templates, and of the templates turned by 180 degrees."""
    side, window_px = 2 * search_radius_px + 1, template_px + 2 * search_radius_px
    both = np.empty((2, len(jobs), side, side), np.float32)
    taper = _taper(weights, template_px)
    for first in range(0, len(jobs), _BATCH):
        some = jobs[first : first + _BATCH]
        windows, window_valid, templates, template_valid = (
            np.stack(
                [_cut(getattr(images[job[at]], name), job[at + 1 : at + 3], px) for job in some]
            )
            for at, px in ((0, window_px), (3, template_px))
            for name in ("grey", "valid")
        )
        for k, turn in enumerate((1, -1)):
            both[k, first : first + len(some)] = ncc_surface(
                templates[:, ::turn, ::turn] * np.float32(STEP),
                template_valid[:, ::turn, ::turn] > 0,
                windows * np.float32(STEP),
                window_valid > 0,
                taper=taper,
                min_overlap=min_overlap,
            )
    return both[0], both[1]


def _taper(weights: Weights, side: int) -> Floats:
    return tent_taper(side) if weights == "tent" else box_taper(side)


def _cut(
    image: NDArray[np.int16] | NDArray[np.uint8], start: NDArray[np.int32], side: int
) -> Floats:
    """Cut a square, extended by zeros as needed."""
    square = np.zeros((side, side), np.float32)
    low = np.maximum(-start, 0)
    high = np.clip(np.array(image.shape) - start, 0, side)
    if (low < high).all():
        inner = image[tuple(slice(*ends) for ends in zip(start + low, start + high, strict=True))]
        square[low[0] : high[0], low[1] : high[1]] = inner
    return square


def _largest_factor(number: int) -> int:
    largest = 1
    for prime in (2, 3, 5, 7):
        while number % prime == 0:
            number //= prime
            largest = prime
    return max(largest, number)
