"""Take a known stack through masks, features, coarse and match as the stages do; compare.

The pure functions are those of the stages; only storage is left out.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.coarse import estimate_pair, fit_canvas, solve_stack
from alignment.config import PipelineConfig
from alignment.damage import Damage, damage_distance
from alignment.features import normalise
from alignment.fields import apply_affine, grid_points, invert_affine
from alignment.masks import estimate_valid
from alignment.match import grid_shape, grid_spacing_px, match_block
from alignment.patches import patch_box, place_patch
from alignment.pyramid import downsample, valid_at
from alignment.rematch import match_again, single_level, smooth_guide
from alignment.stages.wholesections import SMALLEST_SIDE_PX
from tests.accuracy.recipes import SectionMap
from tests.accuracy.stacks import KnownStack

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Coarse = Literal["estimated", "true"]
Masks = Literal["estimated", "true"]

_FIT_STEP_PX = 32  # points of the true affine's fit


@dataclass(frozen=True)
class PairMatch:
    """The matches of one pair of sections, with their truth, at the nodes (ny, nx)."""

    z: int
    d: int
    matches: Floats
    """(len(CHANNELS), ny, nx), as the stage gives them."""
    truth: NDArray[np.float64]
    """(2, ny, nx): the displacement that they should have, px at mip 0; NaN where none exists."""
    as_warped: NDArray[np.float64]
    """(2, ny, nx): the same if nothing changed between the base images: `truth` for twins."""
    is_tissue: Bools
    """Where both sections show the node's tissue: what can be covered."""
    valid_distance_px: Floats
    """From the node to what the masks of the two sections exclude, px at mip 0; 0 in it."""
    damage_px: Floats
    """From the match to what the masks call damage in the two sections, px; inf without a match."""
    defect_distance_px: Floats
    """To the true defects of the two sections, px; negative in one, inf where there is none."""

    @property
    def error(self) -> NDArray[np.float64]:
        """(2, ny, nx): match minus truth, px at mip 0."""
        return self.matches[:2] - self.truth


@dataclass(frozen=True)
class Outcome:
    """What came of a stack."""

    pairs: tuple[PairMatch, ...]
    spacing_px: int
    coarse_lost: tuple[tuple[int, int], ...]
    """Pairs of neighbours (z, d) that the coarse stage found nothing for."""
    coarse_error_px: NDArray[np.float64]
    """Of all nodes on tissue: how far the coarse places leave the tissue apart."""
    match_cpu_s: float


def run_stack(
    stack: KnownStack,
    config: PipelineConfig,
    *,
    coarse: Coarse = "estimated",
    masks: Masks = "estimated",
) -> Outcome:
    """Match all pairs of a stack.

    Parameters
    ----------
    stack : KnownStack
    config : PipelineConfig
    coarse : {"estimated", "true"}
        Whether sections are placed by `coarse.solve_stack`, or by the affine that fits their true
        map best.
    masks : {"estimated", "true"}
        Whether valid pixels are those of `masks.estimate_valid`, or those and not a true defect.
    """
    sections = [
        Section(image, config, shown if masks == "true" else None)
        for image, shown in zip(stack.images, stack.maps, strict=True)
    ]
    pairs: list[PairMatch] = []
    lost: list[tuple[int, int]] = []
    cpu_s = 0.0
    for group in stack.groups:
        matrices, canvas, unplaced = place(stack, sections, group, config, coarse)
        lost += unplaced
        for z in group:
            for d in range(1, min(config.match.neighbours, z - group[0]) + 1):
                start = time.process_time()
                matches = match_pair(sections, matrices, canvas, z, z - d, config)
                cpu_s += time.process_time() - start
                pairs.append(_compare(stack, sections, matrices, canvas, z, d, matches, config))
    far = [np.hypot(*p.truth)[p.is_tissue] for p in pairs if p.d == 1]
    spacing = grid_spacing_px(config.match)
    return Outcome(tuple(pairs), spacing, tuple(lost), np.concatenate([*far, []]), cpu_s)


