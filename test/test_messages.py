# SPDX-License-Identifier: Apache-2.0
"""Real serialised messages -> arrays and back: every encoding, padding, byte order, and everything that can be wrong."""

import subprocess
import sys
import textwrap
from array import array

import cv2
import numpy as np
import pytest
from bags import compressed_depth_of
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from depth_anything_ros.geometry import Camera, pack_cloud, unproject
from depth_anything_ros.messages.bridge import BridgeError, choose_decoder, probe_cv_bridge
from depth_anything_ros.messages.cdr import MessageError, read_compressed_image, read_image
from depth_anything_ros.messages.cloud_reader import read_cloud, read_with_numpy
from depth_anything_ros.messages.compressed import decompressed_depth
from depth_anything_ros.messages.images import compressed_to_rgb, image_to_rgb
from depth_anything_ros.messages.outgoing import cloud_message, image_message
from depth_anything_ros.messages.ranges import depth_pixels

HEADER = Header(stamp=Time(sec=12, nanosec=345_678_901), frame_id="camera_color_optical_frame")


def message(array, encoding, padding=0, big_endian=False):
    """An Image as a driver would fill it, its rows padded with bytes that must never show."""
    array = np.ascontiguousarray(array)
    if array.dtype == np.uint16:
        array = array.astype(">u2" if big_endian else "<u2")
    rows = array.view(np.uint8).reshape(array.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    image = Image(header=HEADER, height=array.shape[0], width=array.shape[1], encoding=encoding)
    image.step, image.is_bigendian = padded.shape[1], int(big_endian)
    image.data.frombytes(padded.tobytes())
    return image


def decoded(image):
    return image_to_rgb(read_image(serialize_message(image)))


@pytest.fixture(scope="module")
def rgb():
    """Smooth colours, so that subsampled and interpolated encodings keep them too; 8 x 12."""
    v, u = np.mgrid[0:8, 0:12]
    return np.stack([60 + 4 * u + 2 * v, 200 - 5 * u - v, 90 + u + 6 * v], -1).astype(np.uint8)


def test_a_serialised_image_is_read_field_by_field(rgb):
    raw = read_image(serialize_message(message(rgb, "rgb8", padding=5)))
    assert (raw.header.sec, raw.header.nanosec, raw.header.frame_id) == (12, 345_678_901, "camera_color_optical_frame")
    assert raw.header.stamp_ns == 12_345_678_901
    assert (raw.height, raw.width, raw.encoding, raw.step, raw.is_bigendian) == (8, 12, "rgb8", 41, False)
    assert raw.data.size == 8 * 41


@pytest.mark.parametrize("frame_id", ["", "a", "ab", "abc", "abcd", "kamera_ü"])
@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "bayer_rggb16"])
def test_reading_agrees_with_rclpy_whatever_the_alignment(frame_id, encoding):
    image = Image(height=3, width=2, encoding=encoding, step=9, is_bigendian=1)
    image.header.frame_id, image.header.stamp.sec = frame_id, -5
    image.data.frombytes(bytes(range(27)))
    cdr = serialize_message(image)
    theirs, ours = deserialize_message(cdr, Image), read_image(cdr)
    assert (ours.header.frame_id, ours.header.sec) == (theirs.header.frame_id, theirs.header.stamp.sec)
    assert (ours.height, ours.width, ours.encoding, ours.step) == (theirs.height, theirs.width, theirs.encoding, theirs.step)
    assert ours.is_bigendian == bool(theirs.is_bigendian) and ours.data.tobytes() == bytes(theirs.data)


def test_pixels_of_rgb8_are_not_copied(rgb):
    cdr = serialize_message(message(rgb, "rgb8"))
    assert np.shares_memory(image_to_rgb(read_image(cdr)), np.frombuffer(cdr, np.uint8))


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_colour_8_bit(rgb, encoding, padding):
    pixels = rgb if encoding.startswith("rgb") else rgb[..., ::-1]
    if encoding.endswith("a8"):
        pixels = np.dstack([pixels, np.full(rgb.shape[:2], 9, np.uint8)])
    np.testing.assert_array_equal(decoded(message(pixels, encoding, padding)), rgb)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", ["rgb16", "bgr16", "rgba16", "bgra16"])
def test_colour_16_bit_in_both_byte_orders(rgb, encoding, big_endian):
    pixels = (rgb if encoding.startswith("rgb") else rgb[..., ::-1]).astype(np.uint16) * 257  # 255 -> 65535
    if encoding.endswith("a16"):
        pixels = np.dstack([pixels, np.full(rgb.shape[:2], 9, np.uint16)])
    np.testing.assert_array_equal(decoded(message(pixels, encoding, 4, big_endian)), rgb)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", ["mono8", "8UC1", "mono16"])
