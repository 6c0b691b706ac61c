"""Quality of an alignment in numbers: correlation, residuals, distortion, the worst places.

Chunked Pearson correlation (CPC) is the measure of the SEAMLeSS paper [1]_: it needs no truth, and
its low percentiles say more than its mean. It cannot rank aligners alone: warping real change of
the tissue away raises it. Read it beside the distortion, and beside the residual to a truth where
one is known.

What counts as missing
    Images mark "no data" with 0, but the darkest tissue of a real 8-bit section is 0 too, in specks
    of some px. Here a pixel is missing where it belongs to an 8-connected zero area of at least
    `MISSING_AREA_PX`. The rule looks at the image only, so that our result and another system's
    rendering of the same sections are scored alike.

References
----------
.. [1] E. Mitchell, S. Keselj, S. Popovych, D. Buniatyan, H. S. Seung, "Siamese Encoding and
   Alignment by Multiscale Learning with Self-Supervision", arXiv:1904.02643, 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.errors import ConfigError, ShapeError
from alignment.fields import flipped_cells

Image = NDArray[np.uint8]
Map = NDArray[np.float32]

MISSING_AREA_PX = 256
"""Smaller zero areas are dark tissue; the defect masks' `min_object_px` has the same value."""


@dataclass(frozen=True, slots=True)
class CorrelationSummary:
    """Percentiles of chunk correlations, -1..1; all NaN where `count` is 0."""

    mean: float
    p1: float
    p5: float
    p50: float
    p95: float
    count: int


@dataclass(frozen=True, slots=True)
class ResidualSummary:
    """Percentiles of residual lengths, px at mip 0; all NaN where `count` is 0."""

    mean: float
    p50: float
    p95: float
    p99: float
    count: int


@dataclass(frozen=True, slots=True)
class DistortionSummary:
    """How one section was deformed; fractions, NaN where no cell is known.

    `area_*` is the change of the tissue's area (-0.1: a tenth smaller than in the source), over the
    cells that did not flip. `strain_*` is the larger principal stretch or squeeze of a cell.
    """

    area_p1: float
    area_p50: float
    area_p99: float
    strain_p50: float
    strain_p99: float
    flipped_cells: int
    cells: int


class PairScore(NamedTuple):
    """Section z against its nearest good predecessor: (cy, cx) chunk correlations, summarised."""

    z: int
    fixed_z: int
    chunks: Map
    summary: CorrelationSummary


class Place(NamedTuple):
    """One conspicuous place: section z, its centre (y, x) in px at mip 0, and its value."""

    z: int
    y: float
    x: float
    value: float


