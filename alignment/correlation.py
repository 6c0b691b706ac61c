"""Masked normalised cross-correlation of many patches at once, and the peaks of its surfaces.

A surface is indexed by where the template's first pixel lies in the search window; all lengths are
px at the mip of the patches. What is computed for one patch never depends on the others in its
batch: equal patches give equal bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from alignment.errors import ShapeError

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

PEAK_RADIUS_PX = 5
"""Nearer than this, along y and x, a second maximum belongs to the best peak."""
R_DELTA_RADII_PX = (5, 10, 15)
"""Radii, along y and x, outside which the score should be well below its maximum."""
MIN_OVERLAP = 1e-3
"""Share of a template's weight that is as good as none, however low the setting."""

_MIN_STD = 0.02  # features are steps of 1/256 and have a standard deviation of 1 in tissue
_FFT_NOISE = 1e-5  # of a patch's largest energy: below it a float32 FFT cannot tell flat from not
_UNKNOWN = np.float32(-2)  # below any score


@dataclass(frozen=True)
class Peaks:
    """The best position of each of n templates; NaN where there is none."""

    offset: NDArray[np.float64]
    """(2, n): (dy, dx) from position [0, 0] of the surface, px."""
    score: Floats
    """(n,): correlation at the best whole-pixel position, -1..1."""
    ratio: Floats
    """(n,): score over that of the second peak; inf where there is no second peak."""
    r_delta: Floats
    """(3, n): score minus the highest one outside each of `R_DELTA_RADII_PX`, at most the score."""
    sharpness: Floats
    """(n,): share of the score that the lowest one within `PEAK_RADIUS_PX` lacks, 0 or more."""
    mirror: Floats
    """(n,): share of the score that the best of the turned template lacks, 0..1."""
    curvature_ratio: Floats
    """(n,): tr^2 / det of the Hessian: 4 for a round peak, large for a ridge."""
    inverse_curvature: NDArray[np.float64]
    """(3, n): yy, yx, xx of the inverse of minus the Hessian, px^2."""


def tent_taper(side: int) -> Floats:
    """Weights (side, side) for the pixels of a template, falling linearly from the middle.

    Along each axis two boxes of half the side in succession, in whole numbers, so that a sum under
    these weights can slide over an image by additions alone. A single box gives the template's
    corners, which deform most against its middle, full weight: at equal spatial resolution (a box
    of two thirds of the side) its errors between real sections are a quarter larger, and its worst
    hundredth is half as bad again. A Gaussian of a quarter of the side is as good.

    >>> tent_taper(4)[1].tolist()
    [2.0, 4.0, 4.0, 2.0]
    """
    first = (side + 1) // 2
    profile = np.convolve(np.ones(first), np.ones(side + 1 - first))
    return np.outer(profile, profile).astype(np.float32)


def box_taper(side: int) -> Floats:
    """Weights (side, side) of 1 for the pixels of a template."""
    return np.ones((side, side), np.float32)


