"""Coarse transforms: one affine per pair of sections, found without any idea of where they lie.

Neighbouring sections may be turned by any angle, shifted by half their size, inverted in contrast
and damaged. `alignment.proposals` proposes where they might fit. Here every proposal is refined by
the shifts of many small blocks, coarse to fine, and judged by one measure: how far the correlation
at the refined place stands out of the correlation everywhere else. Unrelated images have such peaks
too, but never high ones, so a wrong place is refused rather than passed on.

`alignment.placement` makes one affine per section out of the pairs.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.affines import Affine, affine_to_mip, compose_affines
from alignment.blockfit import Level
from alignment.comparison import LEVELS, WORTH_REFINING, Comparison, between_views
from alignment.config import CoarseConfig
from alignment.mirrors import mirror
from alignment.placement import StackSolution, fit_canvas, solve_stack
from alignment.posefit import PairAffine
from alignment.proposals import DECISIVE, Proposal, feature_search, rotation_search
from alignment.views import Correlator, warped

__all__ = [
    "PairAffine",
    "StackSolution",
    "estimate_mirrored_pair",
    "estimate_pair",
    "fit_canvas",
    "solve_stack",
]

MIN_SIGNIFICANCE = 8.0
"""Least peak over noise, in standard deviations, of a place that is believed.

