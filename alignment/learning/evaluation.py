"""How often a match is false, by what sections are matched by: raw, band-passed, by a network.

Sections that lie on each other are warped smoothly, each by a draw of its own, so where a match
belongs is known to within what the stack was misaligned by. A match is false if it is farther than
a tolerance from there along y or x. All ways see the same templates and search windows.

References
----------
.. [1] D. Buniatyan et al., "Deep Learning Improves Template Matching by Normalized Cross
   Correlation", arXiv:1705.08593, 2017: the criterion, the table and the rejection curves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from alignment.config import Config
from alignment.errors import DataError
from alignment.learning.stacks import Stack
from alignment.ncc import FeatureImage, find_matches
from inference.model import FeatureTransform
from inference.pair_samples import random_of

Floats = NDArray[np.float64]


class EvaluationConfig(Config):
    """What is matched, and when a match is false."""

    template_px: Annotated[int, Field(ge=8, le=512)] = 160
    """Side of the templates."""
    search_radius_px: Annotated[int, Field(ge=4, le=256)] = 64
    """Search windows are larger than templates by so much on each side."""
    distance: Annotated[int, Field(ge=1, le=16)] = 1
    """Of the two sections, in sections."""
    matches: Annotated[int, Field(ge=1)] = 10_000
    """Matches in all, shared out evenly over the pairs of sections."""
    tolerance_px: Annotated[float, Field(gt=0)] = 20.0
    """Farther than this along y or x from where it belongs, a match is false."""
    warp_px: Annotated[float, Field(ge=0)] = 8.0
    """Largest displacement of the warp of each fixed section, along each axis."""
    warp_node_px: Annotated[int, Field(ge=16)] = 128
    """Distance of the nodes between which the warp is smooth."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Of places, offsets and warps."""


@dataclass(frozen=True)
class Matches:
    """What one way found for the same templates; row n is the same template for all ways."""

    pair: NDArray[np.int64]
    """(n,): number of the pair of sections."""
    error_px: Floats
    """(n,): largest of |dy| and |dx| from where it belongs; inf where nothing was found."""
    r_delta: Floats
    """(n,): of the best peak, beyond 5 px; -inf where nothing was found."""

    def false(self, tolerance_px: float) -> NDArray[np.bool_]:
        """Return which matches are false."""
        return self.error_px > tolerance_px


@dataclass(frozen=True)
class Rate:
    """A share of false matches, and where it lies in 95 of 100 draws of pairs of sections."""

    false: int
    matches: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """False matches over all."""
        return self.false / self.matches


def evaluate(
    stack: Stack,
    ways: Mapping[str, FeatureTransform],
    config: EvaluationConfig,
    *,
    tell: Callable[[int, int], None] = lambda _done, _all: None,
) -> dict[str, Matches]:
    """Match the same templates in every way.

    Parameters
    ----------
    stack : Stack
        Sections that lie on each other to well within `tolerance_px`.
    ways : mapping of str to FeatureTransform
        What makes the images that are matched.
    tell : callable
        Receives how many pairs of sections are done, and of how many.

    Raises
    ------
    DataError
        If the sections are smaller than a search window, or there is no pair of them.
    """
    nz, ny, nx = stack.shape
    margin = config.search_radius_px
    if min(ny, nx) < config.template_px + 2 * margin:
        raise DataError(
            f"{stack.uri} has sections of {ny} x {nx} px at mip {stack.mip}; a search window has "
            f"{config.template_px + 2 * margin}: lower template_px or search_radius_px"
        )
    pairs = [(z, z - config.distance) for z in range(config.distance, nz)]
    if not pairs:
        raise DataError(f"{stack.uri} has {nz} sections, none of them {config.distance} apart")
    counts = np.diff(np.linspace(0, config.matches, len(pairs) + 1).round().astype(int))
    found: dict[str, list[Matches]] = {name: [] for name in ways}
    for k, ((z, fixed_z), count) in enumerate(zip(pairs, counts, strict=True)):
        moving = _section(stack, z)
        field = _warp((ny, nx), config, k)
        nodes, offsets = _drawn(k, int(count), (ny, nx), config)
        truth = _displaced(nodes + config.template_px / 2 - 0.5, field)
        fixed = _warped(_section(stack, fixed_z), field)
        for name, transform in ways.items():
            images = [
                FeatureImage.of(transform(image, image > 0), image > 0) for image in (fixed, moving)
            ]
            found[name].append(_matched(k, images, nodes, offsets, truth, config))
        tell(k + 1, len(pairs))
    return {name: _joined(parts) for name, parts in found.items()}


def _section(stack: Stack, z: int) -> NDArray[np.uint8]:
    _, ny, nx = stack.shape
    return stack(z, 0, 0, max(ny, nx))[:ny, :nx]


