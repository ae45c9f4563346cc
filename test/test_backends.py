# SPDX-License-Identifier: Apache-2.0
"""Backends say what torch says, prove it before their first frame, and make way for the next one if they do not."""

import threading
import time

import cv2
import numpy as np
import pytest
import torch
from published import random_state_dict
from ros import DepthProcess, bench, depth_of, picture

from depth_anything_ros import depth_export
from depth_anything_ros.inference import DepthEstimator, ImageError, InferenceError, backends, candidates, network_size
from depth_anything_ros.inference.backends.torch_backend import TorchBackend
from depth_anything_ros.inference.executor import Executor
from depth_anything_ros.models import create_model

CPU = torch.device("cpu")
SCENE = cv2.resize(np.random.default_rng(3).integers(0, 256, (12, 16, 3), np.uint8), (320, 240))


def needs(backend):
    return pytest.mark.skipif(bool(backends.missing(backend)), reason=f"{backend} is not installed")


BACKENDS = [
    pytest.param("torch", "fp32", 1e-6),
    pytest.param("torch", "bf16", 0.02),
    pytest.param("openvino", "fp32", 1e-4, marks=needs("openvino")),
    pytest.param("openvino", "auto", 0.02, marks=needs("openvino")),
    pytest.param("onnxruntime", "auto", 1e-4, marks=needs("onnxruntime")),
]


