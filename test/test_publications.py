# SPDX-License-Identifier: Apache-2.0
"""Messages are filled again and again in the same memory: nobody who has one may see the next."""

import numpy as np
import pytest
import torch
from rclpy.lifecycle import LifecycleNode
from ros import bench
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from depth_anything_ros.geometry import AdaptiveRange, Camera
from depth_anything_ros.inference import Prediction
from depth_anything_ros.messages.camera_info import info_of_camera
from depth_anything_ros.messages.cloud_reader import read_with_numpy
from depth_anything_ros.node.publications import Publications
from depth_anything_ros.outputs import Outputs, OutputSettings
from depth_anything_ros.pipeline import Frame, Refined, Side

TOPICS = {"depth/image": Image, "depth/points": PointCloud2}


@pytest.fixture
def listener():
    with bench(listen=()) as it:
        yield it


def publish(publications, depth, size):
    """One frame of a wall at one depth, seen in one grey."""
    width, height = size
    camera = Camera(width, height, 100.0, 100.0, 10.0, 10.0)
    metres = torch.full((height, width), float(depth))
    frame = Frame(np.full((height, width, 3), 10 * depth, np.uint8), camera)
    prediction = Prediction(metres, "metric", (height, width), False)
    outputs = Outputs(frame, prediction, Refined(metres), Side(), OutputSettings(), AdaptiveRange())
    header = Header(frame_id="camera")
    header.stamp.sec = depth
    publications.publish(set(TOPICS), header, outputs, info_of_camera(header, camera), lambda stage, seconds: None)
    return outputs


def test_what_was_received_and_what_was_computed_stay_as_they_were(listener):
    node = LifecycleNode("filler", context=listener.context)
    cameras = {name: Publications(node, name) for name in ("front", "rear")}
    received = {(name, topic): {} for name in cameras for topic in TOPICS}  # by their stamps

    def keep(messages):
        return lambda message: messages.update({message.header.stamp.sec: message})

    for (name, topic), messages in received.items():
        listener.node.create_subscription(TOPICS[topic], f"{name}/{topic}", keep(messages), 10)
    node.trigger_configure()
    node.trigger_activate()
    listener.wait(lambda: all(each.wanted() == set(TOPICS) for each in cameras.values()), "readers")
    frames = [("front", 1, (40, 30)), ("rear", 2, (40, 30)), ("front", 3, (40, 30)), ("rear", 4, (40, 30))]
    frames += [("front", 5, (24, 20)), ("front", 6, (24, 20))]
    computed = [publish(cameras[name], depth, size) for name, depth, size in frames]
    listener.wait(lambda: sum(len(messages) for messages in received.values()) == len(TOPICS) * len(frames), "all frames")
    for (name, depth, size), outputs in zip(frames, computed):
        image, cloud = (received[name, topic][depth] for topic in TOPICS)
        assert (image.width, image.height) == (cloud.width, cloud.height) == size
        assert set(np.frombuffer(image.data, np.float32)) == {depth} == set(np.unique(outputs.depth))
        points = read_with_numpy(cloud)
        assert (points["z"] == depth).all() and (outputs.cloud[..., 12:15] == 10 * depth).all()
        np.testing.assert_allclose(points["x"][3], (np.arange(size[0]) - 10.0) / 100.0 * depth, rtol=1e-5, atol=1e-6)
    for each in cameras.values():
        each.close()
    node.destroy_node()
