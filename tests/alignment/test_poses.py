"""Poses: rigid motions of them, their commonest one, and what lies between two."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alignment.affines import apply_affine, compose_affines
from alignment.poses import Frame, angle_of, interpolated, moved, rotation_of, typical

FRAME = Frame((60, 80))
HERE = np.array([10.0, -20.0])


def at(degrees, place=HERE):
    return FRAME.rigid(math.radians(degrees), np.asarray(place, float))


def test_a_pose_is_an_affine_in_the_sections_own_measure():
    pose = at(30.0)
    push = FRAME.push(pose)
    np.testing.assert_allclose(FRAME.pose(push), pose)
    np.testing.assert_allclose(apply_affine(push, FRAME.centre[np.newaxis])[0], HERE)
    np.testing.assert_allclose(FRAME.basis(FRAME.grid) @ pose.T, apply_affine(push, FRAME.grid))
    np.testing.assert_allclose(FRAME.push(FRAME.identity), np.eye(2, 3), atol=1e-12)


def test_angles_and_rotations_ignore_stretch():
    pose = at(140.0)
    pose[:, :2] = pose[:, :2] @ np.array([[1.1, 0.05], [0.05, 0.8]])
    assert math.degrees(angle_of(pose)) == pytest.approx(140.0)
    np.testing.assert_allclose(rotation_of(pose), rotation_of(at(140.0)))


def test_poses_move_as_one_body():
    poses = np.stack([at(5.0), at(60.0, (0.0, 7.0))])
    result = moved(poses, poses[0], at(95.0, (1.0, 2.0)))
    np.testing.assert_allclose(result[0], at(95.0, (1.0, 2.0)))
    between = [np.linalg.norm(p[0, :, 2] - p[1, :, 2]) for p in (poses, result)]
    assert between[0] == pytest.approx(between[1])
    motion = compose_affines(FRAME.push(result[1]), np.eye(2, 3))
    assert math.degrees(angle_of(FRAME.pose(motion))) == pytest.approx(150.0)


def test_the_typical_pose_is_that_of_the_majority():
    poses = np.stack([at(178.0), at(90.0, (500, 500)), at(-178.0), at(-179.0), at(0.0, (900, 0))])
    result = typical(poses, FRAME)
    expected = at(180.0 + 1 / 3)
    np.testing.assert_allclose(result, expected, atol=1e-9)


def test_of_a_tie_the_first_is_typical():
    np.testing.assert_allclose(typical(np.stack([at(90.0), at(0.0, (5, 5))]), FRAME), at(90.0))


def test_rotations_are_interpolated_the_shorter_way():
    known = {2: at(170.0, (0, 0)), 6: at(-170.0, (8, 4))}
    np.testing.assert_allclose(interpolated(known, 3, FRAME), at(175.0, (2, 1)), atol=1e-9)
    np.testing.assert_allclose(interpolated(known, 5, FRAME), at(185.0, (6, 3)), atol=1e-9)


def test_stretch_is_interpolated_too():
    known = {0: at(20.0), 2: at(40.0)}
    known[2][:, :2] *= 1.2
    result = interpolated(known, 1, FRAME)
    np.testing.assert_allclose(result[:, :2], 1.1 * at(30.0)[:, :2])


@pytest.mark.parametrize(("z", "nearest"), [(0, 2), (9, 6), (2, 2)])
def test_beyond_the_known_sections_the_last_one_is_repeated(z, nearest):
    known = {2: at(10.0), 6: at(20.0)}
    np.testing.assert_allclose(interpolated(known, z, FRAME), known[nearest])


def test_between_turned_neighbours_the_straighter_one_counts():
    assert interpolated({0: at(180.0), 2: at(3.0)}, 1, FRAME) == pytest.approx(at(3.0))
    assert interpolated({0: at(3.0), 2: at(90.0)}, 1, FRAME) == pytest.approx(at(3.0))
