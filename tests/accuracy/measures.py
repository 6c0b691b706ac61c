"""What the tables say of an outcome: errors, false matches against coverage, filter by filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.confidence import reject_unsure
from alignment.config import FilterConfig
from alignment.filter import judge_section
from alignment.match import CHANNELS
from tests.accuracy.runner import Outcome, PairMatch

FALSE_PX = 5.0
"""A match that is farther from the truth is false."""
NEAR_PX = 48.0
"""Nearer than this to a fold, crack or blank is near a defect."""

OFF: dict[str, float] = {
    "min_score": 0.0,
    "min_peak_ratio": 1.0,
    "min_r_delta": 0.0,
    "min_sharpness": 0.0,
    "min_mirror": 0.0,
    "min_confidence": 0.0,
    "max_curvature_ratio": 1e9,
    "max_median_deviation_px": 1e9,
    "max_strain": 1e9,
    "min_component_nodes": 1,
    "max_cycle_px": 1e9,
    "damage_margin_px": 0.0,
}
"""The settings with which a filter rejects nothing."""

CHANNEL_OF = {
    "min_score": "score",
    "min_peak_ratio": "peak_ratio",
    "min_r_delta": "r_delta_5",
    "min_sharpness": "sharpness",
    "min_mirror": "mirror",
    "max_curvature_ratio": "curvature_ratio",
}
"""Filters that look at one channel of a match alone."""

SWEEPS: dict[str, tuple[float, ...]] = {
    "min_score": (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6),
    "min_peak_ratio": (1.05, 1.1, 1.2, 1.3, 1.5, 1.8, 2.2),
    "min_r_delta": (0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3),
    "min_sharpness": (0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1),
    "min_mirror": (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4),
    "min_confidence": (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9),
    "max_curvature_ratio": (32.0, 20.0, 16.0, 12.0, 10.0, 8.0, 6.0),
    "max_median_deviation_px": (16.0, 8.0, 6.0, 4.0, 3.0, 2.0, 1.0),
    "max_strain": (0.4, 0.3, 0.2, 0.15, 0.1, 0.07),
    "max_cycle_px": (20.0, 10.0, 5.0, 3.0, 2.0, 1.5, 1.0),
    "damage_margin_px": (2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0),
}
"""Limits that are tried of each filter alone, from loose to tight."""

TIGHTER = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
"""All filters together: this many times as tight as by default."""


class Rates(NamedTuple):
    """How many of a stack's nodes on tissue keep their match, and how many of those wrongly."""

    limit: float
    nodes: int
    kept: int
    wrong: int

    @property
    def coverage(self) -> float:
        """Share of the nodes on tissue whose match is kept."""
        return self.kept / max(self.nodes, 1)

    @property
    def false(self) -> float:
        """Share of what is kept that is wrong."""
        return self.wrong / max(self.kept, 1)


class Errors(NamedTuple):
    """Lengths of errors, px at mip 0."""

    median: float
    p95: float
    p99: float
    worst_pair: float
    """The largest median of a pair."""
    coverage: float
    false: float
    false_near: float
    """Of the matches near a defect."""
    false_away: float
    false_off: int
    """False matches at nodes where one of the sections shows no tissue."""


Kept = list[NDArray[np.bool_]]


def settings() -> list[str]:
    """Return the filters' settings that can be swept."""
    return [name for name in SWEEPS if name in FilterConfig.model_fields]


def only(**limits: float) -> FilterConfig:
    """Return a configuration in which nothing but the given limits rejects a match."""
    off = {name: value for name, value in OFF.items() if name in FilterConfig.model_fields}
    return FilterConfig(**{**off, **limits})


def tightened(times: float, config: FilterConfig) -> FilterConfig:
    """Return the limits, so many times as tight as in `config`; 0 rejects nothing."""
    limits: dict[str, float] = {}
    for name in OFF:
        value = getattr(config, name, None)
        if value is None or times == 0:
            continue
        if name.startswith("max"):
            # A curvature ratio of 4 is a round peak, which no limit can demand more than.
            limits[name] = max(value / times, 4.0 if "curvature" in name else 0.0)
        elif name == "damage_margin_px":
            limits[name] = value * times
        elif name == "min_component_nodes":
            limits[name] = max(round(value * times), 1)
        else:
            least = OFF[name]
            limits[name] = min(least + (value - least) * times, 100 if least else 1.0)
    return only(**limits)


