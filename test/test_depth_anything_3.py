# SPDX-License-Identifier: Apache-2.0
"""Depth Anything 3: an independent implementation's numbers, sky that is no wall, metres by the focal length."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from published import ENCODERS, V2_TAPS, random_state_dict, transformers_network, use_dinov2_rule
from safetensors.torch import save_file

from depth_anything_ros.inference import DepthEstimator, network_size, preprocess
from depth_anything_ros.models import MODELS, CheckpointError, create_model
from depth_anything_ros.models.zoo import LONG_SIDE

SKY = "depth_head.scratch.sky_output_conv2"


def depth_anything_3_state() -> dict[str, torch.Tensor]:
    """Random ViT-S weights under our names: no mask token, no unused unit, a second head (ByteDance-Seed, `model/dpt.py`)."""
    state = random_state_dict("vits", seed=4)
    state = {n: t for n, t in state.items() if "mask_token" not in n and "refinenet4.resConfUnit1" not in n}
    generator, features = np.random.default_rng(5), ENCODERS["vits"][3]
    for name, shape in (
        ("0.weight", (32, features // 2, 3, 3)),
        ("0.bias", (32,)),
        ("2.weight", (1, 32, 1, 1)),
        ("2.bias", (1,)),
    ):
        scale = 1.2 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1
        state[f"{SKY}.{name}"] = torch.from_numpy(generator.standard_normal(shape, np.float32) * np.float32(scale))
    state[f"{SKY}.2.bias"] -= 3.0  # some sky, not all
    for name in ("2.weight", "2.bias"):
        state[f"depth_head.scratch.output_conv2.{name}"] *= 0.3  # exp() of it stays in a scene's range
    return state


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The weights in the names of the published file: a module's, within a wrapper (`api.py`, PyTorchModelHubMixin)."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    names = {"pretrained": "model.backbone.pretrained", "depth_head": "model.head"}
    state = {names[n.split(".")[0]] + n[n.index(".") :]: t for n, t in depth_anything_3_state().items()}
    save_file(state, path)
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The published ones are vitl only: the same models with vits."""
    for name in ("da3_mono", "da3_metric"):
        monkeypatch.setitem(MODELS, name, replace(MODELS[name], taps={"vits": V2_TAPS["vits"]}, weights={}))
        MODELS[name].unpublished_licence["vits"] = "Apache-2.0"


class Oracle:
    """transformers' Depth Anything with the same weights; its last layers by hand: exp for depth, ReLU for the sky."""

    def __init__(self):
        self.state = depth_anything_3_state()
        plain = {n: t for n, t in self.state.items() if "sky" not in n}
        unused = {n: t for n, t in random_state_dict("vits").items() if "refinenet4.resConfUnit1" in n or "mask_token" in n}
        self.network = transformers_network({**plain, **unused}, "vits", V2_TAPS["vits"])
        self.network.backbone.layernorm.eps = 1e-5  # nn.LayerNorm's own; the blocks have 1e-6
        use_dinov2_rule(self.network)

    def __call__(self, images):
        """(depth, sky), each (B, h, w)."""
        rows, columns = (side // 14 for side in images.shape[-2:])
        maps = self.network.neck(self.network.backbone(images).feature_maps, rows, columns)
        path = self.network.head.conv1(maps[-1])
        path = F.interpolate(path, size=images.shape[-2:], mode="bilinear", align_corners=True)
        depth, sky = (self.last(path, name) for name in ("depth_head.scratch.output_conv2", SKY))
        return torch.exp(depth), torch.relu(sky)

    def last(self, path, name):
        w = {end: self.state[f"{name}.{end}"] for end in ("0.weight", "0.bias", "2.weight", "2.bias")}
        path = F.relu(F.conv2d(path, w["0.weight"], w["0.bias"], padding=1))
        return F.conv2d(path, w["2.weight"], w["2.bias"])[:, 0]


@pytest.fixture(scope="module")
def oracle():
    return Oracle()


@torch.inference_mode()
@pytest.mark.parametrize("height, width", [(378, 504), (280, 504)])
def test_equals_an_independent_implementation(published, oracle, height, width):
    images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(2))
    ours = create_model("da3_mono", checkpoint=published)(images)
    depth, sky = oracle(images)
    assert 0.05 < float((sky >= 0.3).float().mean()) < 0.95  # both kinds of pixels are there
    assert float(depth.max() / depth.min()) > 1.5
    land, air = sky < 0.2999, sky > 0.3001
    assert float((ours * depth - 1)[land].abs().max()) < 1e-4
    assert float(ours[air].max()) == 0 < float((1 / depth)[air].min())  # infinitely far, where depth alone would say a wall