def test_grey(rgb, encoding, big_endian):
    grey = rgb[..., 0]
    pixels = grey.astype(np.uint16) * 257 if encoding.endswith("16") else grey
    np.testing.assert_array_equal(decoded(message(pixels, encoding, 2, big_endian)), np.stack([grey] * 3, -1))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_are_named_by_their_first_two_rows(pattern, bits):
    """One colour everywhere: the mosaic is built from the pattern's name, the colour has to come back."""
    colour = {"r": 200, "g": 120, "b": 40}
    tile = np.array([[colour[pattern[0]], colour[pattern[1]]], [colour[pattern[2]], colour[pattern[3]]]], np.uint16)
    mosaic = np.tile(tile, (6, 8))
    mosaic = mosaic.astype(np.uint8) if bits == 8 else mosaic * 257
    inside = decoded(message(mosaic, f"bayer_{pattern}{bits}"))[2:-2, 2:-2].astype(int)
    assert np.abs(inside - [200, 120, 40]).max() <= 1


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_yuv422_of_one_colour(encoding):
    """ITU-R BT.601, studio range, as cameras send it: Y = 16 + 65.481 R + 128.553 G + 24.966 B, and so on."""
    r, g, b = 180 / 255, 90 / 255, 60 / 255
    y = round(16 + 65.481 * r + 128.553 * g + 24.966 * b)
    u = round(128 - 37.797 * r - 74.203 * g + 112.0 * b)
    v = round(128 + 112.0 * r - 93.786 * g - 18.214 * b)
    pair = [u, y, v, y] if encoding in ("yuv422", "uyvy") else [y, u, y, v]
    rows = np.tile(np.array(pair, np.uint8), (6, 4)).reshape(6, 8, 2)
    assert np.abs(decoded(message(rows, encoding, 3)).astype(int) - [180, 90, 60]).max() <= 3


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"encoding": "rgb9"}, "unknown encoding 'rgb9', expected a colour or grey image: rgb8"),
        ({"encoding": "32FC1"}, "unknown encoding '32FC1'"),
        ({"step": 30}, "step is 30 bytes, but a row of 12 rgb8 pixels takes 36"),
        ({"step": 40}, "data holds 288 bytes, but 8 rows of 40 bytes take 320"),
        ({"height": 9}, "data holds 288 bytes, but 9 rows of 36 bytes take 324"),
        ({"width": 0}, "the image is empty"),
        ({"height": 0}, "the image is empty"),
        ({"width": 2**32 - 1}, "step is 36 bytes"),
        ({"height": 2**32 - 1}, "data holds 288 bytes"),
    ],
)
def test_impossible_images_say_what_is_wrong(rgb, change, expected):
    image = message(rgb, "rgb8")
    for name, value in change.items():
        setattr(image, name, value)
    with pytest.raises(MessageError, match=expected):
        decoded(image)


def test_yuv_of_odd_width_is_refused():
    with pytest.raises(MessageError, match="7x4 image cannot be yuyv"):
        decoded(message(np.zeros((4, 7, 2), np.uint8), "yuyv"))


def test_truncated_bytes_are_an_error_at_every_length(rgb):
    cdr = serialize_message(message(rgb[:2, :2], "rgb8"))
    for length in range(len(cdr) - 4):  # the last bytes can be padding
        with pytest.raises(MessageError):
            image_to_rgb(read_image(cdr[:length]))


@pytest.mark.parametrize(
    "kind, text", [(".jpg", "bgr8; jpeg compressed bgr8"), (".png", "rgb8; png compressed bgr8"), (".jpg", "jpeg")]
)
def test_compressed_images_whatever_their_writer_calls_them(kind, text):
    rgb = cv2.resize(np.array([[[200, 40, 60], [30, 160, 220]]], np.uint8), (64, 48))
    data = cv2.imencode(kind, rgb[..., ::-1])[1]
    image = CompressedImage(header=HEADER, format=text)
    image.data.frombytes(data.tobytes())
    raw = read_compressed_image(serialize_message(image))
    assert raw.header.stamp_ns == 12_345_678_901 and raw.format == text
    assert np.abs(compressed_to_rgb(raw).astype(int) - rgb).mean() < 4


