# SPDX-License-Identifier: Apache-2.0
"""Transforms from real tf. tf2_ros is not on PyPI: these run where a ROS 2 distro, or a build of one's own, brings it."""

import numpy as np
import pytest

tf2_ros = pytest.importorskip("tf2_ros", reason="tf2_ros is not installed")

from geometry_msgs.msg import TransformStamped  # noqa: E402
from ros import DepthProcess, bench, picture, stamp_of  # noqa: E402

from depth_anything_ros.geometry import TransformError  # noqa: E402
from depth_anything_ros.node.transforms import Transforms  # noqa: E402
from depth_anything_ros.stream.transforms import parse_transforms  # noqa: E402

SECOND = 10**9


def stamped(parent, child, shift, quaternion=(0.0, 0.0, 0.0, 1.0), stamp=0):
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
    message.transform.translation.x, message.transform.translation.y, message.transform.translation.z = shift
    rotation = message.transform.rotation
    rotation.x, rotation.y, rotation.z, rotation.w = quaternion
    return message


def test_lookups_are_those_of_tf_at_the_frames_own_time():
    with bench(listen=()) as it:
        transforms = Transforms(it.node, parse_transforms(["lidar beam 0 0 1 0 0 0"]))
        with pytest.raises(TransformError, match="tf is being asked"):
            transforms.lookup("odom", "camera", 10 * SECOND)
        transforms.refresh()
        fixed, moving = tf2_ros.StaticTransformBroadcaster(it.node), tf2_ros.TransformBroadcaster(it.node)
        fixed.sendTransform(stamped("base", "camera", (0.1, 0.0, 0.5), (0.5, -0.5, 0.5, -0.5)))
        it.wait(lambda: it.node.count_subscribers("/tf") > 0, "a reader of tf")
        it.spin(0.5)
        for second in (10, 11):
            moving.sendTransform(stamped("odom", "base", (float(second), 0.0, 0.0), stamp=second * SECOND))
        it.spin(0.5)
        found = transforms.lookup("odom", "/camera", int(10.25 * SECOND))
        np.testing.assert_allclose(found.apply(np.array([[1.0, 2.0, 3.0]])), [[10.35 + 3, -1, 0.5 - 2]], atol=1e-9)
        assert transforms.lookup("lidar", "beam", 0).translation[2] == 1  # the parameter's
        for target, stamp, words in (("odom", 12 * SECOND, "extrapolation"), ("map", 10 * SECOND, "map")):
            with pytest.raises(TransformError, match=words):
                transforms.lookup(target, "camera", stamp)
        # A bag that begins anew: the buffer would keep the old end, and take what comes for too old.
        with pytest.raises(TransformError, match="tf is being asked"):
            transforms.lookup("odom", "camera", 2 * SECOND)
        transforms.refresh()
        fixed.sendTransform(stamped("base", "camera", (0.1, 0.0, 0.5), (0.5, -0.5, 0.5, -0.5)))
        it.spin(0.5)
        for second in (1, 3):
            moving.sendTransform(stamped("odom", "base", (float(second), 0.0, 0.0), stamp=second * SECOND))
        it.spin(0.5)
        assert transforms.lookup("odom", "camera", 2 * SECOND).translation[0] == pytest.approx(2.1)
        transforms.close()


def test_the_node_reads_tf_when_it_needs_it(tmp_path):
    """depth/scan waits for the transform, comes with it, and is in its frame."""
    with DepthProcess(tmp_path, model="demo", device="cpu") as node, bench(listen=("depth/image",)) as it:
        it.wait_reading()
        it.expect("depth/image", it.send(picture()))
        readers = it.node.count_subscribers("/tf")
        it.listen("depth/scan")
        it.wait(lambda: it.node.count_publishers("depth/scan") > 0, "the scan's topic")
        it.spin(0.5)
        it.expect("depth/image", it.send(picture()))
        it.wait(lambda: it.node.count_subscribers("/tf") == readers + 1, "the node listens to tf only now")
        assert it.received["depth/scan"] == []
        frame = stamped("base_link", "camera_color_optical_frame", (0.1, 0.0, 0.4), (0.5, -0.5, 0.5, -0.5))
        broadcaster = tf2_ros.StaticTransformBroadcaster(it.node)
        broadcaster.sendTransform(frame)
        it.spin(1.0)
        stamp = it.send(picture())
        scan = it.expect("depth/scan", stamp)
        assert scan.header.frame_id == "base_link" and stamp_of(scan) == stamp
        assert abs(scan.angle_min + scan.angle_max) < 0.1 and len(scan.ranges) > 80
        assert "Traceback" not in node.log