def missing_pixels(image: Image, *, area_px: int = MISSING_AREA_PX) -> NDArray[np.bool_]:
    """Return True where a uint8 image (y, x) holds no data: in 8-connected zero areas >= `area_px`.

    >>> image = np.full((8, 8), 90, np.uint8)
    >>> image[:3, :3] = 0
    >>> image[6, 6] = 0
    >>> int(missing_pixels(image, area_px=9).sum())
    9
    """
    zero = image == 0
    if np.count_nonzero(zero) < area_px:
        return np.zeros(image.shape, np.bool_)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(zero.view(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= area_px
    large[0] = False  # label 0 is everything that is not zero
    return np.asarray(large[labels], np.bool_)


def chunk_correlation(
    a: Image,
    b: Image,
    valid: NDArray[Any] | None,
    chunk_px: int,
    *,
    smoothing_px: float = 0.0,
) -> NDArray[np.float32]:
    """Pearson correlation of two images in chunks that do not overlap.

    Parameters
    ----------
    a, b : uint8 ndarray of shape (y, x)
        Two sections in one frame.
    valid : ndarray of shape (y, x), optional
        True (1) where tissue may be used, in both.
    chunk_px : int
        Side of the chunks; incomplete ones at the far edges are left out.
    smoothing_px : float
        Sigma of a Gaussian that both images pass first. Pixel noise is independent between
        sections, so a renderer that blurs raises the plain correlation; smoothed, sharp and
        blurred renderings of one alignment score alike.

    Returns
    -------
    correlation : float32 ndarray of shape (y // chunk_px, x // chunk_px)
        In -1..1; NaN for a chunk with a missing pixel (`missing_pixels`) in either image, with a
        pixel that is not valid, or without any variance.

    Raises
    ------
    ShapeError
        If the images differ in shape.
    ConfigError
        If `chunk_px` is below 2.

    Examples
    --------
    >>> ramp = np.arange(1, 65, dtype=np.uint8).reshape(8, 8)
    >>> chunk_correlation(ramp, 255 - ramp, None, 8)
    array([[-1.]], dtype=float32)
    """
    if valid is not None and valid.shape != a.shape:
        raise ShapeError(f"valid {valid.shape} must have the images' shape {a.shape}, px (y, x)")
    return correlate(look(a, smoothing_px, valid), look(b, smoothing_px), chunk_px)


class Look(NamedTuple):
    """A section as it is compared; each is compared twice, with the one before and after it."""

    image: NDArray[Any]
    """(y, x), smoothed."""
    bad: NDArray[np.bool_]
    """Where it is missing or not valid."""


def look(image: Image, smoothing_px: float, valid: NDArray[Any] | None = None) -> Look:
    """Prepare a uint8 section (y, x) for `correlate`; see `chunk_correlation`."""
    missing = missing_pixels(image)
    bad = missing if valid is None else missing | np.logical_not(valid)
    return Look(_smoothed(image, missing, smoothing_px) if smoothing_px > 0 else image, bad)


def _smoothed(image: Image, missing: NDArray[np.bool_], sigma_px: float) -> NDArray[np.float32]:
    """Blur the known pixels; what is missing neither darkens its neighbours nor is filled."""
    if not missing.any():
        return np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma_px))
    known = (~missing).astype(np.float32)
    weight = cv2.GaussianBlur(known, (0, 0), sigma_px)
    total = cv2.GaussianBlur(image * known, (0, 0), sigma_px)
    return np.asarray(total / np.maximum(weight, 1e-6), np.float32)


def correlate(a: Look, b: Look, chunk_px: int) -> Map:
    """Pearson correlation of two sections in chunks; see `chunk_correlation`."""
    shape = a.image.shape
    if shape != b.image.shape or a.image.ndim != 2:
        raise ShapeError(
            f"the sections must be (y, x) images of one shape, got {shape} and {b.image.shape}; "
            "crop or pad both to the common frame first"
        )
    if chunk_px < 2:
        raise ConfigError(f"qc.chunk_px={chunk_px}: a chunk needs at least 2 x 2 px")
    bad = a.bad | b.bad
    c = chunk_px
    cy, cx = shape[0] // c, shape[1] // c
    result = np.full((cy, cx), np.nan, np.float32)
    for i in range(cy):  # one row of chunks at a time bounds the memory of large sections
        rows = slice(i * c, (i + 1) * c), slice(0, cx * c)
        s, t = (each.image[rows].reshape(c, cx, c).astype(np.float64) for each in (a, b))
        s -= s.mean(axis=(0, 2), keepdims=True)
        t -= t.mean(axis=(0, 2), keepdims=True)
        norm = np.sqrt(np.einsum("ijk,ijk->j", s, s) * np.einsum("ijk,ijk->j", t, t))
        known = (norm > 0) & ~bad[rows].reshape(c, cx, c).any(axis=(0, 2))
        r = np.einsum("ijk,ijk->j", s, t)[known] / norm[known]
        result[i, known] = r.clip(-1, 1)
    return result


def summarise(values: NDArray[Any]) -> CorrelationSummary:
    """Summarise chunk correlations of any shape; NaN chunks are left out and not counted.

    >>> summarise(np.array([0.25, np.nan, 0.75])).mean
    0.5
    """
    known = _known(values)
    if not known.size:
        return CorrelationSummary(np.nan, np.nan, np.nan, np.nan, np.nan, 0)
    p1, p5, p50, p95 = (float(p) for p in np.percentile(known, (1, 5, 50, 95)))
    return CorrelationSummary(float(known.mean()), p1, p5, p50, p95, known.size)


def residual_summary(residuals: NDArray[Any]) -> ResidualSummary:
    """Summarise residual lengths (px at mip 0, any shape); NaN nodes are left out."""
    known = _known(residuals)
    if not known.size:
        return ResidualSummary(np.nan, np.nan, np.nan, np.nan, 0)
    p50, p95, p99 = (float(p) for p in np.percentile(known, (50, 95, 99)))
    return ResidualSummary(float(known.mean()), p50, p95, p99, known.size)