@pytest.mark.parametrize("backend, precision, tolerance", BACKENDS)
@pytest.mark.parametrize("size", [(320, 240), (120, 200)])
def test_every_backend_says_what_the_plain_network_says(backend, precision, tolerance, size):
    """Against the network called by hand, at two aspect ratios: each has its own position embedding."""
    lines = []
    estimator = DepthEstimator.create("demo", device="cpu", backend=backend, precision=precision, log=lines.append)
    image = cv2.resize(SCENE, size)
    prediction = estimator.predict(image).values
    assert estimator.executor.backend.name == backend and not lines, lines
    if precision != "auto":
        assert estimator.executor.backend.precision == precision
    plain = cv2.resize(image / 255.0, network_size(*size, 192, 16), interpolation=cv2.INTER_CUBIC)
    plain = torch.from_numpy((plain - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        expected = create_model("demo")(plain)[0].numpy()
    share = np.abs(prediction - expected) / expected
    assert share.mean() < tolerance and np.percentile(share, 99) < 5 * tolerance
    assert share.max() > 1e-4 or estimator.executor.backend.precision == "fp32"  # half precision is half precision


@pytest.mark.parametrize("backend", [pytest.param(name, marks=needs(name)) for name in ("openvino", "onnxruntime")])
def test_a_vit_with_dinov2s_position_embedding(backend, vits):
    """The published architecture, off the square, in float32: equal to torch to rounding."""
    image = cv2.resize(SCENE, (200, 120))
    options = ("v2", "vits", str(vits), 112, "cpu", "fp32")
    ours = DepthEstimator.create(*options, backend=backend)
    expected = DepthEstimator.create(*options, backend="torch").predict(image).values
    assert np.abs(ours.predict(image).values - expected).max() < 1e-3
    assert ours.executor.backend.name == backend


class Liar:
    """Says what torch says, but for a part of the picture."""

    name, precision, device, max_sizes = "liar", "fp32", CPU, 4

    def __init__(self, network, off):
        self.network, self.off = network, off

    def prepare(self, height, width):
        pass

    def run(self, images):
        with torch.inference_mode():
            values = self.network(images).clone()
            values[..., : values.shape[-1] // 10] *= self.off
        return values


@pytest.mark.parametrize("off, verdict", [(1.001, "trusted"), (1.2, "refused"), (float("nan"), "refused")])
def test_a_backend_that_says_something_else_is_refused_with_the_figures(monkeypatch, off, verdict):
    network, lines = create_model("demo"), []
    monkeypatch.setitem(backends.BACKENDS, "liar", ((), ("cpu",), lambda network, device, precision: Liar(network, off)))
    executor = Executor(network, CPU, candidates("liar", "auto", CPU), lines.append)
    executor.prepare((256, 192))
    if verdict == "trusted":
        assert executor.backend.name == "liar" and not lines
    else:
        assert executor.backend.name == "torch" and len(lines) == 1
        assert "liar at 256x192: differs from torch in float32: mean" in lines[0]
        assert ("mean 1.95%, 99th percentile 20.00%" in lines[0]) == (off == 1.2)  # 25 of 256 columns


def test_a_refused_backend_is_not_taken_up_again(monkeypatch):
    """Refused at a second size while nothing else can run that: an error, and not what was refused."""
    network = create_model("demo")
    liar, torchs = Liar(network, 1.0), backends.BACKENDS["torch"]
    monkeypatch.setitem(backends.BACKENDS, "liar", ((), ("cpu",), lambda *arguments: liar))
    executor = Executor(network, CPU, candidates("liar", "auto", CPU))
    executor.prepare((256, 192))
    liar.off = 1.5

    def out_of_memory(*arguments):
        raise MemoryError("no more")

    monkeypatch.setitem(backends.BACKENDS, "torch", ((), ("cpu",), out_of_memory))
    for _ in range(2):
        with pytest.raises(backends.BackendError, match="MemoryError: no more"):
            executor.run(torch.zeros(1, 3, 192, 384))
    monkeypatch.setitem(backends.BACKENDS, "torch", torchs)
    executor.run(torch.zeros(1, 3, 192, 384))
    assert executor.backend.name == "torch"


@needs("openvino")
def test_two_networks_are_compiled_at_the_same_time():
    """torch's export changes torch while it works: two at once would break each other."""
    lines = []
    made = [DepthEstimator.create("demo", device="cpu", backend="openvino", log=lines.append) for _ in range(2)]
    threads = [threading.Thread(target=estimator.prepare, args=(320, 240)) for estimator in made]
    for thread in threads:
        thread.start()
        time.sleep(1)
    for thread in threads:
        thread.join()
    assert not lines and all(estimator.executor.backend.name == "openvino" for estimator in made)
    images = [SCENE, SCENE[:, ::-1].copy()]  # a batch, and mirrored images beside it
    for image, prediction in zip(images, made[0].predict_batch(images, confidence=True)):
        np.testing.assert_allclose(prediction.values, made[1].predict(image).values, rtol=1e-5)
        assert 0.5 < float(prediction.confidence.mean()) <= 1


def test_a_backend_that_does_not_start_makes_way(monkeypatch):
    def broken(network, device, precision):
        raise OSError("libsomething.so.4: cannot open shared object file")

    monkeypatch.setitem(backends.BACKENDS, "broken", ((), ("cpu",), broken))
    lines = []
    executor = Executor(create_model("demo"), CPU, candidates("broken", "auto", CPU), lines.append)
    executor.prepare((256, 192))
    assert executor.backend.name == "torch" and "libsomething.so.4" in lines[0]


def test_the_order_of_candidates():
    cuda = torch.device("cuda")
    assert candidates("torch", "auto", CPU) == [("torch", "fp32")]
    assert candidates("torch", "auto", cuda) == [("torch", "fp16"), ("torch", "bf16"), ("torch", "fp32")]
    assert candidates("torch", "bf16", cuda) == [("torch", "bf16"), ("torch", "fp32")]
    assert candidates("auto", "auto", cuda)[0][0] == "torch"
    for backend in ("abacus", "tensorrt"):
        with pytest.raises(ValueError, match=backend):
            candidates(backend, "auto", CPU)


def test_a_missing_backend_says_what_to_install(monkeypatch):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs onnxruntime, onnx, onnxscript, not installed"):
        candidates("onnxruntime", "auto", CPU)
    assert candidates("auto", "auto", CPU) == [("torch", "fp32")]


def test_sizes_are_prepared_in_the_background_and_the_oldest_forgotten():
    estimator = DepthEstimator.create("demo", device="cpu", backend="torch")
    assert not estimator.begin(320, 240)
    end = time.monotonic() + 30
    while not estimator.begin(320, 240):
        assert time.monotonic() < end
        time.sleep(0.01)
    for width in range(272, 400, 16):
        estimator.prepare(width, 192)
    assert not estimator.executor.ready(estimator.network_size(320, 240))
    assert estimator.predict(SCENE).values.shape == (192, 256)
    with pytest.raises(ImageError):
        estimator.begin(5000, 10)


def test_two_threads_prepare_one_size_once(monkeypatch):
    estimator, prepared = DepthEstimator.create("demo", device="cpu", backend="torch"), []
    monkeypatch.setattr(TorchBackend, "prepare", lambda self, *size: time.sleep(0.2) or prepared.append(size))
    threads = [threading.Thread(target=estimator.executor.prepare, args=((256, 192),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(prepared) == 1


def test_max_tokens_bounds_the_network_and_the_scale_knows_it(vits):
    assert network_size(640, 480, 518, 14, max_tokens=1000) == (504, 378)
    assert 504 * 378 <= 1000 * 14**2 < 518 * 392
    assert network_size(640, 480, 518, 14, max_tokens=37 * 49) == (686, 518)
    estimator = DepthEstimator.create("v2", "vits", str(vits), device="cpu", backend="torch", max_tokens=100)
    prediction = estimator.predict(SCENE)
    height, width = prediction.values.shape
    assert height * width <= 100 * 14**2
    assert prediction.network == f"v2/vits/{height}/vits.pth"


def test_nan_of_a_backend_in_a_frame_is_an_error(tmp_path):
    state = random_state_dict("vits")
    state["depth_head.scratch.output_conv2.2.bias"][:] = float("nan")
    torch.save(state, tmp_path / "file.pth")
    estimator = DepthEstimator.create("v2", "vits", str(tmp_path / "file.pth"), 112, "cpu")
    with pytest.raises(InferenceError, match=r"NaN or Inf \(torch fp32\)"):
        estimator.predict(SCENE)


@needs("openvino")
def test_the_node_runs_openvino_and_gets_ready_for_sizes_as_they_come(tmp_path):
    """One image of a size that nobody expected is enough: it waits until the network is compiled and proven for it."""
    with DepthProcess(tmp_path, model="demo", backend="openvino") as node, bench(listen=("depth/image",)) as it:
        it.wait_ready()
        it.wait_reading()
        assert it.values["backend"] == "openvino" and it.values["backends refused"] == ""
        plain = DepthEstimator.create("demo", device="cpu", backend="torch")
        for size in ((640, 480), (200, 320)):
            rgb = picture(*size)
            depth = depth_of(it.expect("depth/image", it.send(rgb), 60))
            share = np.abs(depth / plain.predict(rgb).at_image_size() - 1)
            assert np.isfinite(share).mean() > 0.5 and np.nanmedian(share) < 0.02
        it.send(picture(5000, 20))  # nobody's size
        it.wait(lambda: "refused" in it.values["last error"], "its refusal")
        assert it.set_parameters(input_size=96) == (True, "")  # it does not stand in the way of another network
        it.wait(lambda: it.values["input size"] == "96" and it.values["network"] == "ready", "the other size", 60)
        assert "Traceback" not in node.log


@needs("onnxruntime")
def test_an_exported_file_serves_others_and_says_what_it_is(tmp_path, capsys):
    import onnx
    import onnxruntime

    path = tmp_path / "demo.onnx"
    assert depth_export.main([str(path), "--model", "demo", "--image", "320x240"]) == 0
    assert "input 1x3x192x256, metres" in capsys.readouterr().out
    onnx.checker.check_model(onnx.load(path))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = torch.randn(1, 3, 192, 256, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = create_model("demo")(images).numpy()
    np.testing.assert_allclose(session.run(["depth"], {"image": images.numpy()})[0], expected, rtol=1e-3)
    said = session.get_modelmeta().custom_metadata_map
    assert said["network"] == "demo/tiny/192" and said["licence"] == "Apache-2.0" and said["output"].startswith("metres")
    assert depth_export.main([str(tmp_path / "no" / "folder.onnx"), "--model", "demo"]) == 2
    assert depth_export.main([str(path), "--model", "demo", "--input-size", "100"]) == 2
    assert "nearest are 96 and 112" in capsys.readouterr().err