def ncc_surface(
    templates: Floats,
    template_valid: Bools,
    windows: Floats,
    window_valid: Bools,
    *,
    taper: Floats | None = None,
    min_overlap: float = 0.5,
) -> Floats:
    """Masked, weighted, zero-normalised cross-correlation of many templates with their windows.

    Pearson's correlation over the pixels that are valid in both patches, each weighted by `taper`,
    at every position where the template lies inside its window: six sums over the overlap, each
    a correlation [1]_ computed by real FFTs of about the window's size, whose wrap-around does not
    reach those positions. Windows without invalid pixels need three of the six.

    Parameters
    ----------
    templates : float32 ndarray of shape (n, t, t)
        Patches of the moving section.
    template_valid : bool ndarray of shape (n, t, t)
        True where they may be used.
    windows : float32 ndarray of shape (n, w, w)
        Parts of the fixed section at the same mip, w >= t.
    window_valid : bool ndarray of shape (n, w, w)
        True where they may be used.
    taper : float32 ndarray of shape (t, t), optional
        Weight of each pixel of a template; 1 by default.
    min_overlap : float
        Least share of the taper's weight that must lie on pixels valid in both.

    Returns
    -------
    float32 ndarray of shape (n, w - t + 1, w - t + 1)
        In -1..1, indexed by where the template's first pixel lies in the window; NaN where the
        overlap is too small or one of the two is flat there. A surface is the same bits whatever
        other patches are in the batch.

    Raises
    ------
    ShapeError
        If the shapes do not fit each other.

    References
    ----------
    .. [1] D. Padfield, "Masked object registration in the Fourier domain", IEEE Trans. Image
       Process. 21(5), 2012, with weights in place of the template's mask.
    """
    n, t, w = _check_batch(templates, template_valid, windows, window_valid)
    k, size = w - t + 1, scipy.fft.next_fast_len(w, real=True)
    if taper is None:
        taper = np.ones((t, t), np.float32)
    if not n:
        return np.empty((0, k, k), np.float32)
    partial = np.flatnonzero(~template_valid.all((1, 2)))
    holed = np.flatnonzero(~window_valid.all((1, 2)))
    # Both patches are centred first: sums of squares of values near zero lose no digits.
    weights = template_valid * taper
    weight_sum = weights.sum((1, 2))
    a = np.where(template_valid, templates, np.float32(0))
    mean_a = (weights * a).sum((1, 2)) / np.maximum(weight_sum, MIN_OVERLAP)
    a -= mean_a[:, None, None]
    wa = weights * a
    b = np.where(window_valid, windows, np.float32(0))
    count = np.count_nonzero(window_valid, axis=(1, 2)).astype(np.float32)
    b -= (b.sum((1, 2)) / np.maximum(count, 1))[:, None, None]
    b[holed] *= window_valid[holed]

    f_weights = _spectra(taper[np.newaxis], size).conj()
    f_weights = np.broadcast_to(f_weights, (n, size, size // 2 + 1))
    if partial.size:
        f_weights = f_weights.copy()
        f_weights[partial] = _spectra(weights[partial], size).conj()
    f_wa, f_b, f_bb = _spectra(wa, size).conj(), _spectra(b, size), _spectra(np.square(b), size)
    cross, sum_b = _correlate(f_b, f_wa, k), _correlate(f_b, f_weights, k)
    sum_bb = _correlate(f_bb, f_weights, k)
    # Over a window without holes the template's own sums are the same everywhere.
    total, sum_aa = (
        np.broadcast_to(value[:, None, None], cross.shape).copy()
        for value in (weight_sum, (wa * a).sum((1, 2)))
    )
    sum_a = np.zeros_like(cross)
    if holed.size:
        f_valid = _spectra(window_valid[holed].astype(np.float32), size)
        total[holed] = _correlate(f_valid, f_weights[holed], k)
        sum_a[holed] = _correlate(f_valid, f_wa[holed], k)
        sum_aa[holed] = _correlate(f_valid, _spectra(wa[holed] * a[holed], size).conj(), k)

    least = max(min_overlap, MIN_OVERLAP) * float(taper.sum())
    enough = total >= least
    total = np.maximum(total, np.float32(least))
    energy_a = sum_aa - sum_a * sum_a / total
    energy_b = sum_bb - sum_b * sum_b / total
    floor = np.float32(_MIN_STD**2) * total
    for energy, squares in ((energy_a, sum_aa), (energy_b, sum_bb)):
        noise = _FFT_NOISE * np.abs(squares).max((1, 2))
        enough &= energy > np.maximum(floor, noise[:, None, None])
    scale = np.sqrt(np.where(enough, energy_a * energy_b, np.float32(1)))
    score = np.where(enough, (cross - sum_a * sum_b / total) / scale, np.float32(np.nan))
    return np.clip(score, -1, 1, out=score)


def find_peaks(surfaces: Floats, mirrored: Floats) -> Peaks:
    """Find the best position of each surface, to a fraction of a pixel, and how it stands out.

    A quadratic through the 3 x 3 positions round the maximum gives the offset and the Hessian.
    There is no peak if the maximum lies on the rim of the surface or beside an unknown position,
    or if the quadratic has no maximum or has it a pixel or more away. With rho1 the score there,
    distances as the larger of those along y and x, and unknown positions left out everywhere:

    - ratio: rho1 over the highest local maximum above 0 further than `PEAK_RADIUS_PX`.
    - r_delta: rho1 minus the highest score, or 0, further than each of `R_DELTA_RADII_PX`. It is
      what NCCNet [1]_ is trained to raise. Unlike the ratio it also sees a shoulder of the peak.
    - sharpness: (rho1 - lowest score within `PEAK_RADIUS_PX`) / rho1; 0 unless rho1 > 0. SOFIMA's
      rho1 / lowest changes its sign where the lowest score does.
    - mirror: 1 - (highest score of the turned template, or 0) / rho1, within 0..1; 0 unless
      rho1 > 0. Turned by 180 degrees the template has the same spectrum and no true match: a null
      hypothesis for each patch, as FEABAS has it for correlations without normalisation.

    Parameters
    ----------
    surfaces : float32 ndarray of shape (n, k, k)
        Scores; NaN where unknown.
    mirrored : float32 ndarray of shape (n, k, k)
        Scores of the templates, with their valid pixels, turned by 180 degrees in the same windows.

    Raises
    ------
    ShapeError
        If the surfaces have fewer than 3 x 3 positions, or the mirrored ones another shape.

    References
    ----------
    .. [1] D. Buniatyan, T. Macrina, D. Ih, J. Zung, H. S. Seung, "Deep learning improves template
       matching by normalized cross correlation", arXiv:1705.08593, 2017.
    """
    if mirrored.shape != surfaces.shape:
        raise ShapeError(
            f"mirrored must hold one surface for each of the {surfaces.shape} of surfaces, got "
            f"{mirrored.shape}"
        )
    n, k = surfaces.shape[:2]
    if k < 3:
        raise ShapeError(
            f"a peak needs surfaces of 3 x 3 positions or more, got {surfaces.shape}; raise "
            "match.levels[].search_radius_px"
        )
    known = np.where(np.isnan(surfaces), _UNKNOWN, surfaces)
    best = known.reshape(n, -1).argmax(1)
    y, x = np.divmod(best, k)
    score = known[np.arange(n), y, x]
    inside = (y > 0) & (y < k - 1) & (x > 0) & (x < k - 1)
    around = np.arange(-1, 2)
    rows, columns = (np.clip(p, 1, k - 2)[:, np.newaxis] + around for p in (y, x))
    patch = surfaces[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    (nw, north, ne), (west, middle, east), (sw, south, se) = patch.astype(np.float64).transpose(
        1, 2, 0
    )

    gy, gx = (south - north) / 2, (east - west) / 2
    # Minus the Hessian, positive definite at a maximum.
    cyy, cxx = 2 * middle - north - south, 2 * middle - west - east
    cyx = (ne + sw - nw - se) / 4
    det = cyy * cxx - cyx * cyx
    good = inside & (cyy > 0) & (det > 0)  # False beside NaN
    det = np.where(good, det, 1)
    shift = np.stack([cxx * gy - cyx * gx, cyy * gx - cyx * gy]) / det
    good &= (np.abs(shift) < 1).all(0)

    place = np.arange(k)
    along_y, along_x = (np.abs(place - p[:, np.newaxis]) for p in (y, x))
    distance = np.maximum(along_y[:, :, None], along_x[:, None, :])
    second = _second_peak(known, distance)
    unique = second <= 0
    outside = [np.where(distance > r, known, _UNKNOWN).max((1, 2)) for r in R_DELTA_RADII_PX]
    near = (distance <= PEAK_RADIUS_PX) & ~np.isnan(surfaces)
    lowest = np.where(near, known, np.float32(1)).min((1, 2))
    turned = np.maximum(np.where(np.isnan(mirrored), np.float32(0), mirrored).max((1, 2)), 0)
    is_positive = score > 0
    scale = np.where(is_positive, score, np.float32(1))
    nan = np.where(good, np.float32(0), np.float32(np.nan))
    return Peaks(
        offset=np.stack([y, x]) + shift + nan,
        score=score + nan,
        ratio=np.where(unique, np.float32(np.inf), score / np.where(unique, 1, second)) + nan,
        r_delta=score - np.maximum(np.stack(outside), 0) + nan,
        sharpness=np.where(is_positive, (score - lowest) / scale, np.float32(0)) + nan,
        mirror=np.where(is_positive, np.clip(1 - turned / scale, 0, 1), np.float32(0)) + nan,
        curvature_ratio=((cyy + cxx) ** 2 / det).astype(np.float32) + nan,
        inverse_curvature=np.stack([cxx, -cyx, cyy]) / det + nan,
    )


def peak_covariance(peaks: Peaks, taper: Floats, *, px_per_sample: float) -> NDArray[np.float64]:
    """Covariance of each peak's offset.

    Two noisy views of one patch, of correlation rho, fix their shift [1]_ to within
    ``(1 - rho^2) / rho^2 / n * K^-1``, with n independent samples and K the curvature of the
    noiseless autocorrelation. The surface is rho times that, minus its Hessian rho K. Hence

        covariance = (1 - rho^2) / rho * (px per sample) / (effective px) * (-Hessian)^-1

    with (sum of the taper)^2 / (sum of its square) effective px.

    Parameters
    ----------
    peaks : Peaks
        Of n templates.
    taper : float32 ndarray of shape (t, t)
        Their weights.
    px_per_sample : float
        How many px make one independent sample of what differs between the two views: pi s^2 for
        white noise under a Gaussian of sigma s.

    Returns
    -------
    float64 ndarray of shape (3, n)
        yy, yx, xx, px^2; the long axis of the ellipse lies along a membrane.

    References
    ----------
    .. [1] A. H. Quazi, "An overview on the time delay estimate in active and passive systems for
       target localization", IEEE Trans. Acoust. Speech Signal Process. 29(3), 1981: the bound.
    """
    effective_px = float(taper.sum()) ** 2 / float(np.square(taper).sum())
    # A negative score has no covariance; it is no match either.
    score = np.maximum(peaks.score.astype(np.float64), 1e-3)
    noise = (1 - score**2) / score * (px_per_sample / effective_px)
    return noise * peaks.inverse_curvature


def _second_peak(known: Floats, distance: NDArray[np.intp]) -> Floats:
    """Highest local maximum of each surface away from its best position."""
    padded = np.pad(known, ((0, 0), (1, 1), (1, 1)), constant_values=_UNKNOWN)
    along_x = np.maximum(np.maximum(padded[:, :, :-2], padded[:, :, 1:-1]), padded[:, :, 2:])
    highest = np.maximum(np.maximum(along_x[:, :-2], along_x[:, 1:-1]), along_x[:, 2:])
    rival = (known == highest) & (distance > PEAK_RADIUS_PX)
    return np.where(rival, known, _UNKNOWN).max((1, 2))


def _spectra(patches: Floats, size: int) -> NDArray[np.complex64]:
    return scipy.fft.rfft2(patches, (size, size))


def _correlate(
    windows: NDArray[np.complex64], conjugate_templates: NDArray[np.complex64], k: int
) -> Floats:
    """Return the first k x k lags; the other rows are dropped between the two inverse passes."""
    size = windows.shape[1]
    product = windows * conjugate_templates
    rows = scipy.fft.ifft(product, axis=1, overwrite_x=True)[:, :k]
    return scipy.fft.irfft(rows, size, axis=2)[:, :, :k]


def _check_batch(
    templates: Floats, template_valid: Bools, windows: Floats, window_valid: Bools
) -> tuple[int, int, int]:
    shapes = templates.shape, template_valid.shape, windows.shape, window_valid.shape
    n, t, w = templates.shape[0], templates.shape[-1], windows.shape[-1]
    if shapes != ((n, t, t), (n, t, t), (n, w, w), (n, w, w)) or w < t:
        raise ShapeError(
            f"expected n templates (n, t, t) and n search windows (n, w, w), w >= t, each with its "
            f"valid pixels; got {', '.join(map(str, shapes))}"
        )
    return n, t, w
