"""How sure a match is: the probability that it is right to within a pixel of mip 0.

A logistic regression on statistics of the match and of its neighbourhood [1]_, then a monotone
curve that makes the result a frequency (isotonic regression [2]_). Both were fitted on tissue whose
displacement is known; ``confidence.json`` holds the numbers, what they were fitted on, and the
command that made them.

References
----------
.. [1] J. Platt, "Probabilistic outputs for support vector machines", Advances in Large Margin
   Classifiers, 1999: a logistic curve makes a score a probability.
.. [2] B. Zadrozny, C. Elkan, "Transforming classifier scores into accurate multiclass probability
   estimates", KDD 2002.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.confidence_model import Model, shipped_model
from alignment.config import FilterConfig
from alignment.errors import ShapeError
from alignment.filter import Judged, Reason
from alignment.match import CHANNELS, local_median
from alignment.neighbourhood import RADIUS_NODES, deviation, known_neighbours, strain

Floats = NDArray[np.float32]

RIGHT_PX = 1.0
"""A match nearer than this to the truth is right, px at mip 0."""
_LARGEST_ERROR_PX = 1.1
"""Standard error of a match without any confidence, for the solver; each tenth takes 0.1 px off."""

STATISTICS = (
    "score",
    "rival",
    "r_delta_5",
    "r_delta_10",
    "r_delta_15",
    "sharpness",
    "mirror",
    "ridge",
    "overlap",
    "spread",
    "deviation",
    "roughness",
    "strain",
    "neighbours",
    "cycle",
    "cycles",
    "open",
)
"""What the probability is made of; `statistics` says how each is had from a match."""


def confidence(
    matches: Floats,
    *,
    spacing_px: float,
    cycle_px: Floats | None = None,
    model: Model | None = None,
) -> Floats:
    """Return the probability that each match is right to within `RIGHT_PX`.

    Parameters
    ----------
    matches : float32 ndarray of shape (len(CHANNELS), ny, nx)
        Of one pair of sections; NaN where there is none.
    spacing_px : float
        Distance of the nodes, px at mip 0.
    cycle_px : float32 ndarray of shape (ny, nx), optional
        How far the match is from the way over a third section; NaN where there is none.
    model : Model, optional
        `shipped_model` by default.

    Returns
    -------
    float32 ndarray of shape (ny, nx)
        0..1; NaN where there is no match.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    """
    used = model or shipped_model()
    logit = np.tensordot(
        [used.weights[name] for name in STATISTICS],
        statistics(matches, spacing_px=spacing_px, cycle_px=cycle_px),
        axes=1,
    )
    found = np.interp(logit + used.bias, used.logits, used.probabilities)
    return np.where(np.isnan(matches[0]), np.float32(np.nan), found.astype(np.float32))


def reject_unsure(
    judged: Judged, *, spacing_px: float, config: FilterConfig, model: Model | None = None
) -> tuple[Judged, Floats]:
    """Reject the matches that are less sure than `min_confidence`, and say how sure the others are.

    Parameters
    ----------
    judged : Judged
        What the other filters leave of one pair of sections.
    spacing_px : float
        Distance of the nodes, px at mip 0.
    config : FilterConfig
        `min_confidence`.
    model : Model, optional
        `shipped_model` by default.

    Returns
    -------
    judged : Judged
        `Reason.CONFIDENCE` where rejected.
    sure : float32 ndarray of shape (ny, nx)
        The confidence of the matches that are left; NaN elsewhere.
    """
    sure = confidence(judged.matches, spacing_px=spacing_px, cycle_px=judged.cycle_px, model=model)
    with np.errstate(invalid="ignore"):
        unsure = sure < config.min_confidence
    nan = np.float32(np.nan)
    left = Judged(
        np.where(unsure, nan, judged.matches),
        judged.reasons | np.where(unsure, np.uint16(Reason.CONFIDENCE), np.uint16(0)),
        np.where(unsure, nan, judged.cycle_px),
    )
    return left, np.where(unsure, nan, sure)


def solver_weight(sure: Floats) -> Floats:
    """Return the weight in the solver of matches of some confidence p: 1 / (1.1 - p)^2, 0.8 to 100.

    A weight is an inverse variance. The standard error of a match is taken to fall in a line, from
    1.1 px for one that has nothing for it to 0.1 px for one that is surely right. So sheets follow
    matches to the tenth of a pixel where tissue is the same from section to section, and resist
    them where it changes, whose confidence is low: changed tissue agrees with itself, and neither
    neighbours nor cycles give it away.

    Parameters
    ----------
    sure : float32 ndarray
        As `confidence` gives it; NaN stays.

    Examples
    --------
    >>> solver_weight(np.array([0.1, 0.6, 1], np.float32)).round(3)
    array([  1.,   4., 100.], dtype=float32)
    """
    return np.asarray((np.float32(_LARGEST_ERROR_PX) - sure) ** -2, np.float32)


def statistics(
    matches: Floats, *, spacing_px: float, cycle_px: Floats | None = None
) -> NDArray[np.float64]:
    """Return what is known of each match, on scales on which a pixel of error is about a line.

    Parameters
    ----------
    matches, spacing_px, cycle_px
        As for `confidence`.

    Returns
    -------
    float64 ndarray of shape (len(STATISTICS), ny, nx)
        - score: its inverse hyperbolic tangent, on which a correlation's noise is the same at all
          scores (Fisher).
        - rival: second peak over best, 0 where there is none.
        - r_delta_5, r_delta_10, r_delta_15, sharpness, mirror, overlap: as the channels.
        - ridge: logarithm of tr^2 / (4 det), 0 where the peak is round.
        - spread: logarithm of the standard deviation that the covariance gives, px.
        - deviation: logarithm of the distance from what the neighbours suggest, px + 0.1.
        - roughness: the same of the median distance over 5 x 5 nodes: how wrong matches are here.
        - strain: logarithm of the median movement against the neighbours, px per px + 0.003.
        - neighbours: share of the 5 x 5 nodes around that have a match.
        - cycle: logarithm of the cycle error, px + 0.1; as `cycles` where there is none.
        - cycles: the same of the median over 5 x 5 nodes; 0 where there is none.
        - open: 1 where no cycle is near, else 0.
    """
    _check(matches, cycle_px)
    channel = dict(zip(CHANNELS, matches.astype(np.float64), strict=True))
    shift = matches[:2]
    if cycle_px is None:
        cycle_px = np.full(shift.shape[1:], np.nan, np.float32)
    off = deviation(shift)
    around = local_median(np.stack([off, cycle_px]), RADIUS_NODES)
    cycles = np.log(around[1] + 0.1)
    cycle = np.where(np.isnan(cycle_px), cycles, np.log(cycle_px + 0.1))
    variance = (channel["cov_yy"] + channel["cov_xx"]) / 2
    made = {
        "score": np.arctanh(np.clip(channel["score"], 0, 0.995)),
        "rival": 1 / np.maximum(channel["peak_ratio"], 1),
        "sharpness": np.clip(channel["sharpness"], 0, 2),
        "ridge": np.log(np.clip(channel["curvature_ratio"] / 4, 1, 100)),
        "spread": np.log(np.clip(variance, 1e-4, 1e4)) / 2,
        "deviation": np.log(off + 0.1),
        "roughness": np.log(around[0] + 0.1),
        "strain": np.log(np.nan_to_num(strain(shift, spacing_px), nan=1.0) + 0.003),
        "neighbours": known_neighbours(shift),
        "cycle": np.nan_to_num(cycle),
        "cycles": np.nan_to_num(cycles),
        "open": np.isnan(cycles).astype(np.float64),
    }
    return np.stack([made.get(name, channel.get(name, shift[0])) for name in STATISTICS])


def _check(matches: Floats, cycle_px: Floats | None) -> None:
    if matches.ndim != 3 or len(matches) != len(CHANNELS):
        raise ShapeError(
            f"matches must have shape ({len(CHANNELS)}, ny, nx), channels {', '.join(CHANNELS)}; "
            f"got {matches.shape}"
        )
    if cycle_px is not None and cycle_px.shape != matches.shape[1:]:
        raise ShapeError(f"cycle_px must have shape {matches.shape[1:]}, got {cycle_px.shape}")
