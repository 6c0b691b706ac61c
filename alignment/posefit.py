"""Poses by robust least squares: where sections lie, from the affines between pairs of them.

What `alignment.placement` solves for a whole stack, and `alignment.insertion` for a few sections of
a stack whose others stay where they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu

from alignment.affines import Affine, apply_affine, compose_affines, invert_affine
from alignment.poses import Frame, angle_of, rotation_of

CYCLE = 0.06
"""Of the half diagonal: pairs that agree do so this nearly."""
_LEAST_POINTS = 4  # of them that must lie on both sections; else all are used
_TUKEY = 8.0  # cut-off, in medians of the residuals
_INEXACT = 0.04  # of the half diagonal: a pair that is no farther off is not called wrong
_ROUNDS = 40
_RIGID_ROUNDS = 4
_SETTLED_PX = 1e-3
_DAMPING = 1e-9  # holds what no pair decides; too weak to slow down what pairs do decide
_LEAST_SCORE = 0.05
_LEAST_RIGIDITY = 1e-3  # without any, the smallest residual is that of sections shrunk to a point


@dataclass(frozen=True)
class PairAffine:
    """Where tissue of one section lies in another."""

    matrix: Affine
    """(2, 3), px at mip 0: takes the fixed section's (y, x) to the moving section's."""
    score: float
    """Normalised cross-correlation there, 0..1; the pair's weight."""
    inliers: int
    """Blocks of the section that agree by themselves."""
    method: str
    """How the place was found first."""