def test_the_numbers_are_those_of_metric_too_but_mean_something_else(published):
    images = torch.randn(1, 3, 280, 504, generator=torch.Generator().manual_seed(2))
    mono, metric = (create_model(name, checkpoint=published) for name in ("da3_mono", "da3_metric"))
    with torch.inference_mode():
        assert torch.equal(mono(images), metric(images))
    assert mono.kind == "relative" and metric.kind == "canonical"


def test_a_file_of_depth_anything_2_is_refused(tmp_path):
    path = tmp_path / "mine.pth"
    torch.save(random_state_dict("vits"), path)
    with pytest.raises(CheckpointError, match="not a Depth Anything 3 checkpoint"):
        create_model("da3_metric", checkpoint=path)


@pytest.mark.parametrize(
    "image, expected",
    [  # given by the reference's InputProcessor (`utils/io/input_processor.py`, upper_bound_resize at 504)
        ((640, 480), (504, 378)),
        ((1280, 720), (504, 280)),
        ((320, 240), (504, 378)),
        ((752, 480), (504, 322)),
        ((480, 640), (378, 504)),
        ((1242, 375), (504, 154)),
        ((505, 333), (504, 336)),
        ((500, 375), (504, 378)),
    ],
)
def test_sizes_are_those_of_the_reference(image, expected):
    assert network_size(*image, 504, 14, resize=LONG_SIDE) == expected


@pytest.mark.parametrize(
    "size, steps",
    [
        ((640, 480), [(504, 378, cv2.INTER_AREA)]),
        ((1280, 720), [(504, 284, cv2.INTER_AREA), (504, 280, cv2.INTER_AREA)]),
        ((1242, 375), [(504, 152, cv2.INTER_AREA), (504, 154, cv2.INTER_CUBIC)]),
        ((500, 333), [(504, 336, cv2.INTER_CUBIC)]),
    ],
)
def test_pixels_are_those_of_the_reference(size, steps):
    """The long side to 504, then both to whole patches; in bytes."""
    rgb = plain = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    for width, height, how in steps:
        plain = cv2.resize(plain, (width, height), interpolation=how)
    plain = (plain / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    ours = preprocess([rgb], network_size(*size, 504, 14, resize=LONG_SIDE), torch.device("cpu"), MODELS["da3_mono"])
    np.testing.assert_allclose(ours[0].numpy(), plain.transpose(2, 0, 1), atol=1e-5)


def test_metres_are_the_output_times_the_focal_length_as_the_network_sees_it_over_300(published, oracle):
    estimator = DepthEstimator.create("da3_metric", checkpoint=str(published), device="cpu", backend="torch", input_size=252)
    rgb = np.random.default_rng(3).integers(0, 256, (480, 640, 3), np.uint8)
    fx, fy = 700.0, 620.0
    prediction = estimator.predict(rgb, (fx, fy))
    images = preprocess([rgb], (252, 196), torch.device("cpu"), MODELS["da3_metric"])
    with torch.inference_mode():
        depth, sky = (part[0].numpy() for part in oracle(images))
    focal = (fx * 252 / 640 + fy * 196 / 480) / 2
    assert prediction.kind == "metric" and prediction.focal == (fx, fy) and not prediction.estimated
    land, air = sky < 0.29, sky > 0.31
    np.testing.assert_allclose(prediction.values[land], (depth * focal / 300)[land], rtol=1e-4)
    assert (prediction.values[air] >= 9999).all()  # beyond any range: no wall
    twice = estimator.predict(rgb, (2 * fx, 2 * fy)).values
    np.testing.assert_allclose(twice[land], 2 * prediction.values[land], rtol=1e-5)


def test_without_a_focal_length_there_are_no_metres(published):
    estimator = DepthEstimator.create("da3_metric", checkpoint=str(published), device="cpu", backend="torch", input_size=252)
    rgb = np.random.default_rng(3).integers(0, 256, (480, 640, 3), np.uint8)
    unknown, known = estimator.predict_batch([rgb, rgb], [None, (600.0, 600.0)])
    assert known.network == estimator.name and unknown.network != known.network  # no scale of the one is for the other
    assert estimator.name.split("/")[2] == "252"  # the long side, as input_size says
    assert unknown.kind == "relative" and unknown.focal is None
    assert known.kind == "metric"
    near = known.values < 9999
    ratio = (known.values * unknown.values)[near]  # inverse depth, up to a factor
    assert ratio.std() / ratio.mean() < 1e-4


def test_in_half_precision_the_head_stays_exact(published):
    network = create_model("da3_mono", checkpoint=published)
    lowered = network.lowered(torch.bfloat16)
    assert {p.dtype for p in lowered.depth_head.parameters()} == {torch.float32}
    assert {p.dtype for p in lowered.pretrained.parameters()} == {torch.bfloat16}
    images = torch.randn(1, 3, 140, 252, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        assert lowered(images).dtype == torch.float32