Of 613 pairs of unrelated EM images, parts of one stack among them, the best that met the other
conditions reached 7.5. Of 75 pairs of true neighbours out of five stacks, turned at random, one of
2 um of tissue had 7.0 and the others 8.3 to 44, with a median of 22.
"""
MIN_SIDE_PX = 64
"""Sections with a shorter side than this, where they are compared, hold too little to compare."""

_FEATURE_BAND = (640, 2.0, 24.0)  # side, sigma fine and coarse, px: features choose their own scale

_HERE_PX = 3  # a peak this near is the peak of the place itself


class _Fit(NamedTuple):
    """A proposal, refined."""

    matrix: Affine
    """Takes px of the fixed section to px of the moving one, at the mip of the images."""
    inliers: int
    proposal: Proposal


def estimate_pair(
    fixed: NDArray[np.uint8],
    moving: NDArray[np.uint8],
    fixed_valid: NDArray[np.bool_],
    moving_valid: NDArray[np.bool_],
    config: CoarseConfig,
    *,
    mip: int,
) -> PairAffine | None:
    """Find where the tissue of one section lies in another.

    Correlation at every angle and, unless that is decisive, matching features propose places. Each
    is refined at a side of 144 px; the most significant one at up to 384 and 1024 px. It is
    believed if its correlation at 144 px stands out by `MIN_SIGNIFICANCE`, on at least a fifth of
    the smaller section's tissue; if ``config.min_inliers`` blocks agree with it by themselves; and
    if it turns and stretches no more than the configuration allows.

    Sections of opposite contrast are matched like others; for mirrored ones see
    `estimate_mirrored_pair`.

    Parameters
    ----------
    fixed, moving : uint8 ndarray of shape (y, x)
        Sections at `mip`; they may differ in shape.
    fixed_valid, moving_valid : bool ndarray of the same shapes
        True where tissue may be used.
    config : CoarseConfig
        Limits of what is believed.
    mip : int
        Level of the images.

    Returns
    -------
    PairAffine or None
        Px of the fixed to px of the moving section, both at mip 0; its score is the masked
        zero-normalised cross-correlation of the band-passed sections there, at 144 px. None if no
        place is credible: blank or foreign sections, too small ones, too little overlap.

    Raises
    ------
    ShapeError
        If a section is not a 2-D uint8 image or its `valid` has another shape.

    Notes
    -----
    Deterministic: the only random choice, of feature pairs, is seeded.
    """
    pair = Comparison((fixed, fixed_valid), (moving, moving_valid))
    if min(*fixed.shape, *moving.shape) < MIN_SIDE_PX:
        return None
    start = pair.level(LEVELS[0], is_inverted=False)
    if not all(view.image.any() for view in start):
        return None
    best = _best_start(pair, config)
    for coarser, level in pairwise(LEVELS):
        if best is not None and pair.side_px > WORTH_REFINING * coarser.side_px:
            best = _refined(pair, best.proposal, best.matrix, level)
    if best is None or best.inliers < config.min_inliers or not _is_allowed(best.matrix, config):
        return None
    score = pair.correlation(best.matrix, LEVELS[0], is_inverted=best.proposal.is_inverted)
    if score <= 0 or _significance(pair, best) < MIN_SIGNIFICANCE:
        return None
    method = best.proposal.method + (", inverted" if best.proposal.is_inverted else "")
    return PairAffine(affine_to_mip(best.matrix, -mip), score, best.inliers, method)


def estimate_mirrored_pair(
    fixed: NDArray[np.uint8],
    moving: NDArray[np.uint8],
    fixed_valid: NDArray[np.bool_],
    moving_valid: NDArray[np.bool_],
    config: CoarseConfig,
    *,
    mip: int,
) -> PairAffine | None:
    """Find where the tissue of one section lies in another that was taken the wrong side up.

    The mirror image of the moving section is compared as by `estimate_pair`, which see; the affine
    that is returned leads to the section as it is, so its determinant is negative.
    """
    found = estimate_pair(
        fixed,
        np.ascontiguousarray(moving[:, ::-1]),
        fixed_valid,
        np.ascontiguousarray(moving_valid[:, ::-1]),
        config,
        mip=mip,
    )
    if found is None:
        return None
    matrix = compose_affines(mirror(moving.shape[1] << mip), found.matrix)
    return replace(found, matrix=matrix, method=found.method + ", mirrored")


def _best_start(pair: Comparison, config: CoarseConfig) -> _Fit | None:
    """Return the most significant of all proposals, refined at the coarsest level."""
    fits: list[tuple[float, _Fit]] = []

    def weigh(proposals: list[Proposal]) -> None:
        for proposal in proposals:
            fit = _refined(pair, proposal, proposal.matrix, LEVELS[0])
            if fit is not None and _is_allowed(fit.matrix, config):
                fits.append((_significance(pair, fit), fit))

    views = pair.level(LEVELS[0], is_inverted=False)
    weigh(rotation_search(*views, max_rotation_deg=config.max_rotation_deg))
    if max((significance for significance, _ in fits), default=0.0) < DECISIVE:
        weigh(
            feature_search(
                *pair.views(*_FEATURE_BAND),
                max_rotation_deg=config.max_rotation_deg,
                max_scale_change=config.max_scale_change,
            )
        )
    return max(fits, key=lambda weighed: weighed[0])[1] if fits else None


def _refined(pair: Comparison, proposal: Proposal, matrix: Affine, level: Level) -> _Fit | None:
    found = pair.refined(matrix, level, is_inverted=proposal.is_inverted)
    return None if found is None else _Fit(*found, proposal)


def _is_allowed(matrix: Affine, config: CoarseConfig) -> bool:
    linear = matrix[:, :2]
    stretches = np.linalg.svd(linear, compute_uv=False)
    angle = math.degrees(math.atan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))
    return bool(
        np.linalg.det(linear) > 0
        and np.abs(stretches - 1).max() <= config.max_scale_change
        and abs(angle) <= config.max_rotation_deg
    )


def _significance(pair: Comparison, fit: _Fit) -> float:
    """Return the correlation at a place, in standard deviations of the correlation elsewhere."""
    fixed, moving = pair.level(LEVELS[0], is_inverted=fit.proposal.is_inverted)
    shape = fixed.image.shape
    image, covered = warped(moving, between_views(fit.matrix, fixed, moving), shape)
    correlator = Correlator(fixed, shape)
    surface = correlator(image, covered, float(np.count_nonzero(moving.valid)))
    here = np.roll(surface, (_HERE_PX, _HERE_PX), axis=(0, 1))
    return float(here[: 2 * _HERE_PX + 1, : 2 * _HERE_PX + 1].max())
