# SPDX-License-Identifier: Apache-2.0
"""Every kind of network, from the same topic to the same topic: tiny ones of random weights in the real node."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from ros import DepthProcess, bench, depth_of, picture, stamp_of
from safetensors.torch import load_file
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Float32MultiArray
from tiny_depth_node import write_weights

from depth_anything_ros.models import new_network, save_network

NODE = str(Path(__file__).parent / "tiny_depth_node.py")
RGB = picture(320, 240)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    found = {name: write_weights(name, folder) for name in ("depth_pro", "da3_metric", "da3_mono")}
    torch.manual_seed(3)
    network = new_network("vit_tiny_patch16_224", "metric", 12.0, 96, features=16, out_channels=(8, 8, 8, 8))
    found["custom"] = save_network(network, folder / "custom.safetensors", "scratch", "CC-BY-NC-4.0")
    return found


@pytest.fixture(scope="module")
def process(files, tmp_path_factory):
    parameters = {"model": "depth_pro", "checkpoint": files["depth_pro"], "device": "cpu", "allow_noncommercial": True}
    with DepthProcess(tmp_path_factory.mktemp("node"), command=(NODE,), **parameters) as node:
        yield node


@pytest.fixture
def camera(process):
    with bench() as it:
        it.wait_reading()
        yield it
    assert "Traceback" not in process.log


def use(camera, files, model):
    """Another network in the same node, while it runs."""
    assert camera.set_parameters(model=model, checkpoint=str(files[model]), encoder="", input_size=0) == (True, "")
    camera.wait(lambda: camera.values.get("model") == model and camera.values.get("network") == "ready", f"{model} to run")


def with_focal(fx, fy):
    def edit(info):
        info.k[0], info.k[4] = fx, fy
        info.p[0], info.p[5] = fx, fy

    return edit


def told(camera, key, text):
    camera.wait(lambda: text in camera.values.get(key, ""), f"'{text}' in '{key}' of {camera.values.get(key)}")


def test_depth_pro_makes_metres_of_the_focal_length_and_estimates_one_where_there_is_none(camera, files):
    use(camera, files, "depth_pro")
    depths = []
    for fx in (300.0, 150.0):
        stamp = camera.send(RGB, edit_info=with_focal(fx, 2 * fx))
        depths.append(depth_of(camera.expect("depth/image", stamp, 20)))
    valid = np.isfinite(depths[0]) & np.isfinite(depths[1])
    assert valid.mean() > 0.5
    np.testing.assert_allclose(depths[0][valid], 2 * depths[1][valid], rtol=1e-4)  # z = f / (W * canonical inverse depth)
    told(camera, "focal length", "150.0 pixels, of the calibration")
    told(camera, "kind", "metric: metres by the focal length")
    assert camera.values["licence"] == "Apple-AMLR"

    stamp = camera.send(RGB, edit_info=lambda info: info.k.__setitem__(slice(None), np.zeros(9)))  # not calibrated
    depth = depth_of(camera.expect("depth/image", stamp, 20))
    info = camera.expect("depth/camera_info", stamp)
    fov = np.degrees(2 * np.arctan(160 / info.k[0]))
    assert 60 < fov < 80 and info.k[0] == info.k[4] and (info.k[2], info.k[5]) == (159.5, 119.5)
    valid &= np.isfinite(depth)
    np.testing.assert_allclose(depth[valid] / info.k[0], depths[0][valid] / 300, rtol=1e-4)
    assert camera.expect("depth/points", stamp).width == 320
    told(camera, "focal length", f"{info.k[0]:.1f} pixels, the network's estimate")
    told(camera, "calibration", f"a field of view of {fov:.1f} degrees is the network's estimate")
    told(camera, "last error", "metres rest on the network's own estimate")


def test_depth_anything_3_has_metres_only_with_a_focal_length(camera, files):
    use(camera, files, "da3_metric")
    depths = []
    for fx, fy in ((300.0, 300.0), (300.0, 500.0)):
        stamp = camera.send(RGB, edit_info=with_focal(fx, fy))
        depths.append(depth_of(camera.expect("depth/image", stamp, 20)))
    seen = [fx * 252 / 320 + fy * 196 / 240 for fx, fy in ((300, 300), (300, 500))]  # 240 * 252 / 320 = 189, of 14: 196
    valid = np.isfinite(depths[0]) & np.isfinite(depths[1])
    assert valid.mean() > 0.5
    np.testing.assert_allclose(depths[1][valid] / depths[0][valid], seen[1] / seen[0], rtol=1e-4)
    told(camera, "licence", "Apache-2.0")

    stamp = camera.send(RGB, edit_info=lambda info: info.k.__setitem__(slice(None), np.zeros(9)))
    relative = depth_of(camera.expect("depth/relative", stamp, 20))
    assert np.isfinite(relative).all() and relative.min() > 0
    told(camera, "focal length", "unknown: no metres")
    told(camera, "last error", "no metres: this network makes them of the focal length, but camera_info")
    assert camera.values["calibration"] == "none"
    assert all(stamp_of(message) != stamp for message in camera.received["depth/image"])


def test_depth_anything_3_mono_is_relative(camera, files):
    use(camera, files, "da3_mono")
    stamp = camera.send(RGB)
    assert np.isfinite(depth_of(camera.expect("depth/relative", stamp, 20))).all()
    told(camera, "kind", "relative")
    told(camera, "focal length", "not used")
    assert all(stamp_of(message) != stamp for message in camera.received["depth/image"])


def test_a_network_of_ones_own_says_itself_what_it_is(camera, files, process):
    use(camera, files, "custom")
    stamp = camera.send(RGB)
    depth = depth_of(camera.expect("depth/image", stamp, 20))
    assert 0 < np.nanmin(depth) < np.nanmax(depth) <= 12
    assert camera.values["encoder"] == "vit_tiny_patch16_224" and camera.values["licence"] == "CC-BY-NC-4.0"
    good, reason = camera.set_parameters(allow_noncommercial=False)
    assert not good and "CC-BY-NC-4.0" in reason and "no commercial use" in reason
    good, reason = camera.set_parameters(checkpoint="")
    assert not good and "custom" in reason and "checkpoint" in reason


def test_features_come_with_their_grid_when_somebody_listens(camera, files):
    """Against timm's own network with the same weights; a listener that comes late changes nothing about depth."""
    use(camera, files, "custom")
    camera.wait_reading()
    before = depth_of(camera.expect("depth/image", camera.send(RGB), 20))
    messages = {"features": [], "features/camera_info": [], "features/class_token": []}
    for (topic, received), kind in zip(messages.items(), (Image, CameraInfo, Float32MultiArray)):
        camera.node.create_subscription(kind, topic, received.append, 10)
    camera.wait(lambda: all(camera.node.count_subscribers(topic) for topic in messages), "our readers")
    camera.spin(0.5)
    stamp = camera.send(RGB)
    depth = depth_of(camera.expect("depth/image", stamp, 20))
    camera.wait(lambda: any(stamp_of(m) == stamp for m in messages["features"]), "features", 10)
    camera.wait(lambda: messages["features/class_token"] and messages["features/camera_info"], "what belongs to them")
    image = next(m for m in messages["features"] if stamp_of(m) == stamp)
    info = next(m for m in messages["features/camera_info"] if stamp_of(m) == stamp)
    np.testing.assert_allclose(depth, before, rtol=1e-4)

    assert (image.encoding, image.height, image.width, image.step) == ("32FC1", 6 * 8, 192, 4 * 192)
    assert image.header.frame_id == "camera_color_optical_frame"
    # 320 x 240 at 96 is 128 x 96 pixels: tokens of 16 x 16
    assert (info.width, info.height, info.binning_x, info.binning_y) == (128, 96, 16, 16)
    depth_info = camera.expect("depth/camera_info", stamp)
    assert info.k[0] == pytest.approx(0.4 * depth_info.k[0]) and info.p[5] == pytest.approx(0.4 * depth_info.p[5])
    assert info.k[2] + 8 == pytest.approx(0.4 * (depth_info.k[2] + 0.5))  # from the corner; the first patch's centre is at 8
    reference = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True).eval()
    state, prefix = load_file(files["custom"]), "pretrained.model."
    reference.load_state_dict({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}, strict=True)
    tokens, token = expected_of(reference)
    said = np.frombuffer(image.data, np.float32).reshape(48, 192)
    np.testing.assert_allclose(said, tokens, atol=2e-3)
    vector = messages["features/class_token"][-1]
    assert [(d.label, d.size) for d in vector.layout.dim] == [("channels", 192)]
    np.testing.assert_allclose(vector.data, token, atol=2e-3)


def expected_of(reference):
    """(patch tokens, class token) of the picture as the network has to see it."""
    pixels = cv2.resize(RGB.astype(np.float32) / 255, (128, 96), interpolation=cv2.INTER_CUBIC)
    pixels = (pixels - np.array(reference.pretrained_cfg["mean"])) / reference.pretrained_cfg["std"]
    with torch.inference_mode():
        found = reference.forward_features(torch.from_numpy(pixels.transpose(2, 0, 1)).float()[None])[0].numpy()
    return found[1:], found[0]
