"""How far matches lie from damaged tissue.

A template that straddles a fold or a crack sees two displacements and answers with something
between them, at a good score: masking the damage leaves the tissue on both sides. Such a match says
nothing of its node. Those whose node lies on the damage, or close to it, are the wrong ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.affines import Affine, apply_affine
from alignment.bilinear import grid_points
from alignment.defects import Defect

HARMLESS = Defect.OUTSIDE | Defect.SEAM
"""Reasons that part no tissue: the section's end, and a step of grey."""


@dataclass(frozen=True)
class Damage:
    """Where a section is damaged, and where the section lies."""

    distance_px: NDArray[np.float32]
    """(y, x) of the section at `mip`: from each pixel to the nearest damaged one, px at mip 0."""
    mip: int
    matrix: Affine
    """(2, 3): common frame to section, px at mip 0."""

    @classmethod
    def of(cls, defects: NDArray[np.uint8], *, mip: int, matrix: Affine) -> Self:
        """Measure the distances to what is damaged.

        Parameters
        ----------
        defects : uint8 ndarray of shape (y, x)
            `Defect` flags at `mip`.
        mip : int
        matrix : float64 ndarray of shape (2, 3)
            Common frame to section, px at mip 0.
        """
        whole = (defects & np.uint8(~HARMLESS & 0xFF)) == 0
        if whole.all():
            distance = np.full(defects.shape, np.inf, np.float32)
        else:
            distance = cv2.distanceTransform(
                whole.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
            )
        return cls(np.asarray(distance * np.float32(2**mip), np.float32), mip, matrix)

    def at(self, points: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the distance (n,) of points (n, 2) of the common frame; inf off the section."""
        there = apply_affine(self.matrix, points)
        pixels = np.rint((there + 0.5) / 2**self.mip - 0.5)
        inside = ((pixels >= 0) & (pixels < self.distance_px.shape)).all(1)
        found = np.full(len(points), np.inf, np.float32)
        found[inside] = self.distance_px[*pixels[inside].astype(np.intp).T]
        return found


def damage_distance(
    matches: NDArray[np.float32], *, spacing_px: int, moving: Damage, fixed: Damage
) -> NDArray[np.float32]:
    """Return how far the ends of each match lie from damage in their sections.

    Parameters
    ----------
    matches : float32 ndarray of shape (2 or more, ny, nx)
        Displacements (dy, dx) first, px at mip 0; NaN where there is none.
    spacing_px : int
        Distance of the nodes, px at mip 0.
    moving, fixed : Damage
        Of the section that the nodes lie in, and of the one that they were found in.

    Returns
    -------
    float32 ndarray of shape (ny, nx)
        The smaller of the two distances, px at mip 0; inf where there is no match.
    """
    _, ny, nx = matches.shape
    nodes = grid_points(ny, nx, spacing_px).astype(np.float64)
    shift = matches[:2].reshape(2, -1).T.astype(np.float64)
    known = ~np.isnan(shift[:, 0])
    nearest = np.full(len(nodes), np.inf, np.float32)
    nearest[known] = np.minimum(moving.at(nodes[known]), fixed.at(nodes[known] + shift[known]))
    return nearest.reshape(ny, nx)