def kept(outcome: Outcome, config: FilterConfig) -> Kept:
    """Return which nodes of every pair keep their match."""
    spacing = outcome.spacing_px
    matches = {
        (p.z, p.d): np.where(p.damage_px < config.damage_margin_px, np.float32(np.nan), p.matches)
        for p in outcome.pairs
    }
    result = {}
    for z in {p.z for p in outcome.pairs}:
        own = {d: matches[z, d] for at, d in matches if at == z}
        links = {}
        if config.max_cycle_px < OFF["max_cycle_px"]:
            links = {
                (near, far): matches[z - near, far - near]
                for near in own
                for far in own
                if (z - near, far - near) in matches
            }
        for d, judged in judge_section(own, links, spacing_px=spacing, config=config).items():
            _, sure = reject_unsure(judged, spacing_px=spacing, config=config)
            result[z, d] = np.isfinite(sure)
    return [result[p.z, p.d] for p in outcome.pairs]


def rates(outcome: Outcome, keep: Kept, limit: float = 0.0) -> Rates:
    """Count the nodes on tissue, those that keep their match, and the wrong ones among them."""
    covered, length = _on_tissue(outcome.pairs, keep)
    wrong = int(np.count_nonzero(covered & (length > FALSE_PX)))
    return Rates(limit, covered.size, int(np.count_nonzero(covered)), wrong)


def pooled(each: Sequence[Rates]) -> Rates:
    """Add up the counts of several stacks at one limit."""
    return Rates(each[0].limit, *(sum(column) for column in list(zip(*each, strict=True))[1:]))


def errors(outcome: Outcome, keep: Kept) -> Errors:
    """Return how wrong the matches are that are kept."""
    covered, length = _on_tissue(outcome.pairs, keep)
    near = np.concatenate([(p.defect_distance_px < NEAR_PX)[p.is_tissue] for p in outcome.pairs])
    wrong = length > FALSE_PX
    off = 0
    medians = [np.nan]
    for pair, nodes in zip(outcome.pairs, keep, strict=True):
        apart = np.hypot(*pair.error)
        off += int(np.count_nonzero(apart[nodes & ~pair.is_tissue] > FALSE_PX))
        if (nodes & pair.is_tissue).any():
            medians.append(float(np.median(apart[nodes & pair.is_tissue])))
    known = length[covered] if covered.any() else np.array([np.nan])
    return Errors(
        *np.percentile(known, (50, 95, 99)).tolist(),
        float(np.nanmax(medians)) if len(medians) > 1 else np.nan,
        float(covered.mean()) if covered.size else 0.0,
        *(_share(wrong, covered & nodes) for nodes in (covered, near, ~near)),
        off,
    )


def curves(outcome: Outcome, config: FilterConfig) -> dict[str, list[Rates]]:
    """Return false matches against coverage for each filter alone, and for all together."""
    found: dict[str, list[Rates]] = {}
    for name in settings():
        loose_first = sorted({*SWEEPS[name], getattr(config, name)}, reverse=name[:3] == "max")
        found[name] = [rates(outcome, _kept_by(outcome, name, v), v) for v in loose_first]
    found["all together"] = [
        rates(outcome, kept(outcome, tightened(times, config)), times) for times in TIGHTER
    ]
    return found


def _kept_by(outcome: Outcome, name: str, limit: float) -> Kept:
    """Return what one filter alone keeps."""
    if name not in CHANNEL_OF:
        return kept(outcome, only(**{name: limit}))
    values = [p.matches[CHANNELS.index(CHANNEL_OF[name])] for p in outcome.pairs]
    with np.errstate(invalid="ignore"):
        return [v >= limit if name.startswith("min") else v <= limit for v in values]


def _on_tissue(
    pairs: Sequence[PairMatch], keep: Kept
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return of all nodes on tissue whether a match is kept, and how wrong it is."""
    covered = [nodes[p.is_tissue] for p, nodes in zip(pairs, keep, strict=True)]
    length = [np.hypot(*p.error)[p.is_tissue] for p in pairs]
    return np.concatenate(covered), np.nan_to_num(np.concatenate(length), nan=0.0)


def _share(wrong: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    return float(np.count_nonzero(wrong & among) / max(np.count_nonzero(among), 1))
