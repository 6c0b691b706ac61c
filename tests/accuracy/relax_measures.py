"""How far an aligned stack leaves neighbours apart: the residual of the tables of relaxation.

At a point y of the aligned volume section z shows its own pixel P_z(y), and there the tissue
B_z(P_z(y)) of its base image, which is known. For sections z and z - k the residual is::

    |B_z(P_z(y)) - B_{z-k}(P_{z-k}(y))|

over the points where both show tissue that the masks call valid; px of the base image. A transform
of the whole volume changes which points are looked at, and nothing else. But for one: where tissue
runs obliquely, an aligner stands it upright, which shears the volume. So there is a second figure,
"upright", without the mean displacement of all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.bilinear import grid_points
from alignment.fields import map_to_source
from tests.accuracy.relax_matched import Matched

Values = NDArray[np.float64]

STEP_PX = 8
NEAR_PX = 48.0
"""Nearer than this to a fold, crack or blank is near a defect."""
INNER_PX = 96.0
"""Farther than this from the ends of both sections is inner."""
FAR_SECTIONS = 5
SHEAR_FROM_PX, SHEAR_TO_PX = 50.0, 146.0
_SHEAR_STEPS = 4


@dataclass(frozen=True)
class Shown:
    """What the aligned sections show at a grid of points of the volume; nz, ny, nx points."""

    tissue: Values
    """(nz, 2, ny, nx): px of the base image."""
    is_tissue: NDArray[np.bool_]
    """(nz, ny, nx): where the section shows tissue, and the masks call it valid."""
    seen: int
    """Points where sections show tissue, valid or not."""
    defect_px: Values
    """Distance to the section's true defect; negative in it, inf without."""
    end_px: Values
    """Distance to the section's nearest end."""
    is_cracked: NDArray[np.bool_]
    """(nz,)."""
    gone: tuple[int, ...]


