# SPDX-License-Identifier: Apache-2.0
"""Transforms against OpenCV and against the formulas of quaternions, which the package does not use."""

import cv2
import numpy as np
import pytest

from depth_anything_ros.geometry import Transform, TransformError, TransformTree
from depth_anything_ros.node.transforms import Transforms
from depth_anything_ros.stream.transforms import parse_transforms

SECOND = 10**9


def quaternion(axis, angle):
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    return np.r_[axis * np.sin(angle / 2), np.cos(angle / 2)]


def slerp(a, b, share):
    """Shoemake 1985."""
    if a @ b < 0:
        b = -b
    angle = np.arccos(np.clip(a @ b, -1, 1))
    return (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)


def close(transform, rotation, translation):
    np.testing.assert_allclose(transform.rotation, rotation, atol=1e-9)
    np.testing.assert_allclose(transform.translation, translation, atol=1e-9)


def test_roll_pitch_yaw_turn_about_fixed_axes_in_this_order():
    roll, pitch, yaw = 0.3, -0.7, 2.1
    x, y, z = (cv2.Rodrigues(angle * np.eye(3)[i])[0] for i, angle in enumerate((roll, pitch, yaw)))
    close(Transform.from_rpy(1, 2, 3, roll, pitch, yaw), z @ y @ x, (1, 2, 3))
    assert np.abs(x @ y @ z - z @ y @ x).max() > 0.1  # the order matters here


def test_the_optical_frame_of_rep_103():
    """rpy = (-pi/2, 0, -pi/2) from body to optical: optical z is forward, x right, y down."""
    body = Transform.from_rpy(0, 0, 0, -np.pi / 2, 0, -np.pi / 2)  # (body <- optical)
    np.testing.assert_allclose(body.apply(np.eye(3)), [[0, -1, 0], [0, 0, -1], [1, 0, 0]], atol=1e-12)


@pytest.mark.parametrize("axis, angle", [((1, 2, 3), 0.4), ((0, 0, 1), np.pi), ((1, -1, 0.2), 3.0), ((1, 0, 0), 0.0)])
def test_quaternions(axis, angle):
    unit = np.asarray(axis, float) / np.linalg.norm(axis)
    expected = cv2.Rodrigues(unit * angle)[0]
    close(Transform.from_quaternion((1, 2, 3), 2.5 * quaternion(axis, angle)), expected, (1, 2, 3))


def test_composition_and_inverse_are_those_of_4_by_4_matrices():
    def matrix(t):
        return np.vstack([np.c_[t.rotation, t.translation], [0, 0, 0, 1]])

    a, b = Transform.from_rpy(1, 2, 3, 0.1, 0.2, 0.3), Transform.from_rpy(-1, 0, 2, 1.1, -0.2, 2.3)
    np.testing.assert_allclose(matrix(a @ b), matrix(a) @ matrix(b), atol=1e-12)
    np.testing.assert_allclose(matrix(a.inverse()), np.linalg.inv(matrix(a)), atol=1e-12)
    points = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(a.apply(points), (matrix(a) @ np.c_[points, np.ones(5)].T).T[:, :3], atol=1e-12)


def test_bad_quaternions_are_refused():
    for values in ((0, 0, 0, 0), (np.nan, 0, 0, 1)):
        with pytest.raises(TransformError, match="no rotation"):
            Transform.from_quaternion((0, 0, 0), values)


def test_a_moving_frame_is_interpolated_straight_and_by_slerp():
    tree = TransformTree()
    poses = [((0, 0, 0), quaternion((1, 2, 0.5), 0.2)), ((2, -1, 4), quaternion((1, 0, 1), 2.5))]
    for i, (shift, turn) in enumerate(poses):
        tree.add("odom", "base", Transform.from_quaternion(shift, turn), (10 + i) * SECOND)
    tree.add("base", "camera", Transform.from_rpy(0.1, 0, 0.5, 0, 0.2, 0))
    for share in (0.0, 0.3, 0.99, 1.0):
        turn = slerp(poses[0][1], poses[1][1], share)
        moved = Transform.from_quaternion(share * np.array(poses[1][0]), turn)
        found = tree.lookup("odom", "camera", int((10 + share) * SECOND))
        expected = moved @ Transform.from_rpy(0.1, 0, 0.5, 0, 0.2, 0)
        np.testing.assert_allclose(found.rotation, expected.rotation, atol=1e-7)
        np.testing.assert_allclose(found.translation, expected.translation, atol=1e-7)
        back = tree.lookup("camera", "odom", int((10 + share) * SECOND))
        np.testing.assert_allclose((found @ back).rotation, np.eye(3), atol=1e-9)


def test_nothing_is_guessed():
    tree = TransformTree(history=5)
    tree.add("odom", "base", Transform.identity(), 10 * SECOND)
    tree.add("odom", "base", Transform.identity(), 11 * SECOND)
    for stamp, word in ((9, "from 10.000"), (12, "until 11.000")):
        with pytest.raises(TransformError, match=word):
            tree.lookup("odom", "base", stamp * SECOND)
    with pytest.raises(TransformError, match="known frames: base, odom"):
        tree.lookup("map", "base", 10 * SECOND)
    with pytest.raises(TransformError, match="circle"):
        tree.add("base", "odom", Transform.identity())
    tree.add("odom", "base", Transform.identity(), 20 * SECOND)
    with pytest.raises(TransformError, match="from 20.000"):  # what is older than the history is gone
        tree.lookup("odom", "base", 11 * SECOND)
    tree.add("odom", "base", Transform.identity(), 1 * SECOND)  # a bag that begins anew
    tree.add("odom", "base", Transform.identity(), 2 * SECOND)
    assert tree.lookup("odom", "base", int(1.5 * SECOND))


def test_another_parent_is_another_past():
    tree = TransformTree()
    tree.add("odom", "base", Transform.identity(), 10 * SECOND)
    tree.add("map", "base", Transform.from_rpy(5, 0, 0, 0, 0, 0), 12 * SECOND)
    with pytest.raises(TransformError, match="from 12.000"):
        tree.lookup("map", "base", 11 * SECOND)


def test_parameters_become_a_tree():
    tree = parse_transforms(
        ["base_link camera_link 0.2 0 0.5 0 0.1 0", "", "camera_link optical 0 0 0 -1.5707963 0 -1.5707963"]
    )
    found = tree.lookup("base_link", "optical", 0)
    np.testing.assert_allclose(found.apply(np.array([[0, 0, 1.0]])), [[0.2 + np.cos(0.1), 0, 0.5 - np.sin(0.1)]], atol=1e-6)
    assert parse_transforms(["/map /base 1 0 0 0 0 0"]).lookup("map", "base", 0).translation[0] == 1
    for line in ("a b 1 2 3", "a b 1 2 3 4 5 x", "a", "a a 0 0 0 0 0 0", "a b nan 0 0 0 0 0", "a b 0 0 0 inf 0 0"):
        with pytest.raises(ValueError, match="transforms: '"):
            parse_transforms([line])
    with pytest.raises(ValueError, match="'b' has a parent already"):
        parse_transforms(["a b 0 0 0 0 0 0", "c b 0 0 0 0 0 0"])


def test_without_tf2_ros_the_message_says_what_to_set(monkeypatch):
    import depth_anything_ros.node.transforms as module

    monkeypatch.setattr(module, "tf2_ros", None)
    transforms = Transforms(None, parse_transforms(["base camera 0 0 1 0 0 0"]))
    assert transforms.lookup("base", "/camera", 5).translation[2] == 1
    with pytest.raises(TransformError, match="set the parameter transforms"):
        transforms.lookup("odom", "camera", 5)
