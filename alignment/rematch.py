"""A second look at a pair of sections, one of them warped by what the first look found.

A template that lies on deformed tissue cannot match all over at once: its answer is biased, and a
larger template, which should be more certain, is worse. So the fixed section is pulled by the
smoothed first answer g, matched again in a small search window with a larger template, and the two
displacements are composed: the tissue at p of the moving section lies at ``q + g(q)`` of the fixed
one, where ``q = p + m`` is its place in the pulled section. FEABAS refines its meshes in the same
rounds of match, relax and re-render; here a round costs one warp and stays within its pair.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.config import MatchConfig, MatchLevel
from alignment.fields import Field, evaluate
from alignment.match import NodeBox, Patch, gate, grid_spacing_px, match_block

Floats = NDArray[np.float32]

FAR_SIGMAS = 4.0
"""Where matches are far, a Gaussian this much wider carries their displacement over."""
REACH_SIGMAS = 3.0
LEAST_WEIGHT = 0.05
"""Share of a Gaussian's weight on matched nodes below which the wider one takes over."""


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
    return int(np.ceil(FAR_SIGMAS * REACH_SIGMAS * sigma_nodes))


def smooth_guide(matches: Floats, sigma_nodes: float) -> Field:
    """Return a smooth displacement at every node from matches with holes and outliers.

    Parameters
    ----------
    matches : float32 ndarray of shape (len(CHANNELS), ny, nx)
        As `match.match_block` gives them, px at mip 0; NaN where there is none.
    sigma_nodes : float
        Of the Gaussian, in nodes.

    Returns
    -------
    float32 ndarray of shape (2, ny, nx)
        px at mip 0. Gated and median-filtered as between levels, then smoothed with known nodes
        only. Far from any match the mean of a wider neighbourhood, and 0 where there is none.
    """
    shifts = gate(matches)
    near, near_weight = _weighted_mean(shifts, sigma_nodes)
    far, far_weight = _weighted_mean(shifts, FAR_SIGMAS * sigma_nodes)
    share = np.minimum(near_weight / LEAST_WEIGHT, 1)
    guide = share * near + (1 - share) * np.where(far_weight > 0, far, 0)
    return np.asarray(guide, np.float32)


def _weighted_mean(shifts: Floats, sigma: float) -> tuple[Floats, Floats]:
    known = (~np.isnan(shifts[0])).astype(np.float32)
    side = 2 * int(np.ceil(REACH_SIGMAS * sigma)) + 1

    def blur(image: Floats) -> Floats:
        blurred = cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_CONSTANT)
        return np.asarray(blurred, np.float32)

    weight = blur(known)
    total = np.stack([blur(np.where(known > 0, shift, np.float32(0))) for shift in shifts])
    mean = np.asarray(total / np.maximum(weight, np.float32(1e-12)), np.float32)
    return mean, weight


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
    features = cv2.remap(fixed.features, from_x, from_y, cv2.INTER_CUBIC)
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
