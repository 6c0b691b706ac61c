"""Which matches are believed: everything else becomes NaN, each with its reason.

Matches are float32 (14, ny, nx), see `match.CHANNELS`; displacements are px at mip 0. The filters
run in the order of the flags of `Reason`: first those that look at a match alone, then, on what is
left, those that compare it with its neighbours in the section, then the one that compares
sections. What all of this says together of a match is its confidence, see `confidence`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from alignment.bilinear import grid_points, interpolation
from alignment.config import FilterConfig
from alignment.errors import ShapeError
from alignment.match import CHANNELS
from alignment.neighbourhood import deviation, expected, length, node_pairs

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


class Reason(IntFlag):
    """Why a match is not believed; a match can have several reasons. 0: believed, or no match."""

    SCORE = 1
    PEAK_RATIO = 2
    R_DELTA = 4
    SHARPNESS = 8
    MIRROR = 16
    CURVATURE = 32
    MEDIAN = 64
    STRAIN = 128
    COMPONENT = 256
    CYCLE = 512
    CONFIDENCE = 1024
    DAMAGE = 2048


def reject_outliers(
    matches: Floats, *, spacing_px: int, config: FilterConfig
) -> tuple[Floats, NDArray[np.uint16]]:
    """Reject the matches of one pair of sections that are weak, ambiguous or out of line.

    In this order:

    1. `SCORE`, `PEAK_RATIO`, `R_DELTA`, `SHARPNESS`, `MIRROR`, `CURVATURE`: a channel beyond its
       limit. A match is tested for all of them.
    2. `MEDIAN`: too far from the median of the other matches of its 5 x 5 nodes, by component.
    3. `STRAIN`: out of step with more than half of its (up to 8) neighbours, that is, displaced
       against them by more than `max_strain` times their distance.
    4. `COMPONENT`: in an island of fewer than `min_component_nodes`, islands being the nodes that
       are linked through neighbours in step with each other.

    Unknown and rejected neighbours are left out of every comparison, never taken for 0. A match
    without any neighbour passes 2 and 3, and falls to 4.

    Parameters
    ----------
    matches : float32 ndarray of shape (len(CHANNELS), ny, nx)
        As `match.match_block` gives them for all nodes of the pair.
    spacing_px : int
        Distance of the nodes, px at mip 0.
    config : FilterConfig
        The limits.

    Returns
    -------
    trusted : float32 ndarray of shape (len(CHANNELS), ny, nx)
        The matches, NaN in all channels where rejected.
    reasons : uint16 ndarray of shape (ny, nx)
        `Reason` flags.

    Raises
    ------
    ShapeError
        If `matches` has another number of channels.
    """
    _check(matches, "matches")
    matched = ~np.isnan(matches[0])
    channel = dict(zip(CHANNELS, matches, strict=True))
    with np.errstate(invalid="ignore"):
        weak = {
            Reason.SCORE: channel["score"] < config.min_score,
            Reason.PEAK_RATIO: channel["peak_ratio"] < config.min_peak_ratio,
            Reason.R_DELTA: channel["r_delta_5"] < config.min_r_delta,
            Reason.SHARPNESS: channel["sharpness"] < config.min_sharpness,
            Reason.MIRROR: channel["mirror"] < config.min_mirror,
            Reason.CURVATURE: channel["curvature_ratio"] > config.max_curvature_ratio,
        }
    reasons = np.zeros(matched.shape, np.uint16)
    for reason, nodes in weak.items():
        _flag(reasons, matched & nodes, reason)

    shift = _where(matched & (reasons == 0), matches[:2])
    with np.errstate(invalid="ignore"):
        _flag(reasons, deviation(shift) > config.max_median_deviation_px, Reason.MEDIAN)
    shift = _where(reasons == 0, shift)
    _flag(reasons, _out_of_step(shift, spacing_px * config.max_strain), Reason.STRAIN)
    shift = _where(reasons == 0, shift)
    small = _component_sizes(shift, spacing_px * config.max_strain) < config.min_component_nodes
    _flag(reasons, small & ~np.isnan(shift[0]), Reason.COMPONENT)
    return _where(reasons == 0, matches), reasons


def reject_cycles(
    near: Floats, link: Floats, far: Floats, *, spacing_px: int, config: FilterConfig
) -> tuple[Floats, Floats, NDArray[np.uint16], NDArray[np.uint16]]:
    """Reject matches of a section that its two ways to an earlier section contradict.

    `near` leads from section z to a nearer one and `link` from there to a farther one; `far` leads
    from z to the farther one directly. Where ``near(p) + link(p + near(p))`` is further than
    `max_cycle_px` from ``far(p)``, at least one of the three is wrong. Each is in turn replaced by
    the median of its neighbours (5 x 5 nodes, itself left out): the one whose replacement closes
    the cycle best, to within `max_cycle_px`, is to blame. If none closes it, the wrong match has
    wrong neighbours, and the least certain of the three, by its covariance, is blamed.

    The link is never rejected here, even if it is to blame. It is judged as `near` or `far` of its
    own section, with other witnesses, so that sections can be judged one by one, in any order.

    Parameters
    ----------
    near, link, far : float32 ndarray of shape (len(CHANNELS), ny, nx)
        Trusted matches z to z - a, z - a to z - b, and z to z - b, at the same nodes; NaN where
        there is none. Where one of the three is missing there is no cycle and nothing is rejected.
    spacing_px : int
        Distance of the nodes, px at mip 0.
    config : FilterConfig
        `max_cycle_px`.

    Returns
    -------
    near, far : float32 ndarray of shape (len(CHANNELS), ny, nx)
        The matches, NaN in all channels where rejected.
    near_reasons, far_reasons : uint16 ndarray of shape (ny, nx)
        `Reason.CYCLE` where rejected, else 0.
    """
    for name, matches in (("near", near), ("link", link), ("far", far)):
        _check(matches, name)
        if matches.shape != near.shape:
            raise ShapeError(
                f"{name} must have the nodes of near {near.shape}, got {matches.shape}"
            )
    limit = config.max_cycle_px
    broken = length(cycle_error(near, link, far, spacing_px=spacing_px)) > limit
    replaced = (
        (expected(near[:2]), link, far),
        (near, link, expected(far[:2])),
        (near, expected(link[:2]), far),
    )
    left = np.stack([length(cycle_error(*three, spacing_px=spacing_px)) for three in replaced])
    left = np.where(np.isnan(left), np.float32(np.inf), left)
    link_variance = _along(near, _variance(link)[np.newaxis], spacing_px)[0]
    variance = np.nan_to_num(np.stack([_variance(near), _variance(far), link_variance]))
    blame = np.where(left.min(0) <= limit, left.argmin(0), variance.argmax(0))
    result = []
    for k, matches in enumerate((near, far)):
        blamed = broken & (blame == k)
        reasons = np.zeros(blamed.shape, np.uint16)
        _flag(reasons, blamed, Reason.CYCLE)
        result.append((_where(~blamed, matches), reasons))
    return result[0][0], result[1][0], result[0][1], result[1][1]


def cycle_error(near: Floats, link: Floats, far: Floats, *, spacing_px: int) -> Floats:
    """How far the way over the nearer section ends from the direct one.

    Parameters
    ----------
    near, link, far : float32 ndarray of shape (2 or more, ny, nx)
        As for `reject_cycles`; only dy and dx are used.
    spacing_px : int
        Distance of the nodes, px at mip 0.

    Returns
    -------
    float32 ndarray of shape (2, ny, nx)
        ``near(p) + link(p + near(p)) - far(p)``, px at mip 0, the link bilinear between its nodes;
        NaN where one of the three, or one of the link's four nodes, is missing.
    """
    return near[:2] + _along(near, link[:2], spacing_px) - far[:2]


@dataclass(frozen=True)
class Judged:
    """What the filters leave of the matches of one pair of sections."""

    matches: Floats
    """(len(CHANNELS), ny, nx); NaN in all channels where rejected."""
    reasons: NDArray[np.uint16]
    """(ny, nx): `Reason` flags."""
    cycle_px: Floats
    """(ny, nx): how far the match is from the best agreeing way over a third section, that is, the
    least length of a `cycle_error` that it takes part in as near or far, px at mip 0; NaN where
    there is no such way."""


def judge_section(
    own: Mapping[int, Floats],
    links: Mapping[tuple[int, int], Floats],
    *,
    spacing_px: int,
    config: FilterConfig,
) -> dict[int, Judged]:
    """Run all filters over the matches of one section.

    Parameters
    ----------
    own : mapping of int to float32 ndarray of shape (len(CHANNELS), ny, nx)
        Matches of section z with z - d, by d.
    links : mapping of (int, int) to float32 ndarray of shape (len(CHANNELS), ny, nx)
        Matches of section z - near with z - far, by (near, far), both of which are in `own`: they
        close cycles.
    spacing_px : int
        Distance of the nodes, px at mip 0.
    config : FilterConfig
        The limits.

    Returns
    -------
    dict of int to Judged
        By d. A section's answer does not depend on what is rejected of another's.
    """
    alone = {
        d: reject_outliers(matches, spacing_px=spacing_px, config=config)
        for d, matches in own.items()
    }
    kept = {d: matches for d, (matches, _) in alone.items()}
    reasons = {d: flags for d, (_, flags) in alone.items()}
    trusted_links = {
        pair: reject_outliers(matches, spacing_px=spacing_px, config=config)[0]
        for pair, matches in links.items()
    }
    for (near, far), link in trusted_links.items():
        kept[near], kept[far], near_flags, far_flags = reject_cycles(
            kept[near], link, kept[far], spacing_px=spacing_px, config=config
        )
        reasons[near] = reasons[near] | near_flags
        reasons[far] = reasons[far] | far_flags
    cycle_px = {d: np.full(m.shape[1:], np.nan, np.float32) for d, m in kept.items()}
    for (near, far), link in trusted_links.items():
        error = length(cycle_error(kept[near], link, kept[far], spacing_px=spacing_px))
        for d in (near, far):
            cycle_px[d] = np.fmin(cycle_px[d], error)
    return {d: Judged(kept[d], reasons[d], cycle_px[d]) for d in kept}


def leave_out(judged: Judged, at_damage: NDArray[np.bool_]) -> Judged:
    """Name what was left out because it lies at damaged tissue, and had no match when judged."""
    return Judged(
        judged.matches,
        judged.reasons | np.where(at_damage, np.uint16(Reason.DAMAGE), np.uint16(0)),
        judged.cycle_px,
    )


def count_reasons(reasons: NDArray[np.uint16]) -> dict[str, int]:
    """Count the rejected matches by filter, each by the first filter that rejects it.

    >>> count_reasons(np.array([[0, 1], [5, 4]], np.uint16))["SCORE"]
    2
    """
    first = reasons & (~reasons + np.uint16(1))
    return {reason.name or "": int(np.count_nonzero(first == reason)) for reason in Reason}


def _check(matches: Floats, name: str) -> None:
    if matches.ndim != 3 or matches.shape[0] != len(CHANNELS):
        raise ShapeError(
            f"{name} must have shape ({len(CHANNELS)}, ny, nx), channels {', '.join(CHANNELS)}; "
            f"got {matches.shape}"
        )


def _flag(reasons: NDArray[np.uint16], nodes: Bools, reason: Reason) -> None:
    reasons[nodes] |= np.uint16(reason)


def _where(nodes: Bools, values: Floats) -> Floats:
    return np.where(nodes, values, np.float32(np.nan))


def _along(near: Floats, values: Floats, spacing_px: int) -> Floats:
    """Values (c, ny, nx) of the nearer section where the matches of `near` end."""
    _, ny, nx = near.shape
    known = ~np.isnan(near[0])
    ends = (grid_points(ny, nx, spacing_px) + near[:2].reshape(2, -1).T)[known.ravel()]
    nodes, shares = interpolation((ny, nx), spacing_px, ends)
    result = np.full(values.shape, np.nan, np.float32)
    result[:, known] = (values.reshape(len(values), -1)[:, nodes] * shares).sum(-1)
    return result


def _variance(matches: Floats) -> Floats:
    """Mean variance of dy and dx, px^2."""
    return (matches[CHANNELS.index("cov_yy")] + matches[CHANNELS.index("cov_xx")]) / 2


def _out_of_step(shift: Floats, limit_px: float) -> Bools:
    """Nodes that more than half of their neighbours contradict."""
    against = np.zeros(shift.shape[1:], np.int8)
    known = np.zeros(shift.shape[1:], np.int8)
    for one, other, distance in node_pairs(shift.shape[1:]):
        size = length(shift[:, *one] - shift[:, *other])
        for nodes in (one, other):
            known[nodes] += ~np.isnan(size)
            with np.errstate(invalid="ignore"):
                against[nodes] += size > limit_px * distance
    return 2 * against > known


def _component_sizes(shift: Floats, limit_px: float) -> NDArray[np.intp]:
    """Nodes in the island of each node; 1 where the node itself is unknown."""
    index = np.arange(shift[0].size).reshape(shift.shape[1:])
    links = []
    for one, other, distance in node_pairs(shift.shape[1:]):
        with np.errstate(invalid="ignore"):
            in_step = length(shift[:, *one] - shift[:, *other]) <= limit_px * distance
        links.append((index[one][in_step], index[other][in_step]))
    heads, tails = (np.concatenate(ends) for ends in zip(*links, strict=True))
    graph = coo_array((np.ones(heads.size, np.int8), (heads, tails)), (index.size, index.size))
    _, label = connected_components(graph, directed=False)
    sizes: NDArray[np.intp] = np.bincount(label)[label].reshape(index.shape)
    return sizes
