"""From matches to fields: filter and relax as the stages do; only storage is left out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.confidence import reject_unsure, solver_weight
from alignment.config import PipelineConfig
from alignment.damage import Damage, damage_distance
from alignment.filter import judge_section, reject_outliers
from alignment.holes import boxes_around, untied_nodes
from alignment.match import CHANNELS, grid_spacing_px
from alignment.relax import PairMatches, Relaxed, relax_stack
from alignment.tearing import torn_cells
from tests.accuracy.relax_matched import Matched

Floats = NDArray[np.float32]

_BLOCK_NODES = 64
_COVARIANCE = [CHANNELS.index(name) for name in ("cov_yy", "cov_yx", "cov_xx")]


def trusted_matches(group: Matched, config: PipelineConfig) -> list[PairMatches]:
    """Filter all matches of a group, those with farther sections only where nothing nearer ties."""
    spacing = grid_spacing_px(config.match)
    damage = [
        Damage.of(defects, mip=config.masks.mip, matrix=matrix)
        for defects, matrix in zip(group.defects, group.matrices, strict=True)
    ]
    matches = _with_retries(group, config)
    for (z, d), one in matches.items():
        distance = damage_distance(one, spacing_px=spacing, moving=damage[z], fixed=damage[z - d])
        at_damage = distance < config.filter.damage_margin_px
        matches[z, d] = np.where(at_damage, np.float32(np.nan), one)
    near = {pair for pair in matches if group.rank(*pair) <= config.match.neighbours}
    trusted = []
    for z in sorted({z for z, _ in matches}):
        own = {d: one for (at, d), one in matches.items() if at == z}
        links = {
            (a, b): matches[z - a, b - a]
            for a in own
            for b in own
            if b > a and (z - a, b - a) in near
        }
        judged = judge_section(own, links, spacing_px=spacing, config=config.filter)
        for d, one in judged.items():
            kept, sure = reject_unsure(one, spacing_px=spacing, config=config.filter)
            trusted.append(
                PairMatches(
                    z,
                    d,
                    kept.matches[:2],
                    kept.matches[_COVARIANCE],
                    weight=solver_weight(sure),
                )
            )
    return trusted


def relaxed(group: Matched, config: PipelineConfig) -> Relaxed:
    """Filter and relax a group."""
    return relax_stack(
        trusted_matches(group, config),
        len(group.maps),
        group.canvas,
        grid_spacing_px(config.match),
        config.relax,
        missing=group.gone,
        stiffness_map=np.stack(
            [
                torn_cells(
                    defects,
                    matrix,
                    group.canvas,
                    config.relax.node_spacing_px,
                    mip=config.masks.mip,
                )
                for defects, matrix in zip(group.defects, group.matrices, strict=True)
            ]
        ),
    )


def _with_retries(group: Matched, config: PipelineConfig) -> dict[tuple[int, int], Floats]:
    spacing = grid_spacing_px(config.match)
    by_rank = {(z, group.rank(z, d)): (d, one) for (z, d), one in group.matches.items()}
    used = {(z, d): one for (z, k), (d, one) in by_rank.items() if k <= config.match.neighbours}
    for z in range(len(group.maps)):
        tried = [
            reject_outliers(one, spacing_px=spacing, config=config.filter)[0]
            for (at, _), one in used.items()
            if at == z
        ]
        for k in range(config.match.neighbours + 1, config.match.retry_neighbours + 1):
            if (z, k) not in by_rank:
                continue
            d, one = by_rank[z, k]
            mip = config.masks.mip
            tissue = group.tissue_at_nodes(z, spacing, mip)
            tissue &= group.tissue_at_nodes(z - d, spacing, mip)
            untied = untied_nodes(tried, tissue, config.filter.min_component_nodes)
            part = np.full_like(one, np.nan)
            for i0, j0, i1, j1 in boxes_around(untied, _BLOCK_NODES).values():
                part[:, i0:i1, j0:j1] = one[:, i0:i1, j0:j1]
            if np.isfinite(part[0]).any():
                used[z, d] = part
                tried.append(reject_outliers(part, spacing_px=spacing, config=config.filter)[0])
    return dict(sorted(used.items()))
