"""Pairs of sections that lie badly to each other by a known affine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.affines import (
    Affine,
    apply_affine,
    compose_affines,
    invert_affine,
)
from alignment.coarse import MIN_SIDE_PX, PairAffine, estimate_mirrored_pair, estimate_pair
from alignment.config import CoarseConfig, MasksConfig
from alignment.masks import estimate_valid
from alignment.mirrors import mirror
from alignment.pyramid import downsample
from alignment.views import pull

Image = NDArray[np.uint8]

_SMALLEST_PX = 400  # as the coarse stage: below this a finer level is compared
_GAIN, _BIAS, _NOISE = 0.85, 12.0, 6.0


@dataclass(frozen=True)
class Case:
    """How the moving section lies to the fixed one."""

    name: str
    turn_deg: float = 0.0
    is_mirrored: bool = False
    is_inverted: bool = False
    overlap: float | None = None
    """Share of each section's area that the other one shows too; None: all that the turn leaves."""


CASES = (
    *(Case(f"turned {turn:g} degrees", turn) for turn in (0.0, 3.0, 17.0, 90.0, 179.0)),
    Case("mirrored", is_mirrored=True),
    Case("mirrored and turned 17 degrees", 17.0, is_mirrored=True),
    Case("inverted contrast", is_inverted=True),
    Case("inverted contrast and turned 90 degrees", 90.0, is_inverted=True),
    *(Case(f"{share:.0%} overlap", overlap=share) for share in (0.8, 0.6, 0.5, 0.4, 0.3, 0.2)),
    Case("60% overlap and turned 90 degrees", 90.0, overlap=0.6),
    Case("no overlap", overlap=0.0),
)


class Pair(NamedTuple):
    """Two sections and where the tissue of the first lies in the second."""

    fixed: Image
    moving: Image
    truth: Affine
    """Px of the fixed to px of the moving section."""


class Outcome(NamedTuple):
    """What was made of a pair."""

    found: PairAffine | None
    is_mirrored: bool
    error_px: float
    """Median over the tissue that both show, px at mip 0; NaN if nothing was found."""


def make_pair(first: Image, second: Image, case: Case, *, seed: int = 0) -> Pair:
    """Lay `second` as the case says; it gets another gain, offset and noise.

    Both are uint8 (y, x) of one shape, in register.
    """
    grey = second.astype(np.float32) * _GAIN + _BIAS
    grey += np.random.default_rng(seed).normal(0, _NOISE, second.shape).astype(np.float32)
    grey = np.clip(grey, 1, 254)
    grey = 255 - grey if case.is_inverted else grey
    nx = first.shape[1]
    fixed, here = first, np.eye(2, 3)
    if case.overlap is not None:
        width = int(nx / (2 - case.overlap))
        fixed, grey = first[:, :width], grey[:, nx - width :]
        here[1, 2] = -(nx - width)
    if case.is_mirrored:
        grey = np.ascontiguousarray(grey[:, ::-1])
        here = compose_affines(mirror(grey.shape[1]), here)
    angle = math.radians(case.turn_deg)
    linear = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = (np.array(grey.shape) - 1) / 2
    turn = np.column_stack([linear, centre - linear @ centre])
    if case.turn_deg % 90 == 0:
        # The frame turns with the tissue, as on the microscope: no corner is lost.
        quarters = round(case.turn_deg / 90) % 4
        turned = np.rot90(grey, quarters)
        back = (np.array(turned.shape) - 1) / 2
        turn = np.column_stack([np.rint(linear), back - np.rint(linear) @ centre])
        _check_turn(grey, turned, turn)
        return Pair(fixed.copy(), np.rint(turned).astype(np.uint8), compose_affines(turn, here))
    moved = pull(grey, invert_affine(turn), grey.shape)
    shown = pull(np.ones_like(grey), invert_affine(turn), grey.shape) > 0.99
    return Pair(fixed.copy(), np.rint(moved * shown).astype(np.uint8), compose_affines(turn, here))


def register(pair: Pair) -> Outcome:
    """Find the place of a pair as the coarse stage does: plainly, then mirrored."""
    (fixed, moving), mip = compared((pair.fixed, pair.moving))
    valid = [estimate_valid(image, MasksConfig())[0] for image in (fixed, moving)]
    found = estimate_pair(fixed, moving, *valid, CoarseConfig(), mip=mip)
    is_mirrored = found is None
    if found is None:
        found = estimate_mirrored_pair(fixed, moving, *valid, CoarseConfig(), mip=mip)
    if found is None:
        return Outcome(None, False, math.nan)
    return Outcome(found, is_mirrored, error_px(found.matrix, pair))


def compared(sections: Iterable[Image]) -> tuple[list[Image], int]:
    """Return sections at the mip at which the coarse stage compares them, and that mip."""
    images, mip = list(sections), 0
    while mip < CoarseConfig().mip and min(n for i in images for n in i.shape) >= 2 * _SMALLEST_PX:
        images = [_half(image) for image in images]
        mip += 1
    return images, mip


def error_px(matrix: Affine, pair: Pair) -> float:
    """Return the median distance to the truth over the tissue that both sections show."""
    grid = np.stack(np.mgrid[8 : pair.fixed.shape[0] : 16, 8 : pair.fixed.shape[1] : 16], -1)
    points = grid.reshape(-1, 2).astype(np.float64)
    goal = apply_affine(pair.truth, points)
    shown = ((goal >= 0) & (goal < pair.moving.shape)).all(axis=1)
    if not shown.any():
        return math.inf
    return float(np.median(np.hypot(*(apply_affine(matrix, points) - goal)[shown].T)))


def between(first: Image, second: Image, case: Case) -> Affine:
    """Return where two neighbours of a stack lie to each other, without what the case does to them.

    The stacks' own alignment is off by some px, differently in every part. So the tissue that both
    sections show in the case is compared, as it came; all of it where that is too little.
    """
    here = np.eye(2, 3)
    shown = 0 if case.overlap is None else first.shape[1] - int(first.shape[1] / (2 - case.overlap))
    for margin in (shown, 0):
        part = np.s_[:, margin : first.shape[1] - margin]
        found = (
            register(Pair(first[part], second[part], here)).found if _fits(first[part]) else None
        )
        if found is not None:
            here[1, 2] = margin
            there = compose_affines(found.matrix, invert_affine(here))
            return compose_affines(here, there)
    raise ValueError("the two sections do not match as they are")


def _fits(part: Image) -> bool:
    return min(part.shape) >= 2 * MIN_SIDE_PX


def _half(image: Image) -> Image:
    ny, nx = (n // 2 * 2 for n in image.shape)
    return downsample(np.ascontiguousarray(image[np.newaxis, :ny, :nx]))[0]


def _check_turn(before: NDArray[np.float32], after: NDArray[np.float32], turn: Affine) -> None:
    at = np.array([[3.0, 5.0]])
    y, x = np.rint(apply_affine(turn, at))[0].astype(int)
    if before[3, 5] != after[y, x]:
        raise AssertionError("the turned frame does not show what its affine says")
