"""Where one camera tile lies against another: phase correlation that knows masks and overlaps.

A shift is (dy, dx): the place of the second tile's first pixel in the first tile, px. Tiles are
flattened in frequency by a band-pass and correlated at every shift at once; each correlation is
Pearson's over the valid pixels of the overlap that the shift implies [1]_. So every peak is
verified as it is found, however little of the tiles overlaps.

References
----------
.. [1] D. Padfield, "Masked object registration in the Fourier domain", IEEE Trans. Image Process.
   21(5), 2012.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from alignment.errors import ShapeError

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Shift = tuple[float, float]

WORKING_SIDE_PX = 512
"""Longer side of the images in which shifts are searched."""
MIN_OVERLAP = 0.01
"""Least share of the smaller tile's valid pixels that must lie in an overlap."""

_BAND_PX = (1.0, 4.0)  # sigmas of the band-pass at the working mip
_PX_PER_SAMPLE = 20.0  # area over which what passes the band correlates with itself
_PEAK_PX = 6  # nearer than this, a second maximum belongs to the best peak
_LEAST_STD = 0.25  # grey values; less than this is not texture


class TileMatch(NamedTuple):
    """What the overlap of two tiles says of their places."""

    shift_yx: Shift
    """Place of the second tile's first pixel in the first, px at mip 0."""
    score: float
    """Correlation over the valid overlap at the working mip, -1..1."""
    significance: float
    """The score in standard deviations of the score of unrelated texture in such an overlap."""
    distinctness: float
    """Significance over that of the best other peak within reach; 1 is a coin toss."""
    overlap: float
    """Share of the smaller tile's pixels that lie in the overlap."""
    fine_score: float
    """Correlation over the overlap at the finest mip that was looked at."""


@dataclass(frozen=True)
class TileView:
    """A tile as the search needs it: its spectra at the working mip."""

    spectra: tuple[NDArray[np.complex64], ...] | None
    """Of the band-passed image, its square and its valid pixels; None for a blank tile."""
    shape: tuple[int, int]
    """(y, x) of the image at the working mip."""
    size: tuple[int, int]
    """(y, x) of the transforms."""
    mip: int
    valid_px: int


def working_mip(largest_yx: tuple[int, int]) -> int:
    """Return the mip at which tiles up to a shape are compared.

    >>> working_mip((1080, 1280)), working_mip((300, 300))
    (2, 0)
    """
    return max(math.ceil(math.log2(max(largest_yx) / WORKING_SIDE_PX)), 0)


def view_tile(image: Bytes, valid: Bools | None, largest_yx: tuple[int, int]) -> TileView:
    """Prepare a tile for `match_views`; its cost is paid once, not once a pair.

    Parameters
    ----------
    image : uint8 ndarray of shape (y, x)
    valid : bool ndarray of shape (y, x), optional
        True where there is tissue; all of the tile by default.
    largest_yx : tuple of int
        Shape that no tile of the section exceeds: it fixes mip and size of the transforms.
    """
    if image.shape[0] > largest_yx[0] or image.shape[1] > largest_yx[1]:
        raise ShapeError(f"a tile of {image.shape} px exceeds the section's largest {largest_yx}")
    mip = working_mip(largest_yx)
    size = tuple(scipy.fft.next_fast_len(2 * max(n >> mip, 1), real=True) for n in largest_yx)
    small, known = coarser(image, valid, mip)
    flat = band_passed(small, known, *_BAND_PX)
    values = flat[known]
    n = int(known.sum())
    about = {"shape": small.shape, "size": size, "mip": mip, "valid_px": n}
    if n < 64 or float(values.std()) < _LEAST_STD:
        return TileView(None, **about)  # type: ignore[arg-type]
    flat /= values.std()
    parts = (flat, flat * flat, known.astype(np.float32))
    return TileView(tuple(scipy.fft.rfft2(p, size) for p in parts), **about)  # type: ignore[arg-type]