def test_a_jpeg_padded_with_zeros_is_whole():
    """UVC webcams send buffers of a fixed size."""
    image = CompressedImage(format="jpeg")
    image.data.frombytes(cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes() + bytes(5000))
    assert compressed_to_rgb(read_compressed_image(serialize_message(image))).shape == (48, 64, 3)


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_truncated_or_foreign_compressed_images(kind):
    data = cv2.imencode(kind, np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))[1].tobytes()
    for content, text in (
        (data[: len(data) // 2], "truncated"),
        (b"", "cannot be decoded"),
        (b"nonsense", "cannot be decoded"),
    ):
        image = CompressedImage(format="jpeg")
        image.data.frombytes(content)
        with pytest.raises(MessageError, match=text):
            compressed_to_rgb(read_compressed_image(serialize_message(image)))
    image = CompressedImage(format="32FC1; compressedDepth png")
    image.data.frombytes(data)
    with pytest.raises(MessageError, match="expected a JPEG or PNG from a camera"):
        compressed_to_rgb(read_compressed_image(serialize_message(image)))


def read_depth(message):
    return decompressed_depth(read_compressed_image(serialize_message(message)))


@pytest.mark.parametrize("codec", ["compressedDepth", "compressedDepth png"])
def test_compressed_depth_is_read_as_its_plugin_writes_it(codec):
    metres = np.random.default_rng(0).uniform(0.3, 9.9, (20, 31)).astype(np.float32)
    metres[4, 5:9] = np.nan
    image = read_depth(compressed_depth_of(metres, 5_000_000_007, codec=codec))
    found = depth_pixels(image)
    assert image.encoding == "32FC1" and image.header.stamp_ns == 5_000_000_007 and found.shape == (20, 31)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(metres))
    assert np.nanmax(np.abs(found - metres) / metres**2) < 1.01 / 10100  # a code's step is z^2 / A
    millimetres = np.random.default_rng(1).integers(0, 65536, (20, 31)).astype(np.uint16)
    found = depth_pixels(read_depth(compressed_depth_of(millimetres, 1, codec=codec)))
    np.testing.assert_array_equal(found, millimetres.astype(np.float32) * np.float32(0.001))


def test_what_is_no_compressed_depth_is_said():
    good = compressed_depth_of(np.full((20, 31), 900, np.uint16), 1)
    for changes, text in (
        ({"format": "16UC1; compressedDepth rvl"}, "compressedDepth rvl.*not RVL"),
        ({"format": "jpeg"}, "expected compressedDepth of 16UC1 or 32FC1"),
        ({"data": good.data[:40]}, "40 bytes of format.*not a whole PNG"),
        ({"data": good.data[:-8]}, "not a whole PNG"),
        ({"data": good.data[:0]}, "0 bytes"),
        ({"data": good.data[:12] + array("B", cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1].tobytes())}, "16 bits"),
    ):
        message = CompressedImage(header=good.header, format=good.format, data=good.data)
        for name, value in changes.items():
            setattr(message, name, value)
        with pytest.raises(MessageError, match=text):
            read_depth(message)


def test_images_go_out_as_they_are():
    depth = np.linspace(0.1, 9, 12, dtype=np.float32).reshape(3, 4)
    back = deserialize_message(serialize_message(image_message(HEADER, depth, "32FC1")), Image)
    assert (back.height, back.width, back.encoding, back.step, back.is_bigendian) == (3, 4, "32FC1", 16, 0)
    np.testing.assert_array_equal(np.frombuffer(back.data, np.float32).reshape(3, 4), depth)
    assert back.header == HEADER


def test_a_message_is_filled_anew_in_its_own_memory():
    first, second = (np.arange(12, dtype=np.float32).reshape(3, 4) + shift for shift in (0, 100))
    message = image_message(HEADER, first, "32FC1")
    sent, memory = serialize_message(message), message.data.buffer_info()
    again = image_message(Header(frame_id="b"), second, "32FC1", message)
    assert again is message and message.data.buffer_info() == memory and message.header.frame_id == "b"
    np.testing.assert_array_equal(np.frombuffer(message.data, np.float32).reshape(3, 4), second)
    np.testing.assert_array_equal(np.frombuffer(deserialize_message(sent, Image).data, np.float32).reshape(3, 4), first)
    larger = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    image_message(HEADER, larger, "rgb8", message)
    assert (message.height, message.width, message.step, message.encoding) == (4, 5, 15, "rgb8")
    assert bytes(message.data) == larger.tobytes()
    cloud = cloud_message(HEADER, np.zeros((2, 3, 16), np.uint8))
    cloud_message(HEADER, np.empty((1, 0, 16), np.uint8), cloud)
    assert (cloud.height, cloud.width, cloud.row_step, len(cloud.data), len(cloud.fields)) == (1, 0, 0, 0, 4)