def show(group: Matched, fields: NDArray[np.float32], spacing_px: int, *, mip: int = 1) -> Shown:
    """Look through the fields (nz, 2, ny, nx), whose nodes lie `spacing_px` apart.

    `mip` is that of the masks.
    """
    shape = tuple(-(-n // STEP_PX) for n in group.canvas)
    points = grid_points(shape[0], shape[1], STEP_PX).astype(np.float64)
    tissue, shown, defect, end = [], [], [], []
    seen = 0
    for z, one in enumerate(group.maps):
        at = map_to_source(group.matrices[z], fields[z], spacing_px, points)
        tissue.append(one.tissue_at(at).T.reshape(2, *shape))
        tissue_there = one.shows_tissue(at) & (z not in group.gone)
        seen += int(np.count_nonzero(tissue_there))
        shown.append((tissue_there & group.is_valid(z, at, mip)).reshape(shape))
        defect.append(one.defect_distance(at).reshape(shape))
        far = np.array(one.shape_yx) - 1 - at
        end.append(np.minimum(at, far).min(1).reshape(shape))
    return Shown(
        np.stack(tissue),
        np.stack(shown),
        seen,
        np.stack(defect),
        np.stack(end),
        np.array([one.defect == "crack" for one in group.maps]),
        group.gone,
    )


@dataclass(frozen=True)
class Residuals:
    """Residuals of neighbours, by where they lie; each float64 (n,), px."""

    everywhere: Values
    away: Values
    """Farther than `NEAR_PX` from defects of both sections."""
    near: Values
    inner: Values
    far: Values
    """Of sections `FAR_SECTIONS` apart."""
    upright: Values
    """Everywhere, without the mean over all pairs of a group, two numbers each."""
    far_upright: Values
    pair_medians: Values
    """Of every pair of neighbours."""
    crack_shear: Values
    """Shear of the misfit of pairs with a cracked section, `SHEAR_FROM_PX` to `SHEAR_TO_PX` away
    from it, px per px."""
    other_shear: Values
    """The same of pairs without a defect."""


def residuals(groups: Sequence[Shown]) -> Residuals:
    """Collect the residuals of all groups."""
    parts: dict[str, list[Values]] = {name: [np.zeros(0)] for name in Residuals.__annotations__}
    for shown in groups:
        there = [z for z in range(len(shown.tissue)) if z not in shown.gone]
        for before, z in pairwise(there):
            _add_pair(parts, shown, before, z)
        mean = _misfits(shown, list(pairwise(there))).mean(1)
        for gap, name in ((1, ""), (FAR_SECTIONS, "far")):
            misfit = _misfits(shown, list(zip(there, there[gap:], strict=False)))
            if name:
                parts[name].append(np.hypot(*misfit))
            sheared = np.hypot(*(misfit - gap * mean[:, np.newaxis]))
            parts["far_upright" if name else "upright"].append(sheared)
    return Residuals(**{name: np.concatenate(some) for name, some in parts.items()})


def _misfits(shown: Shown, pairs: Sequence[tuple[int, int]]) -> Values:
    """Return the misfits (2, n) of all points of some pairs."""
    found = [np.zeros((2, 0))]
    for before, z in pairs:
        both = shown.is_tissue[z] & shown.is_tissue[before]
        found.append((shown.tissue[z] - shown.tissue[before])[:, both])
    return np.concatenate(found, axis=1)


def _add_pair(parts: dict[str, list[Values]], shown: Shown, before: int, z: int) -> None:
    both = shown.is_tissue[z] & shown.is_tissue[before]
    misfit = np.where(both, shown.tissue[z] - shown.tissue[before], np.nan)
    length = np.hypot(*misfit)
    defect = np.minimum(shown.defect_px[z], shown.defect_px[before])
    end = np.minimum(shown.end_px[z], shown.end_px[before])
    parts["everywhere"].append(length[both])
    parts["away"].append(length[both & (defect >= NEAR_PX)])
    parts["near"].append(length[both & (defect < NEAR_PX)])
    parts["inner"].append(length[both & (end >= INNER_PX)])
    if both.any():
        parts["pair_medians"].append(np.median(length[both], keepdims=True))
    # The nearer points are left out before differences are taken: none reaches over to them.
    shear = _shear(np.where(defect >= SHEAR_FROM_PX, misfit, np.nan))
    if shown.is_cracked[[z, before]].any():
        ring = np.isfinite(shear) & (defect < SHEAR_TO_PX)
        parts["crack_shear"].append(shear[ring])
    elif np.isinf(defect).all():
        parts["other_shear"].append(shear[np.isfinite(shear)])


def _shear(misfit: Values) -> Values:
    """Return |d(dy)/dx + d(dx)/dy| / 2 of a misfit (2, ny, nx) over 32 px; NaN where unknown."""
    step, length = _SHEAR_STEPS, _SHEAR_STEPS * STEP_PX
    down = (misfit[1, step:, :-step] - misfit[1, :-step, :-step]) / length
    right = (misfit[0, :-step, step:] - misfit[0, :-step, :-step]) / length
    shear = np.full(misfit.shape[1:], np.nan)
    shear[:-step, :-step] = np.abs(down + right) / 2
    return shear


def correlation(group: Matched, fields: NDArray[np.float32], spacing_px: int) -> list[float]:
    """Return Pearson's correlation of every pair of aligned neighbours over their tissue.

    Every second pixel along y and x is looked at, after smoothing (sigma 1.5 px), so that neither
    noise nor a blurring interpolation counts.
    """
    height, width = (-(-n // 2) for n in group.canvas)
    points = grid_points(height, width, 2).astype(np.float64)
    before: tuple[Values, NDArray[np.bool_]] | None = None
    found = []
    for z, one in enumerate(group.maps):
        if z in group.gone:
            continue
        at = map_to_source(group.matrices[z], fields[z], spacing_px, points)
        y, x = at.T.reshape(2, height, width).astype(np.float32)
        image = cv2.GaussianBlur(group.images[z], (0, 0), 1.5)
        grey = cv2.remap(image, x, y, cv2.INTER_LINEAR).astype(np.float64)
        shown = one.shows_tissue(at).reshape(height, width)
        if before is not None:
            both = shown & before[1]
            if both.any():
                found.append(float(np.corrcoef(grey[both], before[0][both])[0, 1]))
        before = grey, shown
    return found