class Section:
    """One section at every mip: what the stages masks and features store.

    Parameters
    ----------
    image : uint8 ndarray of shape (y, x)
    config : PipelineConfig
    shown : SectionMap, optional
        If given, what lies in its defect is not valid either.
    """

    def __init__(
        self, image: NDArray[np.uint8], config: PipelineConfig, shown: SectionMap | None = None
    ) -> None:
        self.pyramid = [image]
        while len(self.pyramid) <= max(*config.match.mips, config.coarse.mip, config.masks.mip):
            finer = self.pyramid[-1]
            even = np.pad(finer, [(0, n % 2) for n in finer.shape])
            self.pyramid.append(downsample(even[np.newaxis])[0])
        self._mip = config.masks.mip
        self._valid, self.defects = estimate_valid(self.pyramid[self._mip], config.masks)
        if shown is not None:
            height, width = self._valid.shape
            points = (grid_points(height, width, 1) + 0.5) * 2**self._mip - 0.5
            near = shown.defect_distance(points) <= config.masks.grow_px << self._mip
            self._valid &= ~near.reshape(height, width)
        self.features = {
            mip: normalise(self.pyramid[mip], self.valid(mip), config.features)
            for mip in config.match.mips
        }

    def damage(self, matrix: NDArray[np.float64]) -> Damage:
        """Where it is damaged, if it lies where `matrix` puts it."""
        return Damage.of(self.defects, mip=self._mip, matrix=matrix)

    def valid(self, mip: int) -> Bools:
        return valid_at(self._valid, old=self._mip, new=mip, shape_yx=self.pyramid[mip].shape)

    def valid_distance(self, points: NDArray[np.float64]) -> Floats:
        """Distance (n,), px at mip 0, of points (n, 2) to what is not valid; 0 outside."""
        scale = 2**self._mip
        padded = np.pad(self._valid.astype(np.uint8), 1)
        distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        at = np.rint((np.nan_to_num(points, nan=-1e4) + 0.5) / scale - 0.5).astype(int) + 1
        y, x = np.clip(at, 0, np.array(padded.shape) - 1).T
        return np.asarray(distance[y, x] * scale, np.float32)


def match_pair(
    sections: list[Section],
    matrices: NDArray[np.float64],
    canvas: tuple[int, int],
    z: int,
    fixed: int,
    config: PipelineConfig,
) -> Floats:
    """Match section z with an earlier one, in all rounds; the whole grid is one block."""
    nodes = grid_shape(canvas, config.match)
    block = (0, 0), nodes

    def patch(k, mip, level_config, margin_px=0):
        box = patch_box(block, canvas, level_config, mip, margin_px=margin_px)
        section = sections[k]
        return place_patch(section.features[mip], section.valid(mip), matrices[k], *box, mip)

    first, second = (
        {level.mip: patch(k, level.mip, config.match) for level in config.match.levels}
        for k in (fixed, z)
    )
    matches = match_block(first, second, block, nodes, config.match)
    for level in config.match.refine:
        once = single_level(config.match, level)
        sigma, spacing = config.match.refine_smoothing_nodes, grid_spacing_px(config.match)
        guide = smooth_guide(matches, sigma, spacing_px=spacing)
        reach = int(np.abs(guide).max(initial=0)) + 1
        one, other = patch(fixed, level.mip, once, reach), patch(z, level.mip, once)
        matches = match_again(one, other, guide, (0, 0), block, nodes, once)
    return matches


