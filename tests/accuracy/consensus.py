"""How tissue moves between the sections of a stack: what several matchers agree on.

Neighbouring sections of a real stack differ by more than its alignment: neurites run obliquely, and
the authors' alignment is not exact. On the fib set, every 4th plane enlarged twice, the tissue
moves by 5 px from one section to the next. So matches of the warped sections are compared with the
displacement that matchers of different bands and template sizes agree on between the sections as
they came, without noise or damage, carried through the known warps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.config import FeaturesConfig, MatchConfig, MatchLevel, PipelineConfig
from alignment.fields import evaluate
from alignment.filter import reject_outliers
from alignment.match import CHANNELS, grid_spacing_px
from alignment.rematch import smooth_guide
from tests.accuracy.recipes import Points
from tests.accuracy.runner import Section, match_pair

AGREEMENT_PX = 2.0
"""Matchers agree where this near to their median; at least two of them must."""

_SMOOTHING_NODES = 0.7


def _matcher(fine: float, coarse: float, templates: tuple[int, ...]) -> PipelineConfig:
    def level(mip: int, template_px: int, radius_px: int, spacing_px: int) -> MatchLevel:
        return MatchLevel(
            mip=mip,
            template_px=template_px,
            search_radius_px=radius_px,
            node_spacing_px=spacing_px,
        )

    match = MatchConfig(
        levels=(level(2, 64, 12, 32), level(1, templates[0], 10, 16)),
        refine=(level(1, templates[1], 6, 16), level(0, templates[2], 8, 32)),
        refine_smoothing_nodes=1.0,
    )
    features = FeaturesConfig(sigma_fine_px=fine, sigma_coarse_px=coarse)
    return PipelineConfig(match=match, features=features)


MATCHERS = (
    _matcher(1.0, 12.0, (64, 96, 160)),
    _matcher(1.5, 8.0, (80, 96, 128)),
    _matcher(2.0, 20.0, (64, 80, 192)),
)
"""Their bands (px) and the sides of their templates differ."""


class Consensus:
    """The displacement that `MATCHERS` agree on, of every pair of sections up to some distance.

    Parameters
    ----------
    base : uint8 ndarray of shape (nz, y, x)
        Sections in register, but for some px.
    neighbours : int
        The largest distance.
    """

    def __init__(self, base: NDArray[np.uint8], neighbours: int) -> None:
        ny, nx = (n // 4 * 4 for n in base.shape[1:])
        self.spacing_px = grid_spacing_px(MATCHERS[0].match)
        found: dict[tuple[int, int], list[NDArray[np.float32]]] = {}
        matrices = np.tile(np.eye(2, 3), (len(base), 1, 1))
        for config in MATCHERS:
            sections = [Section(image[:ny, :nx], config) for image in base]
            for z in range(len(base)):
                for fixed in range(max(z - neighbours, 0), z):
                    matches = match_pair(sections, matrices, (ny, nx), z, fixed, config)
                    trusted, _ = reject_outliers(
                        matches, spacing_px=self.spacing_px, config=config.filter
                    )
                    found.setdefault((fixed, z), []).append(trusted[:2])
        self.fields = {pair: self._agreed(np.stack(each)) for pair, each in found.items()}

    def between(self, fixed: int, moving: int, points: Points) -> Points:
        """Return the displacement (n, 2), px, at points of `moving`; NaN where unknown."""
        return evaluate(self.fields[fixed, moving], self.spacing_px, points)

    def _agreed(self, each: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (2, ny, nx) from the matches (matchers, 2, ny, nx); NaN without agreement."""
        known = np.isfinite(each[:, 0])
        filled = np.where(known[:, np.newaxis], each, np.nan)
        some = known.any(0)
        median = np.full(each.shape[1:], np.nan, np.float32)
        median[:, some] = np.nanmedian(filled[:, :, some], axis=0)
        with np.errstate(invalid="ignore"):
            near = np.hypot(*np.moveaxis(filled - median, 1, 0)) <= AGREEMENT_PX
        agreed = near.sum(0) >= 2
        matches = np.full((len(CHANNELS), *agreed.shape), np.nan, np.float32)
        matches[:, agreed] = 1
        matches[:2, agreed] = median[:, agreed]
        smooth = smooth_guide(matches, _SMOOTHING_NODES, spacing_px=self.spacing_px)
        return np.where(agreed, smooth, np.float32(np.nan))