class PairLinks:
    """The pairs as arrays, one row a pair; sections are numbered without the missing ones."""

    def __init__(
        self,
        pairs: Mapping[tuple[int, int], PairAffine],
        present: Sequence[int],
        frame: Frame,
    ) -> None:
        number = {z: i for i, z in enumerate(present)}
        self.keys = sorted((z, d) for z, d in pairs if z in number and z - d in number)
        chosen = [pairs[key] for key in self.keys]
        self.fixed = np.array([number[z - d] for z, d in self.keys], np.intp)
        self.moving = np.array([number[z] for z, _ in self.keys], np.intp)
        self.matrix = np.array([pair.matrix for pair in chosen], np.float64).reshape(-1, 2, 3)
        distance = np.array([d for _, d in self.keys], np.float64)
        self.weight = np.array([max(pair.score, _LEAST_SCORE) for pair in chosen]) / distance
        # Tissue changes like a random walk: farther pairs may be farther off.
        self.spread = np.sqrt(distance)
        self.moments = np.array([_moments(matrix, frame) for matrix in self.matrix])
        self.moments = self.moments.reshape(-1, 6, 6)

    def suggestion(
        self, k: int, poses: NDArray[np.float64], frame: Frame, *, of_fixed: bool
    ) -> tuple[int, Affine]:
        """Return one section of pair `k` and the rigid pose that the other one's suggests."""
        fixed, moving, matrix = int(self.fixed[k]), int(self.moving[k]), self.matrix[k]
        if of_fixed:
            push = compose_affines(frame.push(poses[moving]), matrix)
            return fixed, nearest_rigid(frame.pose(push), frame)
        push = compose_affines(frame.push(poses[fixed]), invert_affine(matrix))
        return moving, nearest_rigid(frame.pose(push), frame)

    def residual_px(self, poses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the root mean square distance of each pair's points, px of the common frame."""
        both = np.concatenate([poses[self.moving], poses[self.fixed]], axis=2)
        square = np.einsum("nri,nij,nrj->n", both, self.moments, both)
        return np.sqrt(np.maximum(square, 0.0))


def nearest_rigid(pose: Affine, frame: Frame) -> Affine:
    """Return the rigid pose nearest to a pose: its turn and its place, without stretch."""
    return frame.rigid(float(angle_of(pose)), pose[:, 2])


def _moments(matrix: Affine, frame: Frame) -> NDArray[np.float64]:
    """Mean outer product of (a, -b), the bases of points of the moving and the fixed section."""
    moved = apply_affine(matrix, frame.grid)
    # Beyond the overlap the pair is extrapolated, and wrong by more than it says.
    shown = ((moved > -1) & (moved < frame.size)).all(axis=1)
    use = shown if np.count_nonzero(shown) >= _LEAST_POINTS else np.ones_like(shown)
    rows = np.hstack([frame.basis(moved[use]), -frame.basis(frame.grid[use])])
    return rows.T @ rows / len(rows)


def relaxed_poses(
    poses: NDArray[np.float64],
    links: PairLinks,
    frame: Frame,
    rigidity: float,
    *,
    held: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the least-squares poses and which pairs have a say in them.

    Parameters
    ----------
    poses : float64 ndarray of shape (n, 2, 3)
        Where to begin.
    links : PairLinks
    frame : Frame
    rigidity : float
        Weight of the pull towards rigid poses, against a pair of weight 1.
    held : bool ndarray of shape (n,), optional
        Which poses stay as they are; none without.

    Returns
    -------
    poses : float64 ndarray of shape (n, 2, 3)
    kept : bool ndarray, one a pair
    """
    trust = np.ones(len(links.keys))
    if not links.keys:
        return poses, trust > 0
    # Pairs are judged by each other alone. Were the pull to rigid present, it would out-vote the
    # only pair of a section that really is stretched.
    for step in range(_ROUNDS):
        residual = links.residual_px(poses) / links.spread
        # Wide at first: rigid poses are only near the answer.
        wide = 2.0 ** (1 - step / 2) * CYCLE
        least = max(_TUKEY * float(np.median(residual)), _INEXACT * frame.radius_px)
        cut = max(least, wide * frame.radius_px)
        trust = np.square(np.maximum(1 - np.square(residual / cut), 0.0))
        before = poses
        poses = _solved(poses, links, links.weight * trust, frame, _LEAST_RIGIDITY, held)
        if cut == least and float(np.abs(poses - before).max()) < _SETTLED_PX:
            break
    for _ in range(_RIGID_ROUNDS):
        least_rigid = max(rigidity, _LEAST_RIGIDITY)
        poses = _solved(poses, links, links.weight * trust, frame, least_rigid, held)
    return poses, trust > 0


def _solved(
    poses: NDArray[np.float64],
    links: PairLinks,
    weight: NDArray[np.float64],
    frame: Frame,
    rigidity: float,
    held: NDArray[np.bool_] | None,
) -> NDArray[np.float64]:
    """One weighted least-squares solution, linear about the rotations that `poses` have now."""
    count = len(poses)
    # Unknowns: row y, then row x of every pose, so three a row and six a section.
    row_start = 6 * np.arange(count)[:, None] + np.array([0, 3])
    both = np.stack([links.moving, links.fixed], axis=1)
    # (pairs, 2 rows, 6): where the coefficients of the moving and the fixed pose's row stand.
    place = (row_start[both].transpose(0, 2, 1)[..., None] + np.arange(3)).reshape(-1, 2, 6)
    values = np.broadcast_to((weight[:, None, None] * links.moments)[:, None], (*place.shape, 6))
    rows = np.broadcast_to(place[..., :, None], values.shape)
    columns = np.broadcast_to(place[..., None, :], values.shape)

    # To first order, N = R' M / radius departs from rigid by its symmetric part minus 1 alone.
    turn = rotation_of(poses)
    c, s, o = turn[:, 0, 0], turn[:, 1, 0], np.zeros(count)
    h = math.sqrt(0.5)
    strain = np.stack(
        [
            np.stack([c, o, o, s, o, o], axis=1),
            np.stack([o, -s, o, o, c, o], axis=1),
            np.stack([-h * s, h * c, o, h * c, h * s, o], axis=1),
        ],
        axis=1,
    )
    # A strain moves a pixel by its distance from the centre, whose mean square is radius^2 / 3.
    pull = rigidity / 6
    own = pull * np.einsum("nei,nej->nij", strain, strain) + _DAMPING * np.eye(6)
    right = pull * frame.radius_px * (strain[:, 0] + strain[:, 1]) + _DAMPING * poses.reshape(-1, 6)
    own_rows = np.broadcast_to(
        (6 * np.arange(count)[:, None] + np.arange(6))[:, :, None], own.shape
    )
    matrix = coo_array(
        (
            np.concatenate([values.ravel(), own.ravel()]),
            (
                np.concatenate([rows.ravel(), own_rows.ravel()]),
                np.concatenate([columns.ravel(), own_rows.transpose(0, 2, 1).ravel()]),
            ),
        ),
        shape=(6 * count, 6 * count),
    )
    answer = poses.reshape(-1).copy()
    free = np.repeat(np.ones(count, bool) if held is None else ~held, 6)
    rows_of_free = matrix.tocsr()[free].tocsc()
    known = rows_of_free[:, ~free] @ answer[~free]
    solver = splu(rows_of_free[:, free], permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0)
    answer[free] = solver.solve(right.ravel()[free] - known)
    return answer.reshape(count, 2, 3)
