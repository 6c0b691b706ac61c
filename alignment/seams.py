"""Seams between tiles: long, straight steps of grey or of contrast along an axis.

A step does not destroy tissue, for features are normalised locally; but the same line at the same
place of two sections matches itself instead of the tissue, so a thin strip along it is masked.

For each short run of rows the mean of a strip right of a column minus that of a strip left of it is
one sample of a step there. A seam has many samples of one size along a line, up to 3 degrees off
the axis; the walls of cells have samples that scatter. So a line is judged by the mean of its
samples, their t-statistic, and how such a mean compares with what is usual in the section.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.config import MasksConfig

Image = NDArray[np.float32]

_ROWS = 16
"""Height of one sample, px: about a cell of neuropil at 16 nm, so that samples are independent."""
_STRIP_PX = 6
"""Width of the strips on both sides of a step."""
_SLOPES = np.linspace(-0.8, 0.8, 9)
"""Columns per sample: up to 3 degrees."""
_MIN_T = 6.0
"""Least t-statistic of a line's samples: they agree."""
_MIN_Z = 5.5
"""Least mean over what the mean of so many samples usually is: sections of neuropil without seams
reach 5.4 with steps of 0.3."""
_MIN_SAMPLES = 11
"""Fewer say nothing: a t-statistic of 5 samples is past 20 somewhere in any section."""
_AHEAD, _LEAST_STEP = 4, 0.35
"""A seam goes on while the mean of its next samples is at least a third of its step."""
_LEAST_SHARE = 0.7
"""Of the shorter side: long enough for a seam in a small section."""


class Seam(NamedTuple):
    """A straight step from one point to another, px of the image searched."""

    y0: float
    x0: float
    y1: float
    x1: float
    step: float
    """Grey beyond it minus grey before it, in spreads (percentile 90 - 10) of the section; or the
    relative change of local contrast, if that is what stands out."""
    z: float
    """The step over what so long a line shows by chance."""


def find_seams(image: Image, known: NDArray[np.bool_], config: MasksConfig) -> list[Seam]:
    """Find the seams of a section along both axes.

    Parameters
    ----------
    image : float32 ndarray of shape (ny, nx)
        A section, grey values; px here are twice those of ``config.mip``.
    known : bool ndarray of shape (ny, nx)
        What shows tissue, without folds and cracks: their edges are steps too.
    config : MasksConfig
        ``seam_min_length_px`` and ``seam_min_step``.

    Returns
    -------
    list of Seam
        The surest first; empty if ``seam_min_length_px`` is 0, or if the section is too small.
    """
    if not config.seam_min_length_px or not known.any():
        return []
    grey, contrast = _channels(image, known)
    found: list[Seam] = []
    for channel in (grey, contrast):
        found += _vertical(channel, known, config)
        turned = _vertical(np.ascontiguousarray(channel.T), np.ascontiguousarray(known.T), config)
        found += [Seam(s.x0, s.y0, s.x1, s.y1, s.step, s.z) for s in turned]
    return sorted(found, key=lambda seam: -seam.z)


def draw_seams(
    seams: list[Seam], shape: tuple[int, int], *, scale: int, width_px: int
) -> NDArray[np.bool_]:
    """Return the strips of `width_px` along seams in an image `scale` times as large."""
    canvas = np.zeros(shape, np.uint8)
    middle = (scale - 1) / 2
    for seam in seams:
        ends = [
            (round(x * scale + middle), round(y * scale + middle))
            for y, x in ((seam.y0, seam.x0), (seam.y1, seam.x1))
        ]
        cv2.line(canvas, ends[0], ends[1], 1, thickness=width_px)
    return canvas > 0


def _channels(image: Image, known: NDArray[np.bool_]) -> tuple[Image, Image]:
    """Return grey and local contrast, both about 0 in the middle and clipped; 0 where unknown."""
    # A sixteenth of the pixels is enough for percentiles of a section.
    seen = image[::4, ::4][known[::4, ::4]]
    low, median, high = np.percentile(seen if seen.size else image[known], (10, 50, 90))
    grey = ((image - median) / max(high - low, 8.0)).clip(-1, 1)
    detail = np.abs(image - cv2.blur(image, (7, 7)))
    detail = (detail / max(2 * float(np.median(detail[known][::16])), 0.5)).clip(0, 2)
    detail -= detail[known].mean()
    return (grey * known).astype(np.float32), (detail * known).astype(np.float32)


