"""Known stacks up to their matches, kept on disk so that what follows can be tuned quickly.

`matched` takes a stack through masks, coarse and match with the functions of the stages and writes
the answer to a folder outside the repository, under a name that depends on the code and the
settings which made it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import alignment
from alignment.affines import apply_affine
from alignment.bilinear import grid_points
from alignment.config import PipelineConfig
from alignment.match import CHANNELS, grid_shape, grid_spacing_px
from tests.accuracy.recipes import SectionMap
from tests.accuracy.relax_cases import Case
from tests.accuracy.runner import Section, match_pair, place

Floats = NDArray[np.float32]

CACHE = Path(os.environ.get("ALIGN_RELAX_CACHE", tempfile.gettempdir())) / "relax-cache"
_SOURCES = (
    *("masks", "folds", "bands", "seams", "illumination", "features", "coarse", "proposals"),
    *("comparison", "blockfit", "placement", "match", "ncc", "correlation", "rematch", "patches"),
)
_GROSS_SHARE, _GROSS_PX = 0.1, 40.0


@dataclass(frozen=True)
class Matched:
    """Sections that are aligned with each other, as matching leaves them. Sections count from 0."""

    matrices: NDArray[np.float64]
    """(nz, 2, 3): common frame to section."""
    canvas: tuple[int, int]
    matches: dict[tuple[int, int], Floats]
    """(z, d) to (len(CHANNELS), ny, nx)."""
    defects: NDArray[np.uint8]
    """(nz, y, x) at masks.mip: `Defect` flags."""
    gone: tuple[int, ...]
    """Missing sections."""
    lost: int
    """Pairs that the coarse stage found nothing for."""
    maps: tuple[SectionMap, ...]
    base: tuple[int, ...]
    images: NDArray[np.uint8]
    """(nz, y, x)."""

    def rank(self, z: int, d: int) -> int:
        """Say whether section z - d is the first, second ... earlier one that is there."""
        return sum(k not in self.gone for k in range(z - d, z))

    def is_valid(self, z: int, places: NDArray[np.float64], mip: int) -> NDArray[np.bool_]:
        """Return whether the masks of section z, computed at `mip`, let its px (n, 2) be used."""
        at = np.rint((places + 0.5) / 2**mip - 0.5).astype(np.intp)
        inside = ((at >= 0) & (at < self.defects.shape[1:])).all(1)
        seen = np.zeros(len(at), bool)
        seen[inside] = self.defects[z][*at[inside].T] == 0
        return seen

    def tissue_at_nodes(self, z: int, spacing_px: int, mip: int) -> NDArray[np.bool_]:
        """Return at which nodes of the matches section z shows tissue."""
        shape = grid_nodes(self.canvas, spacing_px)
        nodes = grid_points(*shape, spacing_px).astype(np.float64)
        return self.is_valid(z, apply_affine(self.matrices[z], nodes), mip).reshape(shape)


def grid_nodes(canvas: tuple[int, int], spacing_px: int) -> tuple[int, int]:
    """Return how many nodes (ny, nx) the matches of a canvas have."""
    config = PipelineConfig().match
    if grid_spacing_px(config) != spacing_px:
        raise ValueError(f"matches every {spacing_px} px are not those of the defaults")
    return grid_shape(canvas, config)


def matched(case: Case, config: PipelineConfig) -> list[Matched]:
    """Return each group of the case's stack, from the cache where it is there.

    Matches go as far back as the nearest `match.retry_neighbours` earlier sections.
    """
    stack = case.make()
    path = CACHE / f"{case.label}-{_key(config)}.npz"
    if case.flaw == "outliers":  # they are made of the sound stack's matches
        path = CACHE / f"{case.label.replace('outliers', 'none')}-{_key(config)}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        sections = [Section(image, config) for image in stack.images]
        saved: dict[str, NDArray[np.generic]] = {}
        for k, group in enumerate(stack.groups):
            matrices, canvas, lost = place(stack, sections, group, config, "estimated", case.gone)
            there = [z for z in group if z not in case.gone]
            pairs = [
                (z, z - before)
                for i, z in enumerate(there)
                for before in there[max(i - config.match.retry_neighbours, 0) : i]
            ]
            made = [match_pair(sections, matrices, canvas, z, z - d, config) for z, d in pairs]
            saved |= {
                f"matrices{k}": matrices[group.start : group.stop],
                f"canvas{k}": np.array(canvas),
                f"pairs{k}": np.array(pairs),
                f"matches{k}": np.stack(made),
                f"lost{k}": np.array(len(lost)),
            }
        saved["defects"] = np.stack([section.defects for section in sections])
        part = path.with_suffix(".part.npz")
        np.savez_compressed(part, **saved)  # type: ignore[arg-type]
        part.rename(path)
    with np.load(path) as file:
        found = dict(file)
    result = []
    for k, group in enumerate(stack.groups):
        of = slice(group.start, group.stop)
        matches = {
            (int(z) - group.start, int(d)): one
            for (z, d), one in zip(found[f"pairs{k}"], found[f"matches{k}"], strict=True)
        }
        if case.flaw == "outliers":
            matches = {pair: with_outliers(one, seed=[*pair, k]) for pair, one in matches.items()}
        result.append(
            Matched(
                found[f"matrices{k}"],
                (int(found[f"canvas{k}"][0]), int(found[f"canvas{k}"][1])),
                matches,
                found["defects"][of],
                tuple(z - group.start for z in case.gone if z in group),
                int(found[f"lost{k}"]),
                stack.maps[of],
                stack.base[of],
                stack.images[of],
            )
        )
    return result


def with_outliers(matches: Floats, *, seed: list[int]) -> Floats:
    """Return matches of which a tenth are displaced at random, by up to 40 px; scores stay."""
    random = np.random.default_rng([11, *seed])
    _, ny, nx = matches.shape
    wrong = random.random((ny, nx)) < _GROSS_SHARE
    angle, radius = random.uniform(0, 2 * np.pi, (ny, nx)), np.sqrt(random.random((ny, nx)))
    result = matches.copy()
    result[0] += np.where(wrong, _GROSS_PX * radius * np.sin(angle), 0).astype(np.float32)
    result[1] += np.where(wrong, _GROSS_PX * radius * np.cos(angle), 0).astype(np.float32)
    return result


def _key(config: PipelineConfig) -> str:
    """Digest of what makes matches: settings, code, recipes."""
    digest = hashlib.sha256()
    for part in (config.masks, config.features, config.coarse, config.match):
        digest.update(part.model_dump_json().encode())
    package, here = Path(alignment.__file__).parent, Path(__file__).parent
    sources = [package / f"{name}.py" for name in _SOURCES]
    sources += [here / f"{name}.py" for name in ("recipes", "stacks", "runner")]
    for path in sources:
        digest.update(path.read_bytes())
    digest.update(",".join(CHANNELS).encode())
    return digest.hexdigest()[:12]
