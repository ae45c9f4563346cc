# SPDX-License-Identifier: Apache-2.0
"""Sources of images, and the camera player that plays them all."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from ros import DepthProcess, bench, depth_of, stamp_of
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from depth_anything_ros import depth_image
from depth_anything_ros.demo.sources import SourceError, open_source, photographed_scene, render_scenes

PLAYER = ("-m", "depth_anything_ros.node.camera_player")
HELD_OUT = 10_000_000


def test_depth_image_writes_a_picture_and_an_array(tmp_path, capsys):
    photo = tmp_path / "photo.jpg"
    cv2.imwrite(str(photo), photographed_scene(HELD_OUT, None, 320, 240).rgb[..., ::-1])
    assert depth_image.main([str(photo), "--model", "demo", "--backend", "torch", "--output", str(tmp_path / "out")]) == 0
    assert np.load(tmp_path / "out" / "photo_depth.npy").shape == (240, 320)
    assert cv2.imread(str(tmp_path / "out" / "photo_depth.png")).shape == (240, 320, 3)
    assert " m -> " in capsys.readouterr().out
    assert depth_image.main([str(tmp_path / "none.jpg"), "--model", "demo", "--backend", "torch"]) == 1
    assert "cannot be read as an image" in capsys.readouterr().err
    assert depth_image.main([str(photo), "--model", "v2", "--checkpoint", "/none.pth"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_sources(tmp_path):
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((60, 80, 3), (index * 40, 0, 200), np.uint8))
    for source in (str(tmp_path), str(tmp_path / "*.png")):
        shots = list(open_source(source))
        assert [shot.rgb[0, 0].tolist() for shot in shots] == [[200, 0, 0], [200, 0, 40], [200, 0, 80]]
    assert next(open_source(str(tmp_path / "0.png"), max_width=40)).rgb.shape == (30, 40, 3)
    for source in (str(tmp_path / "none.jpg"), str(tmp_path / "none.mp4"), "77"):
        with pytest.raises(SourceError):
            list(open_source(source))


def test_drives_show_every_place_and_stay_clear_of_things():
    shots = render_scenes(0, 6, 4, 64, 48)
    assert len(shots) == 24 and len({float(shot.depth[-1, 0]) for shot in shots[::4]}) == 6
    assert any(np.isinf(shot.depth).any() for shot in shots) and not all(np.isinf(shot.depth).any() for shot in shots)
    assert min(shot.depth[18:26, 24:40].min() for shot in shots) > 0.6


def test_the_player_publishes_a_camera_with_its_true_depth(tmp_path):
    """All topics of a frame share one stamp, and unprojected truth lies where the scene's geometry puts it."""
    parameters = {"scenes": 1, "frames": 2, "width": 160, "height": 120, "wait_for_reader": True}
    with DepthProcess(tmp_path, command=PLAYER, **parameters), bench(listen=()) as it:
        kinds = {"image_raw": Image, "camera_info": CameraInfo, "true_depth": Image, "image_raw/compressed": CompressedImage}
        for name, kind in kinds.items():
            it.node.create_subscription(kind, f"camera/{name}", lambda m, name=name: it.received[name].append(m), 10)
        it.wait(lambda: all(len(it.received[name]) > 3 for name in kinds), "all topics", 60)
    by_stamp = {name: {stamp_of(m): m for m in it.received[name]} for name in kinds}
    stamp = sorted(set.intersection(*(set(messages) for messages in by_stamp.values())))[0]
    image, info, truth, compressed = (by_stamp[name][stamp] for name in kinds)
    assert (image.width, image.height, image.encoding) == (truth.width, truth.height, "bgr8") == (160, 120, "bgr8")
    assert len({m.header.frame_id for m in (image, info, truth, compressed)}) == 1
    decoded = cv2.imdecode(np.frombuffer(compressed.data, np.uint8), cv2.IMREAD_COLOR).astype(int)
    plain = np.frombuffer(image.data, np.uint8).reshape(120, 160, 3)
    assert np.abs(decoded - plain).mean() < 6
    shots = render_scenes(0, 1, 2, 160, 120)
    assert info.k[0] == pytest.approx(shots[0].focal) and (info.k[2], info.k[5]) == (79.5, 59.5)
    expected = [shot.depth for shot in shots]
    assert min(np.nanmax(np.abs(depth_of(truth) - e)[np.isfinite(e)]) for e in expected) < 1e-3


def test_the_player_speaks_the_encoding_of_the_driver_that_it_stands_for(tmp_path):
    parameters = {"scenes": 1, "frames": 1, "width": 64, "height": 48, "wait_for_reader": True, "encoding": "bgra8"}
    with DepthProcess(tmp_path, command=PLAYER, **parameters), bench(listen=()) as it:
        it.node.create_subscription(Image, "camera/image_raw", it.received["image"].append, 10)
        it.wait(lambda: it.received["image"], "an image", 60)
    image = it.received["image"][0]
    assert (image.encoding, image.step) == ("bgra8", 4 * 64)
    (shot,) = render_scenes(0, 1, 1, 64, 48)
    np.testing.assert_array_equal(np.frombuffer(image.data, np.uint8).reshape(48, 64, 4)[..., 2::-1], shot.rgb)


def test_the_player_plays_a_video_to_its_end(tmp_path, data):
    with DepthProcess(tmp_path, command=PLAYER, source=data / "video" / "robot_unitree.mp4", loop=False, rate=200.0) as player:
        assert player.process.wait(60) == 0
    assert "Traceback" not in player.log


@pytest.mark.parametrize(
    "parameters, text",
    [
        ({"source": "/none.mp4"}, "'/none.mp4' does not exist"),
        ({"encoding": "yuv9"}, "encoding is 'yuv9', expected one of: rgb8"),
    ],
)
def test_the_player_says_what_it_cannot_do(tmp_path, parameters, text):
    player = DepthProcess(tmp_path, command=PLAYER, **parameters)
    player.process.wait(30)
    assert text in player.log
    assert player.process.returncode == 1
    assert Path(player.log_file).is_file()
