"""A second look at a pair of sections, one of them warped by what the first look found.

A template that lies on deformed tissue cannot match all over at once: its answer is biased, and a
larger template, which should be more certain, is worse. So the fixed section is pulled by the
smoothed first answer g, matched again in a small search window with a larger template, and the two
displacements are composed: the tissue at p of the moving section lies at ``q + g(q)`` of the fixed
one, where ``q = p + m`` is its place in the pulled section. FEABAS refines its meshes in the same
rounds of match, relax and re-render; here a round costs one warp and stays within its pair.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.config import MatchConfig, MatchLevel
from alignment.fields import Field, evaluate
from alignment.match import (
    CHANNELS,
    NodeBox,
    Patch,
    grid_spacing_px,
    match_block,
)
from alignment.neighbourhood import RADIUS_NODES, deviation

Floats = NDArray[np.float32]
Kernel = NDArray[np.float64]

FAR_SIGMAS = 4.0
"""Where matches are far, a Gaussian this much wider carries their displacement over."""
REACH_SIGMAS = 3.0
LEAST_WEIGHT = 0.05
"""Share of a Gaussian's weight on matched nodes below which the wider one takes over."""

NARROW = 0.45
"""A second Gaussian, this much narrower, keeps detail where matches are precise."""
NOISE_LEFT = 0.4
"""Share of a match's variance that the difference of the two fits still has."""

_LEAST_SCORE = 0.2  # a fainter match does not guide
_OUTLIER_STRAIN = 0.06  # per node spacing: a match this far out of line counts a half
_SLOPE_PRIOR = 0.02  # of the Gaussian's variance; few nodes, or one-sided ones, tell no slope


def single_level(config: MatchConfig, level: MatchLevel) -> MatchConfig:
    """Return the configuration of a round, which has one level and is not refined."""
    return config.model_copy(update={"levels": (level,), "refine": ()})


def match_again(
    fixed: Patch,
    moving: Patch,
    guide: Field,
    first_node: tuple[int, int],
    node_box: NodeBox,
    grid_shape: tuple[int, int],
    config: MatchConfig,
) -> Floats:
    """Match the nodes of one block against the fixed section as a guide warps it.

    Parameters
    ----------
    fixed, moving : Patch
        Of the round's mip. The fixed one must reach beyond the halo by the longest displacement
        of the guide.
    guide : float32 ndarray of shape (2, ny, nx)
        As `smooth_guide` gives it, px at mip 0.
    first_node : (i, j)
        Which node of the grid the guide begins with.
    node_box, grid_shape
        As for `match.match_block`.
    config : MatchConfig
        Of this round, see `single_level`.

    Returns
    -------
    float32 ndarray of shape (len(CHANNELS), i1 - i0, j1 - j0)
        Matches of the moving section with the fixed one as it is, by `match.CHANNELS`.
    """
    spacing, mip = grid_spacing_px(config), fixed.mip
    pulled = pull(fixed, guide, first_node, spacing)
    matches = match_block({mip: pulled}, {mip: moving}, node_box, grid_shape, config)
    return add_guide(matches, guide, node_box[0], first_node, spacing)


def reach_nodes(sigma_nodes: float) -> int:
    """Return how many nodes beyond a block its smoothed guide depends on."""
    return int(np.ceil(FAR_SIGMAS * REACH_SIGMAS * sigma_nodes)) + 2 * RADIUS_NODES + 1


def smooth_guide(matches: Floats, sigma_nodes: float, *, spacing_px: int) -> Field:
    """Return a smooth displacement at every node from matches with holes and outliers.

    A weighted local fit of an affine displacement [1]_ at every node. A mean would be pulled
    inwards wherever the matches lie to one side of a node, at the section's edge and at holes, by
    the slope times the distance to their middle: several px, which the next round, whose templates
    are one-sided there too, would not find in full.

    Parameters
    ----------
    matches : float32 ndarray of shape (len(CHANNELS), ny, nx)
        As `match.match_block` gives them, px at mip 0; NaN where there is none.
    sigma_nodes : float
        Of the fit's Gaussian, in nodes.
    spacing_px : int
        Distance of the nodes, px at mip 0.

    Returns
    -------
    float32 ndarray of shape (2, ny, nx)
        px at mip 0. A match counts the less the farther it lies from the median of the others
        around it, carried along the local slope. Far from any match the mean of a wider
        neighbourhood, and 0 where there is none.

    References
    ----------
    .. [1] H. Knutsson, C.-F. Westin, "Normalized and differential convolution", CVPR 1993.
    """
    shifts = matches[:2]
    score = matches[CHANNELS.index("score")]
    with np.errstate(invalid="ignore"):
        shifts = np.where(score >= _LEAST_SCORE, shifts, np.float32(np.nan))
    apart = deviation(shifts) / (_OUTLIER_STRAIN * spacing_px)
    weight = np.nan_to_num(1 / (1 + np.square(np.square(apart)))).astype(np.float32)
    shifts = np.nan_to_num(shifts)
    near, near_weight = _local_affine(shifts, weight, sigma_nodes)
    sharp, _ = _local_affine(shifts, weight, NARROW * sigma_nodes)
    near += _signal(sharp - near, _variance(matches), weight, sigma_nodes) * (sharp - near)
    far, far_weight = _local_mean(shifts, weight, FAR_SIGMAS * sigma_nodes)
    share = np.minimum(near_weight / LEAST_WEIGHT, 1)
    guide = share * near + (1 - share) * np.where(far_weight > 0, far, 0)
    return np.asarray(guide, np.float32)


def _variance(matches: Floats) -> Floats:
    """Mean variance of dy and dx, px^2; 0 where there is no match."""
    yy, xx = (matches[CHANNELS.index(name)] for name in ("cov_yy", "cov_xx"))
    return np.nan_to_num((yy + xx) / 2)