def _vertical(channel: Image, known: NDArray[np.bool_], config: MasksConfig) -> list[Seam]:
    """Return the seams that run along the rows' axis, up to 3 degrees off it."""
    ny, nx = channel.shape
    rows = ny // _ROWS
    least = min(config.seam_min_length_px / 2, _LEAST_SHARE * min(ny, nx))
    shortest = int(least // _ROWS)
    if shortest < _MIN_SAMPLES or nx < 4 * _STRIP_PX:
        return []
    steps, there = _samples(channel, known, rows)
    usual = max(1.4826 * float(np.median(np.abs(steps[there > 0]))), 1e-3) if there.any() else 1.0
    best_z = np.zeros(steps.shape, np.float32)
    best: dict[str, NDArray[np.float32]] = {
        name: np.zeros(steps.shape, np.float32) for name in ("step", "slope", "length")
    }
    doubled = [shortest << k for k in range(16) if shortest << k < rows]
    lengths = [*doubled, rows]  # the last: seams through the whole section
    columns = np.arange(nx)
    for slope in _SLOPES:
        shift = np.rint(slope * (np.arange(rows) - rows / 2)).astype(np.intp)
        source = columns + shift[:, None]
        inside = (source >= 0) & (source < nx)
        source = source.clip(0, nx - 1)
        aligned = np.where(inside, np.take_along_axis(steps, source, 1), 0)
        known_here = np.where(inside, np.take_along_axis(there, source, 1), 0)
        for length in lengths:
            mean, t = _judge(aligned, known_here, length)
            # The longer the line, the fainter the step that stands out from tissue.
            least_step = config.seam_min_step * math.sqrt(shortest / length)
            z = np.abs(mean) * math.sqrt(length) / usual
            z[(np.abs(mean) < least_step) | (np.abs(t) < _MIN_T)] = 0
            # Each line's value goes back to where its middle sample lies.
            back = (columns - shift[:, None]).clip(0, nx - 1)
            z_here = np.asarray(np.take_along_axis(z, back, 1), np.float32)
            step = np.asarray(np.take_along_axis(mean, back, 1), np.float32)
            better = z_here > best_z
            best_z[better] = z_here[better]
            for name, value in (("step", step[better]), ("slope", slope), ("length", length)):
                best[name][better] = value
    return _segments(best_z, best, steps, there)


def _samples(
    channel: Image, known: NDArray[np.bool_], rows: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the steps between strips beside each column (rows, nx), and 1 where both are known."""
    nx = channel.shape[1]
    part = slice(0, rows * _ROWS)
    means, weights = (
        cv2.resize(a[part].astype(np.float32), (nx, rows), interpolation=cv2.INTER_AREA)
        for a in (channel, known)
    )

    def strips(values: NDArray[Any]) -> NDArray[Any]:
        """Return the means of [x, x + strip) at x."""
        return np.asarray(
            cv2.blur(values, (_STRIP_PX, 1), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
        )

    sums, counts = strips(means), strips(weights)
    # The two columns next to the step are mixed by interpolation and stay out.
    x = np.arange(_STRIP_PX + 1, nx - _STRIP_PX - 1)
    right, left = x + 1, x - 1 - _STRIP_PX
    there = np.zeros(means.shape, np.float32)
    there[:, x] = (counts[:, right] > 0.8) & (counts[:, left] > 0.8)
    steps = np.zeros(means.shape, np.float32)
    floor = np.float32(1e-3)
    steps[:, x] = sums[:, right] / np.maximum(counts[:, right], floor)
    steps[:, x] -= sums[:, left] / np.maximum(counts[:, left], floor)
    return steps * there, there


def _judge(
    steps: NDArray[np.float32], there: NDArray[np.float32], length: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and t-statistic of each run of `length` samples down a column."""

    def total(values: NDArray[np.float32]) -> NDArray[np.float32]:
        window = (1, length)
        return np.asarray(
            cv2.boxFilter(values, -1, window, normalize=False, borderType=cv2.BORDER_CONSTANT)
        )

    count = total(there)
    enough = count >= 0.8 * length
    count = np.maximum(count, 1)
    mean = total(steps) / count
    variance = np.maximum(total(steps * steps) / count - mean * mean, np.float32(1e-4))
    return mean, np.where(enough, mean / np.sqrt(variance / count), 0).astype(np.float32)


def _segments(
    z: NDArray[np.float32],
    best: dict[str, NDArray[np.float32]],
    steps: NDArray[np.float32],
    there: NDArray[np.float32],
) -> list[Seam]:
    """Turn lines that stand out into seams, the surest first; what lies along one is part of it."""
    rows = np.arange(z.shape[0])
    seams = []
    z = np.where(z >= _MIN_Z, z, 0)
    while z.any():
        i, x = (int(n) for n in np.unravel_index(int(z.argmax()), z.shape))
        length, slope, step = (float(best[name][i, x]) for name in ("length", "slope", "step"))
        at = np.rint(x + slope * (rows - i)).astype(np.intp).clip(0, z.shape[1] - 1)
        first = max(i - int(length) // 2, 0)
        last = min(first + int(length), rows.size)
        along = np.where(there[rows, at] > 0, steps[rows, at] * math.copysign(1, step), np.nan)
        first, last = _extended(along, first, last, _LEAST_STEP * abs(step))
        ends = [(n * _ROWS - 0.5, x + slope * (n - i) - 0.5) for n in (first, last)]
        seams.append(Seam(*ends[0], *ends[1], step, float(z[i, x])))
        for row in range(max(first - 2, 0), min(last + 2, rows.size)):
            # Lines beside it see the same step until both of their strips are past it.
            z[row, max(at[row] - 2 * _STRIP_PX, 0) : at[row] + 2 * _STRIP_PX + 1] = 0
        z[i, x] = 0
    return seams


def _extended(
    along: NDArray[np.floating[Any]], first: int, last: int, least: float
) -> tuple[int, int]:
    """Return [first, last) of a line, grown while the next few samples still show the step."""

    def goes_on(samples: NDArray[np.floating[Any]]) -> bool:
        known = samples[np.isfinite(samples)]
        return known.size >= 2 and float(known.mean()) >= least

    while last < along.size and goes_on(along[last : last + _AHEAD]):
        last += 1
    while first > 0 and goes_on(along[max(first - _AHEAD, 0) : first]):
        first -= 1
    return first, last