def _known(values: NDArray[Any]) -> NDArray[np.float64]:
    # float64: a float32 mean of 1e8 chunks would depend on their order.
    flat = np.asarray(values, np.float64).ravel()
    return flat[np.isfinite(flat)]


def neighbour_pairs(nz: int, missing: Collection[int] = ()) -> Iterator[tuple[int, int]]:
    """Yield (z, the nearest good section before z) for every good section but the first.

    >>> list(neighbour_pairs(5, missing=[2]))
    [(1, 0), (3, 1), (4, 3)]
    """
    good = [z for z in range(nz) if z not in missing]
    yield from zip(good[1:], good, strict=False)


def score_stack(
    read_section: Callable[[int], Image],
    nz: int,
    chunk_px: int,
    missing: Collection[int] = (),
    *,
    read_valid: Callable[[int], NDArray[Any]] | None = None,
    smoothing_px: float = 0.0,
) -> tuple[PairScore, ...]:
    """Chunk correlations of every section with its nearest good predecessor.

    Parameters
    ----------
    read_section : callable
        z to uint8 image (y, x); called once per good section, in ascending order, and at most two
        sections are held.
    nz : int
        Number of sections.
    chunk_px : int
        Side of the chunks, px at mip 0.
    missing : collection of int
        Sections that are skipped: their successor is compared with their predecessor.
    read_valid : callable, optional
        z to an array (y, x), True (1) where its tissue may be used.
    smoothing_px : float
        See `chunk_correlation`.

    Returns
    -------
    scores : tuple of PairScore
        By ascending z. A chunk that cannot be measured is NaN in `chunks` and absent in `summary`.
    """

    def read(z: int) -> Look:
        return look(read_section(z), smoothing_px, None if read_valid is None else read_valid(z))

    scores: list[PairScore] = []
    fixed: Look | None = None
    for z, fixed_z in neighbour_pairs(nz, missing):
        before = fixed or read(fixed_z)
        moving = fixed = read(z)
        if moving.image.shape != before.image.shape:
            raise ShapeError(
                f"sections {fixed_z} and {z} must have one shape, got {before.image.shape} and "
                f"{moving.image.shape}, px (y, x); pad both to the common frame first"
            )
        chunks = correlate(moving, before, chunk_px)
        scores.append(PairScore(z, fixed_z, chunks, summarise(chunks)))
    return tuple(scores)


def on_common_area(*stacks: Sequence[PairScore]) -> tuple[tuple[PairScore, ...], ...]:
    """Keep only chunks that every stack could measure, so that none wins by leaving out a rim.

    Parameters
    ----------
    *stacks : sequences of PairScore
        The same pairs over the same frame: before and after, or ours and a peer's.

    Returns
    -------
    stacks : tuple of tuples of PairScore
        With NaN wherever one of them has NaN, and new summaries.

    Raises
    ------
    ShapeError
        If pairs or chunk grids differ.
    """
    kept: list[list[PairScore]] = [[] for _ in stacks]
    for row in _aligned_rows(stacks):
        known = np.logical_and.reduce([np.isfinite(score.chunks) for score in row])
        for out, score in zip(kept, row, strict=True):
            chunks = np.where(known, score.chunks, np.float32(np.nan))
            out.append(PairScore(score.z, score.fixed_z, chunks, summarise(chunks)))
    return tuple(tuple(out) for out in kept)


def _aligned_rows(stacks: Sequence[Sequence[PairScore]]) -> Iterator[tuple[PairScore, ...]]:
    for row in zip(*stacks, strict=False):
        found = {(s.z, s.fixed_z, s.chunks.shape) for s in row}
        if len(found) > 1:
            raise ShapeError(
                f"the stacks must hold the same pairs on one chunk grid; got {sorted(found)} "
                "(z, fixed z, chunks); give every stack the same `missing`, frame and chunk_px"
            )
        yield row
    if len({len(stack) for stack in stacks}) > 1:
        raise ShapeError(
            f"the stacks must hold the same pairs, got {[len(stack) for stack in stacks]} of them"
        )


