# SPDX-License-Identifier: Apache-2.0
"""Which topics of a bag are taken for cameras, and whose calibration an image gets."""

import cv2
import numpy as np
import pytest
from bags import (
    IMAGE,
    INFO,
    QUICK,
    START,
    camera_messages,
    compressed_depth_of,
    counts,
    header_of,
    image_of,
    messages_on,
    write_bag,
)
from ros import camera_info, picture
from sensor_msgs.msg import CameraInfo, CompressedImage

from depth_anything_ros.depth_bag import main
from depth_anything_ros.replay.bag_input import BagInput
from depth_anything_ros.replay.cameras import CameraTopics, camera_names, find_cameras
from depth_anything_ros.replay.feed import LOOK_AHEAD_NS, looked_ahead
from depth_anything_ros.replay.messages import BagError, Recorded
from depth_anything_ros.stream.logs import InfoLog

WIDTH, HEIGHT = 64, 48
PICTURE = picture(WIDTH, HEIGHT)
GREY = cv2.cvtColor(PICTURE, cv2.COLOR_RGB2GRAY)
MILLIMETRES = np.full((HEIGHT, WIDTH), 1000, np.uint16)


def image(kind):
    if kind == "jpeg":
        message = CompressedImage(header=header_of(START), format="rgb8; jpeg compressed bgr8")
        message.data.frombytes(cv2.imencode(".jpg", PICTURE)[1].tobytes())
        return message
    if kind == "compressedDepth":
        return compressed_depth_of(MILLIMETRES, START)
    if kind == "cut":
        message = image_of(PICTURE, START)
        message.data = message.data[:100]
        return message
    return image_of({"rgb8": PICTURE, "mono8": GREY, "16UC1": MILLIMETRES}[kind], START, kind)


def bag_of(path, topics):
    """Each topic with the message of its kind."""
    return BagInput(write_bag(path, [(name, START + k, image(kind)) for k, (name, kind) in enumerate(topics.items())]))


@pytest.mark.parametrize(
    "topics, cameras, left_out",
    [
        ({"/cameras/left": "rgb8", "/cameras/right": "rgb8"}, ["/cameras/left", "/cameras/right"], []),
        ({"/front_camera": "rgb8", "/rear_camera": "jpeg"}, ["/front_camera", "/rear_camera"], []),
        (
            {"/cam/image_raw": "rgb8", "/cam/image_mono": "mono8", "/cam/image_rect_color": "rgb8"},
            ["/cam/image_rect_color"],
            [],
        ),
        ({"/cam/image_raw": "rgb8", "/cam/image_raw/compressed": "jpeg"}, ["/cam/image_raw"], []),
        ({"/cam/image_raw/compressed": "jpeg"}, ["/cam/image_raw/compressed"], []),
        (
            {"/front/color/image_raw": "rgb8", "/depth_cam/color/image_raw": "rgb8", "/infrastructure/image": "mono8"},
            ["/depth_cam/color/image_raw", "/front/color/image_raw", "/infrastructure/image"],
            [],
        ),
        (
            {"/depth_camera/image_raw": "rgb8", "/depth_camera/depth/image_raw": "16UC1"},
            ["/depth_camera/image_raw"],
            [],
        ),
        (
            {
                "/cam/color/image_raw": "rgb8",
                "/cam/infra1/image_rect_raw": "mono8",
                "/cam/depth/image_color": "rgb8",
                "/cam/segmentation_mask": "rgb8",
                "/cam/depth/image_raw/compressedDepth": "compressedDepth",
            },
            ["/cam/color/image_raw"],
            ["/cam/depth/image_color", "/cam/infra1/image_rect_raw", "/cam/segmentation_mask"],
        ),
        ({"/front/image_raw": "rgb8", "/rear/image_raw": "cut"}, ["/front/image_raw", "/rear/image_raw"], []),
        ({"/cam/image_raw": "rgb8", "/depth_anything/rgb/image_rect": "rgb8"}, ["/cam/image_raw"], []),
    ],
)
def test_every_camera_is_found_and_nothing_else(tmp_path, topics, cameras, left_out):
    found, others = find_cameras(bag_of(tmp_path / "bag", topics))
    assert [camera.image for camera in found] == cameras and others == left_out