def _signal(detail: Floats, variance: Floats, weight: Floats, sigma: float) -> Floats:
    """Share (ny, nx) of the detail's energy that the matches' noise does not account for."""
    (gauss, *_), around = _moments(sigma)
    total = np.maximum(around(weight, gauss, gauss), np.float32(1e-12))
    energy = around(weight * np.square(detail).mean(0), gauss, gauss) / total
    noise = NOISE_LEFT * around(weight * variance, gauss, gauss) / total
    return np.clip(1 - noise / np.maximum(energy, np.float32(1e-12)), 0, 1)


def _local_mean(shifts: Floats, weight: Floats, sigma: float) -> tuple[Floats, Floats]:
    (gauss, *_), around = _moments(sigma)
    total = around(weight, gauss, gauss)
    mean = np.stack([around(weight * shift, gauss, gauss) for shift in shifts])
    mean /= np.maximum(total, np.float32(1e-12))
    return mean, total


def _local_affine(shifts: Floats, weight: Floats, sigma: float) -> tuple[Floats, Floats]:
    """Fit v + slope * offset around every node; return v and the fit's weight."""
    (gauss, first, second), around = _moments(sigma)
    pairs = {
        "1": (gauss, gauss),
        "y": (first, gauss),
        "x": (gauss, first),
        "yy": (second, gauss),
        "yx": (first, first),
        "xx": (gauss, second),
    }
    m = {name: around(weight, *two).astype(np.float64) for name, two in pairs.items()}
    total = np.maximum(m["1"], 1e-12)
    prior = _SLOPE_PRIOR * sigma**2 * total
    normal = np.stack(
        [total, m["y"], m["x"], m["y"], m["yy"] + prior, m["yx"], m["x"], m["yx"], m["xx"] + prior],
        axis=-1,
    ).reshape(*weight.shape, 3, 3)
    right = np.stack(
        [[around(weight * s, *pairs[name]) for name in ("1", "y", "x")] for s in shifts]
    )
    fit = np.linalg.solve(normal, np.moveaxis(right.astype(np.float64), (0, 1), (3, 2)))
    return np.moveaxis(fit[..., 0, :], -1, 0).astype(np.float32), m["1"].astype(np.float32)


def _moments(sigma: float) -> tuple[tuple[Kernel, Kernel, Kernel], Callable[..., Floats]]:
    """Return a Gaussian times 1, offset and its square, and the correlation with two of them."""
    reach = int(np.ceil(REACH_SIGMAS * sigma))
    offset = np.arange(-reach, reach + 1, dtype=np.float64)
    gauss = np.exp(-0.5 * np.square(offset / sigma))
    gauss /= gauss.sum()

    def around(image: Floats, along_y: Kernel, along_x: Kernel) -> Floats:
        blurred = cv2.sepFilter2D(
            image, cv2.CV_32F, along_x, along_y, borderType=cv2.BORDER_CONSTANT
        )
        return np.asarray(blurred, np.float32)

    return (gauss, gauss * offset, gauss * np.square(offset)), around


def pull(fixed: Patch, guide: Field, first_node: tuple[int, int], spacing_px: int) -> Patch:
    """Return the fixed section's patch, warped so that it shows at p what it had at p + g(p).

    Parameters
    ----------
    fixed : Patch
        In the common frame.
    guide : float32 ndarray of shape (2, ny, nx)
        Displacements g at nodes, px at mip 0; clamped outside of them.
    first_node : (i, j)
        Which node of the grid the guide begins with.
    spacing_px : int
        Distance of the nodes, px at mip 0.
    """
    scale = 2.0**fixed.mip
    ny, nx = fixed.features.shape
    # Columns and rows of the guide at the patch's pixels; (p + 0.5) * scale - 0.5 is px at mip 0.
    y, x = (
        (((np.arange(n) + start + 0.5) * scale - 0.5) / spacing_px - first).astype(np.float32)
        for n, start, first in zip((ny, nx), fixed.origin, first_node, strict=True)
    )
    at_x, at_y = np.meshgrid(x, y)
    dy, dx = (
        cv2.remap(part, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for part in guide
    )
    from_y = np.asarray(np.arange(ny)[:, None] + dy / scale, np.float32)
    from_x = np.asarray(np.arange(nx) + dx / scale, np.float32)
    features = cv2.remap(fixed.features, from_x, from_y, cv2.INTER_LINEAR)
    share = cv2.remap(fixed.valid.astype(np.float32), from_x, from_y, cv2.INTER_LINEAR)
    seen = share > 0.99
    return Patch(np.where(seen, features, np.float32(0)), seen, fixed.origin, fixed.mip)


def add_guide(
    matches: Floats,
    guide: Field,
    nodes: tuple[int, int],
    first_node: tuple[int, int],
    spacing_px: int,
) -> Floats:
    """Return matches against the pulled section as matches against the section itself.

    Parameters
    ----------
    matches : float32 ndarray of shape (len(CHANNELS), ny, nx)
        Of nodes that begin with `nodes`, found in the section that `pull` gave.
    guide, first_node, spacing_px
        As given to `pull`.
    """
    _, ny, nx = matches.shape
    i, j = np.mgrid[nodes[0] : nodes[0] + ny, nodes[1] : nodes[1] + nx]
    there = np.stack([i, j]).astype(np.float64) - np.reshape(first_node, (2, 1, 1))
    there = there * spacing_px + np.where(np.isnan(matches[:2]), 0, matches[:2])
    guided = evaluate(guide, spacing_px, there.reshape(2, -1).T).T.reshape(2, ny, nx)
    whole = matches.copy()
    whole[:2] += guided.astype(np.float32)
    return whole