def _warp(shape: tuple[int, int], config: EvaluationConfig, k: int) -> Floats:
    """Return a smooth displacement (2, y, x): pixel p of the warped section shows p + u(p)."""
    random = random_of(config.seed, 0, k)
    ny, nx = (n // config.warp_node_px + 2 for n in shape)
    nodes = random.uniform(-config.warp_px, config.warp_px, (2, ny, nx))
    size = (shape[1], shape[0])
    return np.stack([cv2.resize(each, size, interpolation=cv2.INTER_CUBIC) for each in nodes])


def _warped(image: NDArray[np.uint8], field: Floats) -> NDArray[np.uint8]:
    y, x = np.indices(image.shape)
    at = [(grid + u).astype(np.float32) for grid, u in zip((y, x), field, strict=True)]
    return np.asarray(cv2.remap(image, at[1], at[0], cv2.INTER_LINEAR, None, cv2.BORDER_CONSTANT))


def _displaced(points: Floats, field: Floats) -> Floats:
    """Return by how much what lies at `points` (n, 2) moves when a section is warped, (n, 2)."""
    moved = np.zeros_like(points)
    for _ in range(8):  # q + u(q) = p; the warp is smooth, so this converges at once
        at = (points + moved).astype(np.float32)
        u = [
            cv2.remap(each, at[:, 1:], at[:, :1], cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
            for each in field
        ]
        moved = -np.stack([each[:, 0].astype(np.float64) for each in u], axis=1)
    return moved


def _drawn(
    k: int, count: int, shape: tuple[int, int], config: EvaluationConfig
) -> tuple[Floats, Floats]:
    """Return where templates begin (n, 2), and by how much their windows lie beside them."""
    random = random_of(config.seed, 1, k)
    most = [n - config.template_px + 1 for n in shape]
    nodes = np.stack([random.integers(0, n, count) for n in most], axis=1).astype(np.float64)
    reach = max(int(config.search_radius_px - config.warp_px - config.tolerance_px), 0)
    offsets = random.integers(-reach, reach + 1, (count, 2)).astype(np.float64)
    return nodes, offsets


def _matched(
    k: int,
    images: Sequence[FeatureImage],
    nodes: Floats,
    offsets: Floats,
    truth: Floats,
    config: EvaluationConfig,
) -> Matches:
    radius = config.search_radius_px
    windows = nodes + offsets - radius
    jobs = np.empty((len(nodes), 6), np.int32)
    jobs[:, 0], jobs[:, 1:3], jobs[:, 3], jobs[:, 4:] = 0, windows, 1, nodes
    peaks, _ = find_matches(
        images, jobs, template_px=config.template_px, search_radius_px=radius, min_overlap=0.5,
        weights="box",
    )  # fmt: skip
    error = np.abs(peaks.offset.T - radius + offsets - truth).max(axis=1)
    r_delta = peaks.r_delta[0].astype(np.float64)
    is_found = np.isfinite(error)
    return Matches(
        np.full(len(nodes), k),
        np.where(is_found, error, np.inf),
        np.where(is_found, r_delta, -np.inf),
    )


def _joined(parts: Sequence[Matches]) -> Matches:
    pair, error, r_delta = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("pair", "error_px", "r_delta")
    )
    return Matches(pair, error, r_delta)


def false_rate(matches: Matches, tolerance_px: float, *, draws: int = 2000, seed: int = 0) -> Rate:
    """Return the share of false matches with its 95 % interval.

    Pairs of sections are drawn, not matches: those of one pair overlap and fail together.
    """
    false, count = _by_pair(matches, tolerance_px)
    drawn = _resampled(len(count), draws, seed)
    shares = (drawn @ false) / np.maximum(drawn @ count, 1)
    low, high = np.percentile(shares, (2.5, 97.5))
    return Rate(int(false.sum()), int(count.sum()), float(low), float(high))


def rate_difference(
    worse: Matches, better: Matches, tolerance_px: float, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return by how much the share of `worse` exceeds that of `better`, and its 95 % interval."""
    first, count = _by_pair(worse, tolerance_px)
    second, _ = _by_pair(better, tolerance_px)
    drawn = _resampled(len(count), draws, seed)
    shares = (drawn @ (first - second)) / np.maximum(drawn @ count, 1)
    low, high = np.percentile(shares, (2.5, 97.5))
    return float((first - second).sum() / count.sum()), float(low), float(high)


def _by_pair(matches: Matches, tolerance_px: float) -> tuple[Floats, Floats]:
    number = int(matches.pair.max()) + 1
    count = np.bincount(matches.pair, minlength=number)
    false = np.bincount(matches.pair, matches.false(tolerance_px), minlength=number)
    return false.astype(np.float64), count.astype(np.float64)


def _resampled(number: int, draws: int, seed: int) -> Floats:
    """Return how often each of `number` pairs is drawn, (draws, number)."""
    random = np.random.default_rng(seed)
    return random.multinomial(number, np.full(number, 1 / number), draws).astype(np.float64)


def rejection_curve(matches: Matches, tolerance_px: float) -> tuple[Floats, Floats]:
    """Return shares (of true matches rejected, of false ones left among all) by r_delta.

    From rejecting nothing to rejecting all, a point for each threshold at which they change.
    """
    false = matches.false(tolerance_px)
    order = np.argsort(matches.r_delta, kind="stable")
    rejected_true = np.concatenate([[0], np.cumsum(~false[order])]) / max(int((~false).sum()), 1)
    left_false = (false.sum() - np.concatenate([[0], np.cumsum(false[order])])) / len(false)
    return rejected_true, left_false


def rejected_at_zero_false(matches: Matches, tolerance_px: float) -> float:
    """Return the share of true matches that must be rejected until no false one is left.

    >>> one = Matches(np.zeros(4, int), np.array([0.0, 0, 99, 0]), np.array([0.3, 0.1, 0.2, 0.4]))
    >>> rejected_at_zero_false(one, 20.0) == 1 / 3
    True
    """
    rejected, left = rejection_curve(matches, tolerance_px)
    return float(rejected[left <= 0].min())
