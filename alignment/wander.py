"""Wander: how whole sections drift along the stack, slowly, from where they were placed coarsely.

Matches that are all off the same way add up over a stack. Neighbours still lie on each other, so no
residual shows it; what does is how far alignment moves whole sections, once what differs from
section to section is smoothed away. Some of it may be right: the coarse places have errors, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignment.bilinear import Field, check_field, grid_points

WINDOW_SECTIONS = 25
"""Full width at half maximum of the Gaussian along z: what is shorter is not wander."""

Rows = NDArray[np.float64]

QUANTITIES = ("dy", "dx", "turn", "growth")


@dataclass(frozen=True)
class Wander:
    """How whole sections moved; columns are `QUANTITIES`.

    Attributes
    ----------
    moved : float64 ndarray of shape (nz, 4)
        Mean displacement of a section's tissue (dy, dx), px; then how far turning (from y towards
        x) and growth move its farthest corner, px. NaN for sections without a field.
    slow : float64 ndarray of shape (nz, 4)
        The same, smoothed along z.
    """

    moved: Rows
    slow: Rows

    @property
    def peak_to_peak_px(self) -> dict[str, float]:
        """Largest minus least smoothed value by quantity, px; NaN without any section."""
        known = self.slow[np.isfinite(self.slow).all(axis=1)]
        spread = np.ptp(known, axis=0) if len(known) else np.full(len(QUANTITIES), np.nan)
        return dict(zip(QUANTITIES, spread.tolist(), strict=True))


def measure_wander(fields: Iterable[Field | None], spacing: float) -> Wander:
    """Measure the wander of a stack.

    Parameters
    ----------
    fields : iterable of float32 ndarray of shape (2, ny, nx), or None
        Published (pull) fields by ascending z, px; None where a section has no tissue of its own.
        They are looked at one by one.
    spacing : float
        Distance of the nodes, px.
    """
    unknown = np.full(len(QUANTITIES), np.nan)
    moved = np.array([unknown if f is None else _moved(f, spacing) for f in fields])
    return Wander(moved, low_pass(moved))


def low_pass(rows: Rows, window: float = WINDOW_SECTIONS) -> Rows:
    """Smooth (nz, k) along z by a Gaussian of that full width at half maximum, in sections.

    At the ends, and beside NaN, only what is known counts. A row that is NaN stays NaN.
    """
    z = np.arange(len(rows))
    known = np.isfinite(rows).all(axis=1)
    weight = np.exp(-4 * np.log(2) * ((z[:, None] - z) / window) ** 2) * known
    slow = (
        weight @ np.where(known[:, None], rows, 0) / np.maximum(weight.sum(axis=1), 1e-12)[:, None]
    )
    return np.where(known[:, None], slow, np.nan)


def _moved(field: Field, spacing: float) -> Rows:
    """Fit an affine to a pull field, and return what its inverse does to the section (4,)."""
    ny, nx = check_field(field)
    nodes = grid_points(ny, nx, spacing)
    nodes -= nodes.mean(axis=0)
    push = -field.reshape(2, -1).T.astype(np.float64)  # to first order
    known = np.isfinite(push).all(axis=1)
    design = np.column_stack([np.ones(len(nodes)), nodes])
    (dy, dx), (yy, xy), (yx, xx) = np.linalg.lstsq(design[known], push[known], rcond=None)[0]
    corner_px = np.hypot(*nodes.max(axis=0))
    return np.array([dy, dx, (xy - yx) / 2 * corner_px, (yy + xx) / 2 * corner_px])
