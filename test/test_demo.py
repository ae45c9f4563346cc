# SPDX-License-Identifier: Apache-2.0
"""Procedural scenes are exact, the embedded model knows them, and the camera player plays everything."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ros import DepthProcess, bench, depth_of, stamp_of
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from depth_anything_ros import depth_image
from depth_anything_ros.demo import raycast
from depth_anything_ros.demo.raycast import render
from depth_anything_ros.demo.scenes import BOX, CYLINDER, FAMILIES, SPHERE, View, _Builder, random_batch, random_scene
from depth_anything_ros.demo.sources import SourceError, open_source, render_scenes
from depth_anything_ros.inference import DepthEstimator

PLAYER = ("-m", "depth_anything_ros.node.camera_player")
HELD_OUT = 10_000_000


def looking_ahead(height, pitch=0.0, fov=70.0):
    focal = 0.5 / math.tan(math.radians(fov) / 2)
    return View(torch.tensor([[0.0, 0.0, height]]), torch.tensor([0.0]), torch.tensor([pitch]), torch.tensor([focal]))


def scene_of(*primitives):
    """A hall of 40 x 40 x 10 m and what stands in it, 5 m ahead."""
    import random

    builder = _Builder(random.Random(0))
    builder.box(0, 0, 0, (40, 40, 10))
    for kind, centre, size in primitives:
        builder.add(kind, centre, size)
    return builder.scene()


@pytest.mark.parametrize("pitch", [0.0, 0.3])
def test_floor_and_wall_are_where_geometry_says(pitch):
    """Along z, the floor under pixel v is at h / (sin p + y cos p), the far wall at 20 / (cos p - y sin p)."""
    view, width, height = looking_ahead(1.5, pitch), 64, 48
    _, depth = render(scene_of(), view, width, height)
    y = (np.arange(height) - (height - 1) / 2) / (float(view.focal) * width)
    with np.errstate(divide="ignore"):
        floor = 1.5 / (math.sin(pitch) + y * math.cos(pitch))
        ceiling = 8.5 / -(math.sin(pitch) + y * math.cos(pitch))
    wall = 20 / (math.cos(pitch) - y * math.sin(pitch))
    expected = np.min([np.where(d > 0, d, np.inf) for d in (floor, ceiling, wall)], axis=0)
    middle = depth[0, :, width // 2].numpy()
    np.testing.assert_allclose(middle, expected, rtol=1e-4)


@pytest.mark.parametrize("kind, nearest", [(BOX, 4.5), (CYLINDER, 4.5), (SPHERE, 4.5)])
def test_things_stand_where_they_were_put(kind, nearest):
    _, depth = render(scene_of((kind, (5.0, 0.0, 1.0), (0.5, 0.5, 0.5))), looking_ahead(1.0), 65, 49)
    assert float(depth[0, 24, 32]) == pytest.approx(nearest, abs=2e-3)
    focal = looking_ahead(1.0).focal.item() * 65
    y = (np.arange(49) - 24) / focal
    seen = (depth[0, :, 32].numpy() < 6) & (np.abs(y) < 0.15)  # the floor comes nearer than 6 m only below that
    assert seen.sum() / focal == pytest.approx(1.0 / (nearest if kind != SPHERE else 4.975), abs=0.04)


def test_a_wrong_ray_would_be_noticed(monkeypatch):
    """The negative control: rays of length 1 instead of depth 1 along z give ranges, not depth."""
    true_rays = raycast.rays
    monkeypatch.setattr(raycast, "rays", lambda *a: (true_rays(*a)[0], torch.nn.functional.normalize(true_rays(*a)[1], dim=-1)))
    _, depth = render(scene_of(), looking_ahead(1.5), 64, 48)
    assert float((depth[0, 24, 0] / 20 - 1).abs()) > 0.1


def test_scenes_are_the_same_for_the_same_seed_and_cover_all_families():
    one, two = render(*random_batch([5, 6]), 32, 24), render(*random_batch([5, 6]), 32, 24)
    assert all(torch.equal(a, b) for a, b in zip(one, two))
    assert not torch.equal(one[1][0], one[1][1])
    for family in FAMILIES:
        rgb, depth = render(*random_scene(1, family), 32, 24)
        assert rgb.shape == (1, 24, 32, 3) and rgb.min() >= 0 and rgb.max() <= 1
        assert float(depth.min()) > 0.05 and bool(torch.isinf(depth).any()) <= (family == "street")


def test_the_embedded_model_measures_scenes_that_it_never_saw():
    """AbsRel at most 0.30 on held-out seeds at 640 x 480, without alignment, and twice better than the best constant."""
    estimator = DepthEstimator.create("demo", device="cpu")
    errors, constant = [], []
    for seed in range(HELD_OUT + 100, HELD_OUT + 116):
        rgb, depth = render(*random_scene(seed), 640, 480)
        truth = depth[0].numpy()
        predicted = estimator.predict((rgb[0].numpy() * 255).astype(np.uint8)).at_image_size()
        valid = truth < 20
        errors.append(np.abs(predicted[valid] / truth[valid] - 1).mean())
        constant.append(np.abs(2.0 / truth[valid] - 1).mean())
    assert np.mean(errors) <= 0.30
    assert np.mean(errors) < 0.5 * np.mean(constant)


def test_depth_image_writes_a_picture_and_an_array(tmp_path, capsys):
    photo = tmp_path / "photo.jpg"
    cv2.imwrite(str(photo), (render(*random_scene(HELD_OUT), 320, 240)[0][0].numpy()[..., ::-1] * 255).astype(np.uint8))
    assert depth_image.main([str(photo), "--model", "demo", "--output", str(tmp_path / "out")]) == 0
    assert np.load(tmp_path / "out" / "photo_depth.npy").shape == (240, 320)
    assert cv2.imread(str(tmp_path / "out" / "photo_depth.png")).shape == (240, 320, 3)
    assert " m -> " in capsys.readouterr().out
    assert depth_image.main([str(tmp_path / "none.jpg"), "--model", "demo"]) == 1
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


def test_drives_show_every_family_and_stay_clear_of_things():
    shots = render_scenes(0, 6, 4, 64, 48)
    assert len(shots) == 24 and len({shot.focal for shot in shots}) == 6
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


def test_the_player_plays_a_video_to_its_end(tmp_path, data):
    with DepthProcess(tmp_path, command=PLAYER, source=data / "video" / "robot_unitree.mp4", loop=False, rate=200.0) as player:
        assert player.process.wait(60) == 0
    assert "Traceback" not in player.log


def test_the_player_says_what_it_cannot_open(tmp_path):
    player = DepthProcess(tmp_path, command=PLAYER, source="/none.mp4")
    player.process.wait(30)
    assert "'/none.mp4' does not exist" in player.log
    assert player.process.returncode == 1
    assert Path(player.log_file).is_file()
