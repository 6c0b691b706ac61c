"""How far an alignment is from a known truth.

Section z shows at its pixel p the tissue at B_z(p). `Truth` holds these maps at nodes, and
`neighbour_residuals` says how far an alignment leaves the same tissue of two sections apart.
Correlation of the images cannot say that: it rewards an aligner that deforms real change of the
tissue away.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError, ShapeError
from alignment.fields import Points, evaluate, map_to_source


@dataclass(frozen=True)
class Truth:
    """Which tissue every section shows, at nodes: node (i, j) lies on pixel (i, j) * step_px.

    Attributes
    ----------
    to_tissue : float32 ndarray of shape (nz, 2, ny, nx)
        Displacement B_z(p) - p, (dy, dx) in px of mip 0: pixel p shows the tissue at p + to_tissue.
        Bilinear between the nodes.
    tissue : bool ndarray of shape (nz, ny, nx)
        False where a node shows none, or where the map is not smooth (in a fold): between four
        True nodes bilinear interpolation holds.
    step_px : int
        Distance of the nodes.
    """

    to_tissue: NDArray[np.float32]
    tissue: NDArray[np.bool_]
    step_px: int

    def locate(self, z: int, source: Points) -> Points:
        """Return the tissue positions (n, 2) that section z shows at pixels (n, 2).

        NaN where it shows no tissue.
        """
        node = source / self.step_px
        last = np.array(self.tissue.shape[1:]) - 1
        inside = np.all((node >= 0) & (node <= last), axis=1)
        node = np.where(inside[:, None], node, 0)
        below, above = np.floor(node).astype(np.intp), np.ceil(node).astype(np.intp)
        tissue = self.tissue[z]
        for y in (below[:, 0], above[:, 0]):
            for x in (below[:, 1], above[:, 1]):
                inside &= tissue[y, x]
        shown = source + evaluate(self.to_tissue[z], self.step_px, source)
        return np.where(inside[:, None], shown, np.nan)


class Residuals(NamedTuple):
    """How far pairs of sections are apart, in px of the tissue."""

    pairs: tuple[tuple[int, int], ...]
    """Sections (z, fixed)."""
    distance_px: tuple[NDArray[np.float32], ...]
    """Of every pair, one value for each point where both sections show tissue."""
    coverage: tuple[float, ...]
    """Of every pair, the share of the canvas that these points make up."""


def neighbour_residuals(
    truth: Truth,
    coarse: NDArray[np.float64],
    fields: NDArray[np.float32],
    spacing_px: int,
    *,
    distance: int = 1,
    sample_px: int = 8,
) -> Residuals:
    """Measure how far an alignment leaves the same tissue of two sections apart.

    At the aligned point a, section z shows the tissue at t_z(a) = B_z(C_z(a + F_z(a))); the
    residual is ``|t_z(a) - t_fixed(a)|``. A transform that all sections share changes nothing but
    where it is sampled.

    Parameters
    ----------
    truth : Truth
    coarse : float64 ndarray of shape (nz, 2, 3)
        C_z, rows y and x: common to source frame, px of mip 0.
    fields : float32 ndarray of shape (nz, 2, ny, nx)
        F_z, published (pull) fields (dy, dx), px of mip 0; NaN where unknown.
    spacing_px : int
        Distance of the fields' nodes, which span the canvas.
    distance : int
        1 pairs every section with the nearest earlier one that is not blank, so a blank section
        is bridged; d > 1 pairs z with z - d.
    sample_px : int
        Distance of the points a.

    Raises
    ------
    ShapeError
        If the arrays do not describe the same sections.
    DataError
        If a distance is less than 1.
    """
    nz = truth.to_tissue.shape[0]
    if coarse.shape != (nz, 2, 3) or fields.ndim != 4 or fields.shape[:2] != (nz, 2):
        raise ShapeError(
            f"a truth of {nz} sections needs coarse ({nz}, 2, 3) and fields ({nz}, 2, ny, nx); "
            f"got {coarse.shape} and {fields.shape}"
        )
    if distance < 1 or sample_px < 1 or spacing_px < 1:
        raise DataError(
            "distance, sample_px and spacing_px must be 1 or more; "
            f"got {distance}, {sample_px} and {spacing_px}"
        )
    rows, columns = (np.arange(0, (n - 1) * spacing_px + 1, sample_px) for n in fields.shape[2:])
    canvas = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)

    def locate(z: int) -> Points:
        source = map_to_source(coarse[z], fields[z], spacing_px, canvas.astype(np.float64))
        return truth.locate(z, source)

    shown = [z for z in range(nz) if truth.tissue[z].any()]
    if distance == 1:
        pairs = [(z, fixed) for fixed, z in pairwise(shown)]
    else:
        pairs = [(z, z - distance) for z in shown if z - distance in shown]
    values, coverage = [], []
    located: dict[int, Points] = {}
    for z, fixed in pairs:
        # Pairs ascend, so what lies before `fixed` is not needed again.
        located = {k: at for k, at in located.items() if k >= fixed}
        for k in (fixed, z):
            if k not in located:
                located[k] = locate(k)
        apart = np.hypot(*(located[z] - located[fixed]).T)
        known = np.isfinite(apart)
        values.append(apart[known].astype(np.float32))
        coverage.append(float(known.mean()))
    return Residuals(tuple(pairs), tuple(values), tuple(coverage))


def identity_alignment(truth: Truth) -> tuple[NDArray[np.float64], NDArray[np.float32], int]:
    """Return the coarse affines, fields and spacing (px) that leave sections as they came."""
    nz, _, ny, nx = truth.to_tissue.shape
    coarse = np.tile(np.eye(2, 3), (nz, 1, 1))
    return coarse, np.zeros((nz, 2, ny, nx), np.float32), truth.step_px


def summarise(
    truth: Truth,
    coarse: NDArray[np.float64],
    fields: NDArray[np.float32],
    spacing_px: int,
    *,
    drift_distance: int = 5,
    sample_px: int = 8,
) -> dict[str, Any]:
    """Return the accuracy of an alignment as plain values, ready for JSON.

    Parameters are those of `neighbour_residuals`.

    Returns
    -------
    dict
        Under `neighbours`, `drift` (sections `drift_distance` apart) and `unaligned` (neighbours
        as they came): `median_px`, `p95_px` and `p99_px` over all points, `coverage`, the same for
        each of `pairs` (`z`, `fixed`), and `worst_pair`, that with the largest median. None where
        nothing was measured.
    """
    alignment = (coarse, fields, spacing_px)
    measured = {
        "neighbours": neighbour_residuals(truth, *alignment, sample_px=sample_px),
        "drift": neighbour_residuals(
            truth, *alignment, distance=drift_distance, sample_px=sample_px
        ),
        "unaligned": neighbour_residuals(truth, *identity_alignment(truth), sample_px=sample_px),
    }
    return {name: _statistics(residuals) for name, residuals in measured.items()}


def _statistics(residuals: Residuals) -> dict[str, Any]:
    pairs: list[dict[str, Any]] = [
        {"z": z, "fixed": fixed, **_quantiles(values), "coverage": round(coverage, 4)}
        for (z, fixed), values, coverage in zip(*residuals, strict=True)
    ]
    known = [pair for pair in pairs if pair["median_px"] is not None]
    return {
        **_quantiles(np.concatenate([np.empty(0, np.float32), *residuals.distance_px])),
        "coverage": round(float(np.mean(residuals.coverage)), 4) if pairs else None,
        "worst_pair": max(known, key=lambda pair: float(pair["median_px"]), default=None),
        "pairs": pairs,
    }


def _quantiles(values: NDArray[np.float32]) -> dict[str, float | None]:
    names = ("median_px", "p95_px", "p99_px")
    if not values.size:
        return dict.fromkeys(names)
    found = np.percentile(values, (50, 95, 99))
    return {name: round(float(value), 4) for name, value in zip(names, found, strict=True)}