def place(
    stack: KnownStack,
    sections: list[Section],
    group: range,
    config: PipelineConfig,
    coarse: Coarse,
    gone: Collection[int] = (),
) -> tuple[NDArray[np.float64], tuple[int, int], list[tuple[int, int]]]:
    """Return every section's affine (common frame to section), the canvas, and lost pairs.

    Sections in `gone` show nothing: no pair holds them, they are placed between the others.
    """
    shape_yx = stack.images.shape[1:]
    lost: list[tuple[int, int]] = []
    if coarse == "true":
        placed = np.stack([_true_affine(stack, z) for z in group])
    else:
        mip = config.coarse.mip
        while mip > 0 and min(sections[group[0]].pyramid[mip].shape) < SMALLEST_SIDE_PX:
            mip -= 1
        found = {}
        for z in group:
            for d in range(1, min(config.coarse.neighbours, z - group[0]) + 1):
                if {z, z - d} & set(gone):
                    continue
                two = [sections[k] for k in (z - d, z)]
                pair = estimate_pair(
                    *(s.pyramid[mip] for s in two),
                    *(s.valid(mip) for s in two),
                    config.coarse,
                    mip=mip,
                )
                if pair is None:
                    lost.append((z, d))
                else:
                    found[z - group[0], d] = pair
        missing = [z - group[0] for z in gone if z in group]
        placed = solve_stack(found, len(group), shape_yx, missing, config.coarse).matrices
    placed, canvas = fit_canvas(placed, shape_yx)
    matrices = np.full((len(stack.images), 2, 3), np.nan)
    matrices[group.start : group.stop] = placed
    return matrices, canvas, lost


def _true_affine(stack: KnownStack, z: int) -> NDArray[np.float64]:
    """Return the affine, base image to section, that fits the true map best."""
    height, width = stack.images.shape[1:]
    points = grid_points(-(-height // _FIT_STEP_PX), -(-width // _FIT_STEP_PX), _FIT_STEP_PX)
    tissue = stack.maps[z].tissue_at(points)
    design = np.column_stack([points, np.ones(len(points))])
    return invert_affine(np.linalg.lstsq(design, tissue, rcond=None)[0].T)


def _compare(
    stack: KnownStack,
    sections: list[Section],
    matrices: NDArray[np.float64],
    canvas: tuple[int, int],
    z: int,
    d: int,
    matches: Floats,
    config: PipelineConfig,
) -> PairMatch:
    fixed = z - d
    ny, nx = grid_shape(canvas, config.match)
    nodes = grid_points(ny, nx, grid_spacing_px(config.match)).astype(np.float64)
    here = apply_affine(matrices[z], nodes)
    there, as_warped = (
        stack.place_in(fixed, z, here, is_changed=is_changed) for is_changed in (True, False)
    )
    truth, without = (
        apply_affine(invert_affine(matrices[fixed]), at) - nodes for at in (there, as_warped)
    )
    is_tissue = stack.maps[z].shows_tissue(here) & stack.maps[fixed].shows_tissue(there)
    # Where there is no truth to go by, the node's own place stands for it.
    seen = np.where(np.isnan(there), apply_affine(matrices[fixed], nodes), there)
    valid_distance = np.minimum(
        sections[z].valid_distance(here), sections[fixed].valid_distance(seen)
    )
    defect_distance = np.minimum(
        stack.maps[z].defect_distance(here), stack.maps[fixed].defect_distance(seen)
    )
    return PairMatch(
        z,
        d,
        matches,
        truth.T.reshape(2, ny, nx),
        without.T.reshape(2, ny, nx),
        is_tissue.reshape(ny, nx),
        valid_distance.reshape(ny, nx),
        damage_distance(
            matches,
            spacing_px=grid_spacing_px(config.match),
            moving=sections[z].damage(matrices[z]),
            fixed=sections[fixed].damage(matrices[fixed]),
        ),
        defect_distance.reshape(ny, nx).astype(np.float32),
    )


def by_distance(outcome: Outcome, d: int) -> Iterator[PairMatch]:
    """Yield the pairs of sections d apart."""
    return (pair for pair in outcome.pairs if pair.d == d)
