"""Poses: where a section lies in the common frame, measured by the section's own size.

A pose is float64 (2, 3), rows y and x. Its last column is where the section's centre lies; its
linear part says where a point half a diagonal away from the centre goes, seen from there. All six
numbers are px, so they weigh alike in a least-squares problem, and a rigid pose is a rotation times
half the diagonal. Angles are radians, from y to x.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from alignment.affines import Affine, apply_affine
from alignment.bilinear import Points

Poses = NDArray[np.float64]

_GRID = 4  # points per axis at which poses are compared
_SAME_TURN = math.radians(15)  # sections turned by less than this stood alike in the microscope
_COMPARED = 512  # angles; enough to find the commonest of any number
_TURNED = math.radians(45)  # neighbours turned further against each other are not averaged


class Frame:
    """The geometry that all sections share."""

    def __init__(self, shape_yx: tuple[int, int]) -> None:
        """Measure sections of a shape, px at mip 0."""
        self.size = np.array(shape_yx, np.float64)
        self.centre = (self.size - 1) / 2
        self.radius_px = float(np.hypot(*self.size)) / 2
        self.identity: Affine = np.column_stack([np.eye(2) * self.radius_px, self.centre])
        steps = (np.arange(_GRID) + 0.5) / _GRID
        unit = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
        self.grid: Points = unit * self.size - 0.5
        """Points spread evenly over a section, (16, 2)."""

    def basis(self, points: Points) -> NDArray[np.float64]:
        """Return the rows (n, 3) with which a pose's rows give where `points` lie."""
        return np.column_stack([(points - self.centre) / self.radius_px, np.ones(len(points))])

    def push(self, pose: Affine) -> Affine:
        """Return a pose as the affine that takes px of the section to the common frame."""
        linear = pose[:, :2] / self.radius_px
        return np.column_stack([linear, pose[:, 2] - linear @ self.centre])

    def pose(self, push: Affine) -> Affine:
        """Undo `push`."""
        place = apply_affine(push, self.centre[np.newaxis])[0]
        return np.column_stack([push[:, :2] * self.radius_px, place])

    def rigid(self, angle: float, place: NDArray[np.float64]) -> Affine:
        """Return the rigid pose at an angle, with the section's centre at a place."""
        c, s = math.cos(angle), math.sin(angle)
        return np.column_stack([np.array([[c, -s], [s, c]]) * self.radius_px, place])


def angle_of(poses: Poses) -> NDArray[np.float64]:
    """Return the angles of the nearest rotations of poses (..., 2, 3)."""
    return np.arctan2(poses[..., 1, 0] - poses[..., 0, 1], poses[..., 0, 0] + poses[..., 1, 1])


def rotation_of(poses: Poses) -> NDArray[np.float64]:
    """Return the nearest rotations, (..., 2, 2)."""
    angle = angle_of(poses)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s], axis=-1), np.stack([s, c], axis=-1)], axis=-2)


def moved(poses: Poses, start: Affine, goal: Affine) -> Poses:
    """Move poses (..., 2, 3) as one rigid body, so that `start` would become `goal`."""
    turn = rotation_of(goal) @ rotation_of(start).T
    result: Poses = turn @ poses
    result[..., 2] += goal[:, 2] - turn @ start[:, 2]
    return result


def typical(poses: Poses, frame: Frame) -> Affine:
    """Return the rigid pose that most of poses (n, 2, 3) have, nearly; of a tie, the first.

    Its angle is the mean, its place the median of those that are turned alike.
    """
    angles = angle_of(poses)
    candidates = angles[:: math.ceil(len(angles) / _COMPARED)]
    apart = np.abs(_wrapped(angles - candidates[:, np.newaxis]))
    commonest = candidates[int(np.minimum(apart, _SAME_TURN).sum(axis=1).argmin())]
    turn = _wrapped(angles - commonest)
    alike = np.abs(turn) <= _SAME_TURN
    angle = float(commonest + turn[alike].mean())
    return frame.rigid(angle, np.median(poses[alike, :, 2], axis=0))


def interpolated(known: Mapping[int, Affine], z: int, frame: Frame) -> Affine:
    """Return the pose of section z, if need be from the nearest known ones on both sides.

    Rotations are interpolated by angle, the shorter way round, so that sections do not shrink
    between two that are turned; beyond the first and the last known section, these are repeated.
    Where the two neighbours are turned against each other by more than 45 degrees, one of them is
    the exception, and the pose of the other, less turned one is taken.
    """
    if z in known:
        return known[z]
    below = max((k for k in known if k < z), default=min(known))
    above = min((k for k in known if k > z), default=max(known))
    low, high = known[below], known[above]
    turn = float(_wrapped(angle_of(high) - angle_of(low)))
    if abs(turn) > _TURNED:
        return low if abs(angle_of(low)) <= abs(angle_of(high)) else high
    share = (z - below) / (above - below) if above != below else 0.0
    place = (1 - share) * low[:, 2] + share * high[:, 2]
    pose = frame.rigid(float(angle_of(low)) + share * turn, place)
    stretch = [rotation_of(p).T @ p[:, :2] / frame.radius_px for p in (low, high)]
    pose[:, :2] = pose[:, :2] @ ((1 - share) * stretch[0] + share * stretch[1])
    return pose


def _wrapped(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the same angle in -pi..pi."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
