"""Block fit: refine an affine between two images by the shifts of many small blocks.

Each block of the moving image is correlated with the fixed one around its place. A robust fit of
all their shifts is the affine; blocks on damage, or where the tissue itself has changed, disagree
with the others and lose their weight.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft

from alignment.affines import Affine, apply_affine, compose_affines, invert_affine
from alignment.bilinear import Points
from alignment.views import View, warped

_BLOCKS = 200  # wanted
_LEAST_BLOCKS = 6  # twice what an affine needs
_LEAST_VALID = 0.5  # of a block
_LEAST_ENERGY = 0.02  # mean square of a block's features; else nothing is in it
_ROUNDS = 3
_SETTLED_PX = 0.2
_AGREES = 0.25  # of the search radius: a block's own answer this near supports the affine
# How far from the present fit a block is searched, and how far off it may be, in search radii.
_NARROWING = ((1.0, 0.6), (1.0, 0.4), (0.6, 0.3), (0.4, 0.25))
_FITS = 6


class Level(NamedTuple):
    """One level of refinement; px are of views whose longer side is `side_px`."""

    side_px: int
    sigma_coarse_px: float
    block_px: int
    radius_px: int
    is_affine: bool
    """Else a similarity: a few faint blocks cannot tell shear from noise."""


def refine(fixed: View, moving: View, matrix: Affine, level: Level) -> tuple[Affine, int] | None:
    """Fit an affine to the shifts of blocks.

    Three rounds at most: warp the moving view by the present affine, let every block find its best
    place within ``level.radius_px``, fit all of them robustly (Tukey's biweight, weighted by
    correlation squared, searching ever nearer to the fit).

    Parameters
    ----------
    fixed, moving : View
        Views of like contrast.
    matrix : float64 ndarray of shape (2, 3)
        Present affine, px of the fixed view to px of the moving one; right to about a radius.
    level : Level
        Size of the blocks and of the search, px of the views.

    Returns
    -------
    (matrix, inliers) or None
        The refined affine, and how many of about 200 overlapping blocks find their best place
        within a quarter of the radius of it. None if too few blocks overlap or agree.
    """
    inliers = 0
    for _ in range(_ROUNDS):
        image, covered = warped(moving, matrix, fixed.image.shape)
        corners, scores = _block_scores(fixed, image, covered > 0.5, level)
        if len(corners) < _LEAST_BLOCKS:
            return None
        at: Points = corners + np.float64((level.block_px - 1) / 2)
        step = _robust_fit(at, scores, level)
        if step is None:
            return None
        moved = apply_affine(step, at) - at
        side = 2 * level.radius_px + 1
        own = np.stack(np.divmod(scores.reshape(-1, side * side).argmax(axis=1), side), axis=1)
        miss = np.hypot(*(moved - (own - level.radius_px)).T)
        inliers = int(np.count_nonzero(miss <= _AGREES * level.radius_px))
        # Tissue that the moving view showed at p belongs at step(p).
        matrix = compose_affines(matrix, invert_affine(step))
        if float(np.abs(moved).max()) < _SETTLED_PX:
            break
    return matrix, inliers


def _block_scores(
    fixed: View, image: NDArray[np.float32], valid: NDArray[np.bool_], level: Level
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Correlate blocks of the warped moving image with the fixed one around their place.

    Returns
    -------
    corners : (n, 2)
        First pixel (y, x) of each block; blocks overlap, there are about 200.
    scores : (n, 2 r + 1, 2 r + 1)
        Normalised correlation if the block is moved by (dy, dx), at [r + dy, r + dx].
    """
    size, radius = level.block_px, level.radius_px
    room = np.array(image.shape) - size
    if room.min() < 0:
        return np.zeros((0, 2), np.intp), np.zeros((0, 1, 1), np.float32)
    stride = max(size // 6, round(math.sqrt(float((room + 1).prod()) / _BLOCKS)))
    axes = (np.arange(r % stride // 2, r + 1, stride) for r in room.tolist())
    corners = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    image = image * valid
    share = cv2.boxFilter(
        (valid & fixed.valid).astype(np.float32),
        -1,
        (size, size),
        anchor=(0, 0),
        borderType=cv2.BORDER_CONSTANT,
    )
    y, x = corners[share[corners[:, 0], corners[:, 1]] >= _LEAST_VALID].T
    window = size + 2 * radius
    blocks = sliding_window_view(image, (size, size))[y, x]
    known = sliding_window_view(valid.astype(np.float32), (size, size))[y, x]
    windows = sliding_window_view(np.pad(fixed.image, radius), (window, window))[y, x]
    side, fast = 2 * radius + 1, fft.next_fast_len(window, real=True)

    def slide(block: NDArray[np.float32], over: NDArray[np.float32]) -> NDArray[np.float32]:
        spectrum = np.conj(fft.rfft2(block, s=(fast, fast))) * fft.rfft2(over, s=(fast, fast))
        return fft.irfft2(spectrum, s=(fast, fast))[:, :side, :side]

    floor = np.float32(_LEAST_ENERGY * size * size)
    energy = np.maximum(np.square(blocks).sum(axis=(1, 2)), floor)[:, None, None]
    energy = energy * np.maximum(slide(known, np.square(windows)), floor)
    return np.stack([y, x], axis=1), slide(blocks, windows) / np.sqrt(energy)


def _robust_fit(at: Points, scores: NDArray[np.float32], level: Level) -> Affine | None:
    """Fit the affine step that moves blocks to their best places, in narrowing searches."""
    radius, side = level.radius_px, scores.shape[1]
    shifts = np.arange(side) - radius
    row = np.arange(len(at))
    step = np.array([[1.0, 0, 0], [0, 1, 0]])
    for reach, tolerance in _NARROWING:
        expected = apply_affine(step, at) - at
        distance = np.hypot(
            shifts[:, None] - expected[:, 0, None, None], shifts - expected[:, 1, None, None]
        )
        near = np.where(distance <= reach * radius, scores, -2.0).reshape(len(at), -1)
        best = near.argmax(axis=1)
        weight = np.square(np.maximum(near[row, best], 0.0))  # 0 where nothing is near
        found = at + _peaks(scores, *np.divmod(best, side)) - radius
        for _ in range(_FITS):
            miss = np.hypot(*(apply_affine(step, at) - found).T)
            trust = weight * np.square(
                np.maximum(1 - np.square(miss / (2 * tolerance * radius)), 0.0)
            )
            if np.count_nonzero(trust) < _LEAST_BLOCKS:
                return None
            step = _weighted_fit(at, found, trust, is_affine=level.is_affine)
    return step


def _peaks(scores: NDArray[np.float32], y: NDArray[np.intp], x: NDArray[np.intp]) -> Points:
    """Return the sub-pixel tops of parabolas through integer peaks, (n, 2)."""
    row, last = np.arange(len(scores)), scores.shape[1] - 2
    inner_y, inner_x = y.clip(1, last), x.clip(1, last)
    top = scores[row, inner_y, inner_x]
    sides = (
        (scores[row, inner_y - 1, inner_x], scores[row, inner_y + 1, inner_x]),
        (scores[row, inner_y, inner_x - 1], scores[row, inner_y, inner_x + 1]),
    )
    peaks = np.stack([y, x], axis=1).astype(np.float64)
    inside = (y == inner_y) & (x == inner_x)
    for axis, (before, after) in enumerate(sides):
        bend = before - 2 * top + after
        curved = inside & (bend < -1e-6)
        offset = 0.5 * (before - after) / np.where(curved, bend, 1.0)
        peaks[:, axis] += np.where(curved, offset.clip(-0.5, 0.5), 0.0)
    return peaks


def _weighted_fit(
    start: Points, end: Points, weight: NDArray[np.float64], *, is_affine: bool
) -> Affine:
    """Return the affine or similarity of least weighted squared distance."""
    middle = (weight @ start) / weight.sum()
    goal = (weight @ end) / weight.sum()
    p, q = start - middle, end - goal
    moments = (weight[:, None] * p).T @ p
    cross = (weight[:, None] * q).T @ p
    if is_affine:
        # A little of the identity: blocks on one line say nothing about what lies off it.
        ridge = 1e-6 * np.trace(moments) * np.eye(2)
        linear = np.linalg.solve(moments + ridge, (cross + ridge).T).T
    else:
        spread = max(float(np.trace(moments)), 1e-12)
        c, s = np.trace(cross) / spread, (cross[1, 0] - cross[0, 1]) / spread
        linear = np.array([[c, -s], [s, c]])
    return np.column_stack([linear, goal - linear @ middle])
