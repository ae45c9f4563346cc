# SPDX-License-Identifier: Apache-2.0
"""Bags for the tests, written by rosbags and rclpy; nothing of ours but the pictures is in them."""

import hashlib
import struct
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from ros import camera_info, picture, stamp_of
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header, String

STORE = get_typestore(Stores.LATEST)
START = 1_700_000_000_000_000_000  # nanoseconds
FRAME = "camera_color_optical_frame"
IMAGE, INFO = "/camera/color/image_raw", "/camera/color/camera_info"
DEPTH, POINTS = "/depth_anything/depth/image", "/depth_anything/depth/points"
DEMO = ("-p", "model:=demo", "-p", "backend:=torch", "-p", "deterministic:=true", "-p", "image_bridge:=builtin", "--quiet")
QUICK = (*DEMO, "-p", "input_size:=96")


def header_of(stamp_ns, frame_id=FRAME):
    header = Header(frame_id=frame_id)
    header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 10**9)
    return header


def image_of(pixels, stamp_ns, encoding="rgb8", frame_id=FRAME):
    """A sensor_msgs/Image of a C-contiguous array."""
    message = Image(header=header_of(stamp_ns, frame_id), height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    message.step = pixels.strides[0]
    message.data.frombytes(np.ascontiguousarray(pixels).tobytes())
    return message


def compressed_depth_of(depth, stamp_ns, frame_id=FRAME, codec="compressedDepth png", longest=10.0, quantization=100.0):
    """compressedDepth as compressed_depth_image_transport's codec.cpp makes it of 16UC1 or 32FC1 (NaN: nothing)."""
    encoding, a, b, codes = "16UC1", 0.0, 0.0, depth
    if depth.dtype == np.float32:
        encoding, a = "32FC1", quantization * (quantization + 1)
        b = 1 - a / longest
        codes = np.where(depth < longest, a / np.nan_to_num(depth, nan=longest) + b, 0).astype(np.uint16)
    message = CompressedImage(header=header_of(stamp_ns, frame_id), format=f"{encoding}; {codec}")
    message.data.frombytes(struct.pack("<iff", 0, a, b) + cv2.imencode(".png", codes)[1].tobytes())
    return message


def with_compressed_depth(messages, depth_topic):
    """The same, but for raw 16UC1 images on a topic, which become compressedDepth."""
    for topic, time_ns, message in messages:
        if topic == depth_topic:
            depth = np.frombuffer(message.data, np.uint16).reshape(message.height, message.width)
            topic, message = f"{topic}/compressedDepth", compressed_depth_of(depth, stamp_of(message))
        yield topic, time_ns, message


def cloud_of(points, frame_id):
    points = np.asarray(points, np.float32)
    cloud = PointCloud2(header=header_of(START, frame_id), height=1, width=len(points), point_step=12)
    cloud.row_step, cloud.data = points.nbytes, points.tobytes()
    cloud.fields = [PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate("xyz")]
    return cloud


def kind_of(message):
    return f"{type(message).__module__.partition('.')[0]}/msg/{type(message).__name__}"


def cdr_of(message):
    """Serialised; with zeros between the fields, where rclpy leaves whatever the memory held."""
    return same_gaps(bytes(serialize_message(message)), kind_of(message))


def same_gaps(cdr, kind):
    return bytes(STORE.serialize_cdr(STORE.deserialize_cdr(cdr, kind), kind))


def write_bag(path, messages, storage="mcap", compression="none", qos=()):
    """A bag of (topic, time in nanoseconds, message of rclpy); returns its path."""
    writer = Writer(Path(path), version=8, storage_plugin=StoragePlugin[storage.upper()])
    writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    connections = {}
    with writer:
        for topic, time_ns, message in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind_of(message), typestore=STORE, offered_qos_profiles=qos)
            writer.write(connections[topic], time_ns, cdr_of(message))
    return Path(path)


def camera_messages(frames=6, rate=10.0, width=160, height=120, name="/camera/color", start=START, pixels=picture):
    """A camera that moves a little, its calibration, and something that has nothing to do with it: (topic, time, message)."""
    for k in range(frames):
        stamp = start + round(k * 1e9 / rate)
        yield f"{name}/camera_info", stamp + 1_000_000, camera_info(header_of(stamp), width, height)
        yield f"{name}/image_raw", stamp + 3_000_000, image_of(pixels(width, height, k), stamp)
        yield "/chatter", stamp + 5_000_000, String(data=f"hello {k}")


def read_bag(path):
    """[(topic, time, cdr)] by rosbags' own reader of whole bags: it knows nothing of ours."""
    from rosbags.highlevel import AnyReader

    with AnyReader([Path(path)], default_typestore=STORE) as reader:
        return [(connection.topic, time_ns, bytes(data)) for connection, time_ns, data in reader.messages()]


def messages_on(path, topic, kind):
    return [(time_ns, deserialize_message(cdr, kind)) for name, time_ns, cdr in read_bag(path) if name == topic]


def counts(path):
    return Counter(name for name, _, _ in read_bag(path))


def digest(path):
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]