def test_clouds_go_out_organised_with_colours_in_pcls_order(rgb):
    import torch

    camera = Camera(12, 8, 10.0, 11.0, 5.0, 4.0)
    depth = torch.full((8, 12), 2.0)
    depth[1, 2] = torch.nan
    cloud = cloud_message(HEADER, pack_cloud(unproject(depth, camera.rays()), rgb))
    cloud = deserialize_message(serialize_message(cloud), PointCloud2)
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step, cloud.is_dense) == (8, 12, 16, 192, False)
    assert [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields] == [
        ("x", 0, 7, 1), ("y", 4, 7, 1), ("z", 8, 7, 1), ("rgb", 12, 7, 1),
    ]  # fmt: skip
    for points in (read_with_numpy(cloud), read_cloud(cloud)):  # the latter is sensor_msgs_py's where it is installed
        assert points.shape == (8, 12)
        np.testing.assert_allclose(points["x"][6, 9], (9 - 5.0) / 10 * 2, rtol=1e-6)
        np.testing.assert_allclose(points["y"][6, 9], (6 - 4.0) / 11 * 2, rtol=1e-6)
        assert points["z"][6, 9] == 2.0
        assert all(np.isnan(points[axis][1, 2]) for axis in "xyz")
        packed = int(np.float32(points["rgb"][6, 9]).view(np.uint32))
        assert ((packed >> 16) & 255, (packed >> 8) & 255, packed & 255) == tuple(rgb[6, 9])


def with_cv_bridge(tmp_path, body):
    """A module named cv_bridge in a folder of its own."""
    (tmp_path / "cv_bridge").mkdir()
    (tmp_path / "cv_bridge" / "__init__.py").write_text(textwrap.dedent(body))
    return tmp_path


WORKING = """
    import numpy as np
    class CvBridgeError(Exception): pass
    class CvBridge:
        def imgmsg_to_cv2(self, message, encoding):
            assert encoding == "rgb8"
            if message.encoding != "bgr8": raise CvBridgeError(message.encoding)
            shape = (message.height, message.step // 3, 3)  # as the real one: padding of a part of a pixel skews rows
            pixels = np.ndarray(shape, np.uint8, bytes(message.data)[: shape[0] * shape[1] * 3])
            return pixels[:, : message.width][..., ::-1]
"""
CRASHING = """
    import os, signal
    class CvBridgeError(Exception): pass
    class CvBridge:
        def imgmsg_to_cv2(self, message, encoding): os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.mark.parametrize(
    "body, problem",
    [(WORKING, ""), (CRASHING, "ended a test process with signal 11"), ("raise ImportError('no boost')", "no boost")],
)
def test_cv_bridge_is_tried_in_a_process_of_its_own(tmp_path, monkeypatch, body, problem):
    monkeypatch.setenv("PYTHONPATH", str(with_cv_bridge(tmp_path, body)))
    found = probe_cv_bridge()
    assert (problem in found) if problem else found == ""
    if problem:
        with pytest.raises(BridgeError, match="Set image_bridge to 'auto' or 'builtin'"):
            choose_decoder("cv_bridge")
        assert "built-in" in choose_decoder("auto")[1]


def test_a_working_cv_bridge_is_used_and_agrees_with_the_builtin_converter(tmp_path, rgb):
    """In a process of its own, since the stand-in must not stay in this one."""
    script = """
        import sys, numpy as np
        sys.path.insert(0, sys.argv[1])
        from depth_anything_ros.messages.bridge import choose_decoder
        cdr = open(sys.argv[2], "rb").read()
        decode, line = choose_decoder("auto")
        assert line == "image conversion: cv_bridge", line
        builtin, _ = choose_decoder("builtin")
        assert np.array_equal(decode(cdr)[1], builtin(cdr)[1])
        padded = open(sys.argv[4], "rb").read()
        assert np.array_equal(decode(padded)[1], builtin(padded)[1])
        yuyv = open(sys.argv[3], "rb").read()  # unknown to the stand-in: the built-in converter steps in
        assert np.array_equal(decode(yuyv)[1], builtin(yuyv)[1])
    """
    folder = with_cv_bridge(tmp_path, WORKING)
    (tmp_path / "bgr8").write_bytes(serialize_message(message(rgb[..., ::-1], "bgr8")))
    (tmp_path / "padded").write_bytes(serialize_message(message(rgb[..., ::-1], "bgr8", 7)))
    (tmp_path / "yuyv").write_bytes(serialize_message(message(rgb[..., :2], "yuyv")))
    import os

    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(script),
        str(folder),
        str(tmp_path / "bgr8"),
        str(tmp_path / "yuyv"),
        str(tmp_path / "padded"),
    ]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