def distortion(field: NDArray[np.float32], spacing_px: float) -> DistortionSummary:
    """Summarise how a pull field (2, ny, nx), px at nodes `spacing_px` apart, deforms the tissue.

    `aligned[a] = source[a + F(a)]` has the Jacobian J = I + dF/da: det J is source area per aligned
    area, so tissue changes its area by 1 / det J - 1, and the singular values of J are the inverse
    principal stretches. Both are taken at the cells' centres; a rotation changes neither.
    """
    # Differences over a cell, averaged over its two edges: the gradient at the cell's centre.
    f = field.astype(np.float64)
    down = np.diff((f[:, :, 1:] + f[:, :, :-1]) / 2, axis=1) / spacing_px
    right = np.diff((f[:, 1:] + f[:, :-1]) / 2, axis=2) / spacing_px
    known = np.isfinite(down).all(axis=0) & np.isfinite(right).all(axis=0)
    if not known.any():
        return DistortionSummary(np.nan, np.nan, np.nan, np.nan, np.nan, 0, 0)
    (yy, xy), (yx, xx) = down[:, known], right[:, known]
    # Singular values of [[1 + yy, yx], [xy, 1 + xx]] in closed form: turn + skew, turn - skew.
    turn = np.hypot(2 + yy + xx, xy - yx) / 2
    skew = np.hypot(yy - xx, xy + yx) / 2
    strain = np.abs(np.log(np.maximum([turn + skew, np.abs(turn - skew)], 1e-3))).max(axis=0)
    determinant = (turn + skew) * (turn - skew)
    upright = determinant[determinant > 1e-3]
    area = 1 / upright - 1 if upright.size else np.array([np.nan])
    area_p1, area_p50, area_p99 = (float(p) for p in np.percentile(area, (1, 50, 99)))
    strain_p50, strain_p99 = (float(p) for p in np.percentile(strain, (50, 99)))
    flipped = int(np.count_nonzero(flipped_cells(field, spacing_px)))
    return DistortionSummary(
        area_p1, area_p50, area_p99, strain_p50, strain_p99, flipped, strain.size
    )


def worst_places(
    maps: Iterable[tuple[int, NDArray[Any]]],
    n: int,
    *,
    spacing_px: float,
    first_px: float = 0.0,
    separation_px: float,
    lowest: bool,
) -> tuple[Place, ...]:
    """Return the `n` most conspicuous places of a stack, each shown once.

    Parameters
    ----------
    maps : iterable of (z, ndarray of shape (ny, nx))
        One map per pair, by its moving section z; NaN where nothing was measured.
    n : int
        At most this many places.
    spacing_px : float
        Distance of the maps' elements, px at mip 0.
    first_px : float
        Where element (0, 0) is centred: (chunk_px - 1) / 2 for chunks, 0 for nodes.
    separation_px : float
        Side of the cut-outs that will be shown. Two places whose cut-outs would overlap, in one
        section or in neighbouring ones (which share an image), are one place.
    lowest : bool
        True for correlations, where low is bad; False for residuals.

    Returns
    -------
    places : tuple of Place
        The worst first; ties in the order of z, y, x.
    """
    reach = max(int(np.ceil(separation_px / spacing_px)) - 1, 0)
    found: list[Place] = []
    for z, values in maps:
        badness = -np.asarray(values, np.float64) if lowest else np.array(values, np.float64)
        badness[~np.isfinite(badness)] = -np.inf
        for _ in range(n if badness.size else 0):
            i, j = divmod(int(badness.argmax()), badness.shape[1])
            if badness[i, j] == -np.inf:
                break
            y, x = (first_px + k * spacing_px for k in (i, j))
            found.append(Place(z, y, x, float(values[i, j])))
            badness[max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1] = -np.inf
    found.sort(key=lambda p: (p.value if lowest else -p.value, p.z, p.y, p.x))
    chosen: list[Place] = []
    for place in found:
        if len(chosen) == n:
            break
        if not any(_overlap(place, other, separation_px) for other in chosen):
            chosen.append(place)
    return tuple(chosen)


def _overlap(a: Place, b: Place, side_px: float) -> bool:
    return abs(a.z - b.z) <= 1 and abs(a.y - b.y) < side_px and abs(a.x - b.x) < side_px