def test_pictures_that_are_left_out_are_said(tmp_path, capsys):
    bag = bag_of(tmp_path / "bag", {"/cam/image_raw": "rgb8", "/cam/infra1/image_rect_raw": "mono8"})
    assert main([str(bag.path), str(tmp_path / "out"), *QUICK]) == 0
    assert "no camera's, by their names: /cam/infra1/image_rect_raw; --image takes them" in capsys.readouterr().err
    only = bag_of(tmp_path / "only", {"/cam/infra1/image_rect_raw": "mono8", "/depth_anything/depth/color": "rgb8"})
    with pytest.raises(BagError, match="name it by --image, if it is one of /cam/infra1/image_rect_raw;"):
        find_cameras(only)


@pytest.mark.parametrize(
    "images, names",
    [
        (["/camera/image_raw", "/camera_camera/image_raw"], ["camera_camera", "camera_camera_2"]),
        (["/_x/image_raw", "/camera__x/image_raw"], ["camera__x", "camera__x_2"]),
        (["/cameras/left", "/cameras/right"], ["cameras_left", "cameras_right"]),
    ],
)
def test_no_two_cameras_have_one_name(images, names):
    assert camera_names([CameraTopics(name, False, "") for name in images]) == names


def test_a_calibration_is_one(tmp_path, capsys):
    bag = write_bag(tmp_path / "bag", camera_messages(frames=1))
    assert main([str(bag), str(tmp_path / "out"), *QUICK, "--image", IMAGE, "--camera-info", "/chatter"]) == 2
    assert f"'/chatter' is a std_msgs/msg/String; its camera_info topics are: {INFO}" in capsys.readouterr().err


# -- an image's own time --------------------------------------------------------------------------------------------


def test_nothing_that_was_said_more_than_the_look_ahead_later_is_known():
    times, told = [k * LOOK_AHEAD_NS // 2 for k in (0, 1, 2, 3, 10, 11)], []
    for recorded in looked_ahead((Recorded("/a", time_ns, b"") for time_ns in times), told.append):
        now = recorded.time_ns
        assert max(each.time_ns for each in told) <= now + LOOK_AHEAD_NS
        assert {each.time_ns for each in told} >= {time_ns for time_ns in times if now <= time_ns <= now + LOOK_AHEAD_NS}


def info_of(stamp_ns):
    info = CameraInfo(header=header_of(stamp_ns))
    info.k[0] = float(stamp_ns - START)
    return info


def test_an_image_has_the_calibration_of_its_time():
    log, step = InfoLog(), 4_000_000  # 250 Hz
    assert log.at(START) is None
    for k in range(200):
        log.add(info_of(START + k * step))
    for k in (0, 17, 150, 199):
        assert log.at(START + k * step).k[0] == k * step
        assert log.at(START + k * step - 1000).k[0] == k * step  # stamps that differ a little
    assert log.at(START + 10**12).k[0] == 199 * step == log.at(5).k[0]  # of another clock: the newest
    log.add(info_of(START + 17 * step))  # said again: it is the newest now
    assert log.at(5).k[0] == 17 * step


def test_a_zoom_between_images_that_come_seldom(tmp_path):
    """One image in five seconds, its calibration stamped a microsecond after it: it is not taken for the next one's."""

    def messages():
        for k in range(3):
            stamp = START + k * 5_000_000_000
            info = camera_info(header_of(stamp + 1000), WIDTH, HEIGHT)
            info.k[0] = info.k[4] = info.p[0] = info.p[5] = 50.0 * (k + 1)
            yield INFO, stamp - 1_000_000, info
            yield IMAGE, stamp, image_of(PICTURE, stamp)

    bag, out = write_bag(tmp_path / "bag", messages()), tmp_path / "out"
    assert main([str(bag), str(out), *QUICK]) == 0
    infos = [message.k[0] for _, message in messages_on(out, "/depth_anything/depth/camera_info", CameraInfo)]
    assert infos == [50.0, 100.0, 150.0] and counts(out)[IMAGE] == 3