def match_views(
    first: TileView, second: TileView, nominal_yx: Shift | None, search_px: float
) -> TileMatch | None:
    """Find the shift at which two tiles agree best.

    Parameters
    ----------
    first, second : TileView
        Made with the same `largest_yx`.
    nominal_yx : tuple of float, optional
        Where the shift is expected, px at mip 0; None if nothing is known.
    search_px : float
        How far from there it may lie along y and x, px at mip 0.

    Returns
    -------
    TileMatch or None
        To whole pixels of the working mip; None if one tile is blank, or no overlap is within
        reach, or the best shift lies at the rim of what is.
    """
    if first.spectra is None or second.spectra is None:
        return None
    score, count = _correlated(first, second)
    least = MIN_OVERLAP * min(first.valid_px, second.valid_px)
    within = _reachable(first, second, nominal_yx, search_px) & (count >= max(least, 64))
    # Fisher's transform: how unlikely is this for unrelated texture in an overlap of this size?
    spread = np.sqrt(np.maximum(count / _PX_PER_SAMPLE - 3, 0))
    sigma = np.where(within, np.arctanh(np.clip(score, -0.9999, 0.9999)) * spread, -np.inf)
    y, x = divmod(int(sigma.argmax()), sigma.shape[1])
    best = float(sigma[y, x])
    if not best > 0:
        return None
    ny, nx = sigma.shape
    near = np.ix_(np.arange(y - 1, y + 2) % ny, np.arange(x - 1, x + 2) % nx)
    if not within[near].all():
        return None
    near = np.ix_(
        np.arange(y - _PEAK_PX, y + _PEAK_PX + 1) % ny,
        np.arange(x - _PEAK_PX, x + _PEAK_PX + 1) % nx,
    )
    sigma[near] = -np.inf
    other = max(float(sigma.max()), 1.0)
    # Shifts up to one below the first tile's side are positive, the rest wrap round.
    dy = y if y < first.shape[0] else y - ny
    dx = x if x < first.shape[1] else x - nx
    scale = 2**first.mip
    overlap = float(count[y, x]) / min(first.valid_px, second.valid_px)
    rho = float(score[y, x])
    return TileMatch((dy * scale, dx * scale), rho, best, best / other, overlap, rho)


def _correlated(first: TileView, second: TileView) -> tuple[Floats, Floats]:
    """Return Pearson's correlation at every shift, and the pixels of the overlap."""
    fa, faa, fm = first.spectra or ()
    ga, gaa, gm = (s.conj() for s in second.spectra or ())

    def inverse(spectrum: NDArray[np.complex64]) -> Floats:
        return np.asarray(scipy.fft.irfft2(spectrum, first.size), dtype=np.float32)

    n = np.maximum(inverse(fm * gm), np.float32(0.5))
    sum_a, sum_b = inverse(fa * gm), inverse(fm * ga)
    energy_a = inverse(faa * gm) - sum_a * sum_a / n
    energy_b = inverse(fm * gaa) - sum_b * sum_b / n
    # Images have a spread of 1: an overlap with a thousandth of that is flat, or rounding.
    textured = (energy_a > 1e-2 * n) & (energy_b > 1e-2 * n)
    scale = np.sqrt(np.where(textured, energy_a * energy_b, np.float32(1)))
    cross = inverse(fa * ga) - sum_a * sum_b / n
    return np.where(textured, cross / scale, np.float32(0)), np.rint(n)


def _reachable(
    first: TileView, second: TileView, nominal_yx: Shift | None, search_px: float
) -> Bools:
    """Return which shifts of the surface overlap, and lie within the search range."""
    axes = []
    for axis in (0, 1):
        n, total = first.shape[axis], first.size[axis]
        shift = np.arange(total)
        shift = np.where(shift < n, shift, shift - total)
        inside = shift > -second.shape[axis]
        if nominal_yx is not None:
            inside &= abs(shift * 2**first.mip - nominal_yx[axis]) <= search_px
        axes.append(inside)
    return np.asarray(axes[0][:, np.newaxis] & axes[1])


def coarser(image: Bytes, valid: Bools | None, mip: int) -> tuple[Bytes, Bools]:
    """Return image and valid pixels of a mip; a pixel is valid if all that it covers is."""
    ny, nx = (n >> mip for n in image.shape)
    image = image[: ny << mip, : nx << mip]
    known = np.ones((ny, nx), np.bool_)
    if valid is not None:
        whole = valid[: ny << mip, : nx << mip]
        known = whole.reshape(ny, 1 << mip, nx, 1 << mip).all((1, 3))
    if mip and ny and nx:
        resized = cv2.resize(image, (nx, ny), interpolation=cv2.INTER_AREA)
        return np.asarray(resized, dtype=np.uint8), known
    return np.ascontiguousarray(image), known


def band_passed(image: Bytes, valid: Bools, fine_px: float, coarse_px: float) -> Floats:
    """Return the difference of two Gaussians over the valid pixels, 0 elsewhere."""
    inside = valid.astype(np.float32)
    grey = image * inside

    def blurred(sigma: float) -> Floats:
        weight, value = (
            cv2.GaussianBlur(part, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
            for part in (inside, grey)
        )
        return np.asarray(value / np.maximum(weight, 1e-3), dtype=np.float32)

    return np.asarray((blurred(fine_px) - blurred(coarse_px)) * inside, dtype=np.float32)
