# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning: losses against formulas written out here, runs that go on exactly, networks that learn."""

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from bags import FRAME, IMAGE, START, header_of, image_of, write_bag
from rgbd import HEIGHT, WIDTH, write_folder, write_image
from ros import camera_info

from depth_anything_ros import depth_finetune
from depth_anything_ros.demo.sources import photographed_scene
from depth_anything_ros.inference import DepthEstimator, preprocess
from depth_anything_ros.models import METRIC, RELATIVE, ModelError, create_model, save_network
from depth_anything_ros.training.augment import Augmentation, augment
from depth_anything_ros.training.draws import Draws, on_grid
from depth_anything_ros.training.folders import pairs_in
from depth_anything_ros.training.losses import scale_and_shift_invariant, silog
from depth_anything_ros.training.optimise import Settings, average_into, in_training, loss_of, optimiser_of, rate_at
from depth_anything_ros.training.samples import Bounds, DataError, read, write_picture
from depth_anything_ros.training.start import as_metric, fit_last_layer, with_row
from depth_anything_ros.training.trainer import Trainer
from depth_anything_ros.training.validation import Validation, aligned

BOUNDS = Bounds(0.1, 20.0)
CPU = torch.device("cpu")


# -- losses -------------------------------------------------------------------------------------------------------


def naive_ssi(prediction, target, mask, alpha):
    """Ranftl et al. (2022), equations 5 to 7 and 11, one image and one pixel after the other."""
    losses = []
    for p, t, m in zip(prediction, target, mask):
        normal = []
        for values in (p, t):
            valid = sorted(values[m].tolist())
            middle = valid[(len(valid) - 1) // 2]
            normal.append((values - middle) / (sum(abs(v - middle) for v in valid) / len(valid)))
        off = normal[0] - normal[1]
        total = sum(abs(v) for v in off[m]) / m.sum()
        for k in range(4):
            r, valid, steps = off[:: 2**k, :: 2**k], m[:: 2**k, :: 2**k], 0.0
            for y in range(r.shape[0]):
                for x in range(r.shape[1]):
                    if x + 1 < r.shape[1] and valid[y, x] and valid[y, x + 1]:
                        steps += abs(r[y, x + 1] - r[y, x])
                    if y + 1 < r.shape[0] and valid[y, x] and valid[y + 1, x]:
                        steps += abs(r[y + 1, x] - r[y, x])
            total += alpha * steps / valid.sum()
        losses.append(total)
    return sum(losses) / len(losses)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    prediction, target = rng.uniform(0.5, 3, (2, 3, 17, 23))
    return prediction, target, rng.random((3, 17, 23)) < 0.7


def tensors(*arrays):
    return [torch.from_numpy(np.asarray(a)) for a in arrays]


def test_the_affine_invariant_loss_is_the_published_one():
    p, t, m = batch()
    for alpha in (0.0, 0.5, 2.0):
        found = float(scale_and_shift_invariant(*tensors(p, t, m), gradient=alpha))
        assert found == pytest.approx(naive_ssi(p, t, m, alpha), rel=1e-5)
    moved = float(scale_and_shift_invariant(*tensors(3.7 * p - 5, t, m)))
    assert moved == pytest.approx(naive_ssi(p, t, m, 0.5), rel=1e-4)
    assert float(scale_and_shift_invariant(*tensors(0.2 * t + 9, t, m))) == pytest.approx(0, abs=1e-4)
    for other in (-p, p**2):  # controls: what is no scale and shift has another loss
        assert abs(float(scale_and_shift_invariant(*tensors(other, t, m))) - moved) > 0.01


@pytest.mark.parametrize("focus", [0.0, 0.5, 0.85, 1.0])
def test_the_logarithmic_error_is_the_published_one(focus):
    p, t, m = batch(1)
    expected = []
    for each in range(3):
        d = np.log(p[each][m[each]]) - np.log(t[each][m[each]])
        expected.append(np.sqrt((d**2).sum() / d.size - focus * d.sum() ** 2 / d.size**2))
    assert float(silog(*tensors(p, t, m), focus=focus)) == pytest.approx(np.mean(expected), rel=1e-5)
    off = abs(float(silog(*tensors(2 * p, t, m), focus=focus)) - np.mean(expected))
    assert off < 1e-4 if focus == 1 else off > 0.01  # only then the scale does not matter


@pytest.mark.parametrize("loss", [silog, scale_and_shift_invariant])
@pytest.mark.parametrize("nonsense", [np.nan, np.inf, 0.0, -3.0, 1e9])
def test_what_is_masked_has_no_influence(loss, nonsense):
    p, t, m = batch(2)
    m[1] = False  # a whole image
    prediction = torch.tensor(p, requires_grad=True)
    value = loss(prediction, *tensors(t, m))
    value.backward()
    spoilt = torch.tensor(np.where(m, p, nonsense), requires_grad=True)
    again = loss(spoilt, *tensors(np.where(m, t, nonsense), m))
    again.backward()
    assert torch.equal(again, value) and torch.equal(spoilt.grad, prediction.grad)
    assert not prediction.grad[~torch.from_numpy(m)].any() and prediction.grad[0].any()
    assert float(loss(prediction.detach(), *tensors(t, np.zeros_like(m)))) == 0
    t[0][m[0]] *= np.linspace(1, 2, m[0].sum())  # control: what is not masked has
    assert abs(float(loss(prediction.detach(), *tensors(t, m))) - float(value.detach())) > 1e-3


def test_relative_predictions_are_aligned_before_they_are_judged():
    truth = np.random.default_rng(3).uniform(1, 8, (20, 30)).astype(np.float32)
    valid = np.random.default_rng(4).random(truth.shape) < 0.5
    inverse = np.where(valid, (1 / truth - 0.3) / 7, 100).astype(np.float32)
    np.testing.assert_allclose(aligned(inverse, truth, valid)[valid], truth[valid], rtol=1e-4)
    assert np.isfinite(aligned(-inverse, truth, valid)).all()


# -- batches ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Folders of scenes: to train on, and held out."""
    folder = tmp_path_factory.mktemp("scenes")
    for name, first, count in (("training", 0, 16), ("held_out", 10_000_000, 4)):
        write_folder(folder / name, [photographed_scene(first + k, "room", WIDTH, HEIGHT) for k in range(count)])
    return folder


def draws_of(scenes, **changes):
    made = {"augmentation": Augmentation(), "size": (WIDTH, HEIGHT), "batch": 4, "seed": 3} | changes
    return Draws(pairs_in(scenes / "training"), BOUNDS, **made)


def test_a_step_sees_the_same_whenever_it_is_asked(scenes):
    draws = draws_of(scenes)
    late = list(draws.from_step(5, 9))
    assert len(late) == 4 and len(list(draws.from_step(0, 2))) == 2 and not list(draws.from_step(9, 9))
    for a, b in zip(late, list(draws.from_step(0, 9))[5:]):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.depth, b.depth)
    assert not np.array_equal(draws_of(scenes, seed=4).at(5).images, late[0].images)
    plain = draws_of(scenes, augmentation=Augmentation(False, 0.0))
    epoch = [image.tobytes() for step in range(4) for image in plain.at(step).images]
    assert len(set(epoch)) == 16  # each of 16 once
    assert epoch != [image.tobytes() for step in range(4, 8) for image in plain.at(step).images]


def test_augmentation_keeps_image_and_depth_together():
    rng = np.random.default_rng(0)
    depth = np.linspace(1, 5, WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH)
    rgb = np.repeat(np.float32(depth * 50).astype(np.uint8)[..., None], 3, 2)
    for _ in range(8):
        image, metres = augment(rgb, depth, Augmentation(colour=0.0, crop=0.6), rng)
        assert image.shape[:2] == metres.shape and 0.55 < metres.shape[0] / HEIGHT <= 1
        np.testing.assert_array_equal(image[..., 0], np.float32(metres * 50).astype(np.uint8))
    image, metres = augment(rgb, depth, Augmentation(), rng)
    assert metres.shape == depth.shape and sorted(metres.ravel()) == sorted(depth.ravel())  # metric: nothing but mirrored
    assert not np.array_equal(image[..., 0], image[..., 2])
    halved = on_grid(depth, (WIDTH // 2, HEIGHT // 2))
    assert np.isin(halved, depth).all()  # no depth is made up


# -- training -----------------------------------------------------------------------------------------------------


def one_batch(scenes):
    batch = draws_of(scenes, batch=2).at(0)
    network = create_model("demo")
    return network, preprocess(batch.images, (WIDTH, HEIGHT), CPU, network.model), torch.from_numpy(batch.depth)


def gradients(network, images, depth, **settings):
    settings = Settings(10, **settings)
    optimiser_of(network, settings).zero_grad()
    loss_of(in_training(network, settings), images, depth).backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def test_half_precision_is_close(scenes):
    network, images, depth = one_batch(scenes)
    exact, half = (float(loss_of(network, images, depth, on)) for on in (False, True))
    assert half != exact and half == pytest.approx(exact, rel=0.05)


def test_checkpointing_gives_the_same_gradients(scenes):
    network, images, depth = one_batch(scenes)
    plain, saving = (gradients(network, images, depth, checkpointing=on) for on in (False, True))
    assert plain.keys() == saving.keys() and len(plain) > 100
    assert all(torch.equal(plain[name], saving[name]) for name in plain)
    assert network.pretrained.grad_checkpointing
    mirrored = gradients(network, images.flip(-1), depth)  # control
    assert not torch.allclose(plain["pretrained.pos_embed"], mirrored["pretrained.pos_embed"])


def moved(scenes, **options):
    """How far the largest weight of encoder and head moves, and whether batch norms keep their statistics."""
    network, images, depth = one_batch(scenes)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    settings = Settings(10, warm_up=0.0, **options)
    optimiser = optimiser_of(network, settings)
    loss_of(in_training(network, settings), images, depth).backward()
    optimiser.step()
    far = {"depth_head": 0.0, "encoder": 0.0, "statistics": 0.0}
    for name, value in network.state_dict().items():
        part = "statistics" if "running" in name or "tracked" in name else name.split(".")[0]
        part = part if part in far else "encoder"
        far[part] = max(far[part], float((value - before[name]).abs().max()))
    return far


def test_the_encoder_moves_at_its_own_rate_or_not_at_all(scenes):
    """AdamW's first step is the rate itself for each weight (and its decay, a hundredth of the rate times the weight)."""
    far = moved(scenes, rate=1e-3, encoder_rate=1e-4)
    assert far["depth_head"] == pytest.approx(1e-3, rel=0.05) and far["encoder"] == pytest.approx(1e-4, rel=0.15)
    assert far["statistics"] == 0
    frozen = moved(scenes, rate=1e-3, encoder_rate=1e-4, freeze_encoder=True)
    assert frozen["encoder"] == 0 == frozen["statistics"] and frozen["depth_head"] > 9e-4


def test_rates_rise_and_fall():
    settings = Settings(100, warm_up=0.1)
    rates = [rate_at(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and np.argmax(rates) == 9
    assert rates[50] == pytest.approx(0.5**0.9) and 0 < rates[99] < 0.02


def test_the_average_is_the_running_one():
    average, network = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    expected = average.weight.detach().numpy().copy()
    for step in range(40):
        values = np.random.default_rng(step).normal(size=3).astype(np.float32)
        network.weight.data = torch.from_numpy(values)
        network.num_batches_tracked += 1
        average_into(average, network, step, 0.7)
        past = min(0.7, (1 + step) / (10 + step))
        expected = past * expected + (1 - past) * values
    np.testing.assert_allclose(average.weight.detach(), expected, rtol=1e-5)
    assert average.num_batches_tracked == 40


def trainer_of(scenes, steps, network=None, size=(WIDTH, HEIGHT), batch=4, **settings):
    network = network or create_model("demo")
    settings = {"rate": 1e-3, "encoder_rate": 1e-3, "validate_every": 2} | settings
    validation = Validation(pairs_in(scenes / "held_out"), BOUNDS, size)
    return Trainer(network, draws_of(scenes, size=size, batch=batch), validation, Settings(steps, **settings), CPU)


def test_a_killed_run_ends_as_one_that_was_not(scenes, tmp_path):
    small = {"size": (64, 48), "batch": 2}
    whole, state = trainer_of(scenes, 5, **small), tmp_path / "part.pt"
    assert whole.run(tmp_path / "whole.pt", lambda *_: None)
    for stop_at in (1, 4, 5):  # within a round of validation, behind one, and not at all
        part = trainer_of(scenes, 5, **small)
        if state.exists():
            part.resume(state)
        assert part.run(state, lambda *_: None, lambda part=part, end=stop_at: part.step == end) == (stop_at == 5)
        assert part.step == stop_at
    for kind in ("network", "average"):
        states = (getattr(each, kind).state_dict() for each in (whole, part))
        assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states))), kind
    assert part.best == whole.best and part.first == whole.first and part.loss == whole.loss
    part.draws = replace(part.draws, pairs=part.draws.pairs[::-1])
    with pytest.raises(ModelError, match="another images"):
        part.resume(state)
    other = trainer_of(scenes, 7, **small)
    with pytest.raises(ModelError, match="another steps"):
        other.resume(tmp_path / "part.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "part.pt").read_bytes()[:100_000])
    with pytest.raises(ModelError, match="damaged"):
        other.resume(tmp_path / "cut.pt")


def test_training_lowers_the_error_on_scenes_held_out(scenes, tmp_path):
    """A world of half the size: the demo's metres are wrong in it, and become right."""
    for folder in ("training", "held_out"):
        for pair in pairs_in(scenes / folder):
            write_image(tmp_path / folder / "rgb" / pair.image.name, read(pair)[0])
            depth = cv2.imread(str(pair.depth), cv2.IMREAD_UNCHANGED)
            write_image(tmp_path / folder / "depth" / pair.depth.name, depth // 2)
    figures = []
    trainer = trainer_of(tmp_path, 10, validate_every=5)
    assert trainer.run(tmp_path / "state.pt", lambda found, best: figures.append((found, best)))
    first, last = figures[0][0], figures[-1][0]
    assert first.abs_rel > 0.8 and last.abs_rel < 0.5 * first.abs_rel and last.delta1 > first.delta1 + 0.2
    assert trainer.best[0].abs_rel == min(found.abs_rel for found, _ in figures)


def test_a_relative_network_becomes_a_metric_one_that_begins_well(scenes):
    relative = with_row(create_model("demo"), kind=RELATIVE)
    pairs = pairs_in(scenes / "training")
    fit_last_layer(relative, pairs, BOUNDS, (WIDTH, HEIGHT))  # the demo's own layer says metres
    held_out = Validation(pairs_in(scenes / "held_out"), BOUNDS, (WIDTH, HEIGHT))
    assert held_out.figures(relative).abs_rel < 0.4  # aligned
    metric = as_metric(relative, 10.0)
    blind = held_out.figures(metric).abs_rel  # control: the old layer's numbers are no metres
    fit_last_layer(metric, pairs, BOUNDS, (WIDTH, HEIGHT))
    assert metric.kind == METRIC and metric.model.max_depth == 10
    assert held_out.figures(metric).abs_rel < min(0.5, 0.7 * blind)


def test_the_last_layer_is_fitted_to_images_that_have_depth(scenes, tmp_path):
    """Each second image is blind: those that an even choice of eight of sixteen takes."""
    for place, pair in enumerate(pairs_in(scenes / "training")):
        write_image(tmp_path / "rgb" / pair.image.name, read(pair)[0])
        depth = cv2.imread(str(pair.depth), cv2.IMREAD_UNCHANGED)
        write_image(tmp_path / "depth" / pair.depth.name, depth * np.uint16(place % 2))
    network, pairs = as_metric(with_row(create_model("demo"), kind=RELATIVE), 10.0), pairs_in(tmp_path)
    fit_last_layer(network, pairs, BOUNDS, (WIDTH, HEIGHT))
    assert Validation(pairs[1::2], BOUNDS, (WIDTH, HEIGHT)).figures(network).abs_rel < 0.5
    with pytest.raises(DataError, match="none of 8 depth images has a valid pixel"):
        fit_last_layer(network, pairs[::2], BOUNDS, (WIDTH, HEIGHT))


def test_a_full_disk_is_said_and_leaves_the_old_state(scenes, tmp_path):
    trainer, state = trainer_of(scenes, 1), tmp_path / "state.pt"
    state.write_bytes(b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OSError, match="'.*state.pt' could not be written .*: is the disk full"):
            trainer.save(state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert state.read_bytes() == b"before" and os.listdir(tmp_path) == ["state.pt"]
    with pytest.raises(OSError, match="could not be written"):
        write_picture(tmp_path / "nowhere" / "a.png", np.zeros((3, 3), np.uint8))


def test_what_is_saved_says_the_same(scenes, tmp_path):
    trainer = trainer_of(scenes, 1, with_row(create_model("demo"), input_size=96, training_focal=0.7))
    trainer.run(tmp_path / "state.pt", lambda *_: None)
    file = save_network(trainer.average, tmp_path / "mine.safetensors", "demo/tiny", "Apache-2.0", "a test")
    loaded = create_model("custom", checkpoint=str(file))
    images = torch.randn(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(loaded(images), trainer.average(images))
        assert not torch.equal(loaded(images), create_model("demo")(images))
    assert (loaded.model.input_size, loaded.model.training_focal, loaded.kind) == (96, 0.7, METRIC)
    estimator = DepthEstimator.create("custom", checkpoint=str(file), device="cpu", backend="torch")
    rgb, truth = read(pairs_in(scenes / "held_out")[0])
    shown = trainer.validation.shown(trainer.average, 1)[0].depth
    np.testing.assert_array_equal(estimator.predict(rgb).at_image_size(), shown)  # the node sees what training saw


@pytest.mark.parametrize(
    "name, options, taps",
    [
        ("vit_tiny_patch16_224", ["--checkpointing"], [2, 5, 8, 11]),
        ("test_vit_relpos", ["--taps", "0", "2", "3", "4"], [0, 2, 3, 4]),  # of one size only
    ],
)
def test_a_head_on_a_network_of_timm(scenes, tmp_path, capsys, name, options, taps):
    out = tmp_path / "run"
    command = [str(scenes / "training"), "--validation", str(scenes / "held_out"), "--output", str(out), "--quiet"]
    command += ["--timm", name, "--input-size", "48", "--steps", "1", "--device", "cpu"]
    out.mkdir()
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert depth_finetune.main([*command, *options]) == 2 and "another depth_finetune is at work" in capsys.readouterr().err
    assert depth_finetune.main([*command, *options]) == 0
    said = capsys.readouterr().out
    assert "your own" in said and "after alignment" in said
    network = create_model("custom", checkpoint=str(out / "tuned.safetensors"))
    assert network.kind == RELATIVE and network.encoder.timm == name and network.model.input_size == 48
    assert network.taps == taps
    estimator = DepthEstimator.create("custom", checkpoint=str(out / "tuned.safetensors"), device="cpu", backend="torch")
    assert estimator.predict(np.zeros((100, 200, 3), np.uint8)).at_image_size().shape == (100, 200)  # another camera's


def test_the_command_is_stopped_and_goes_on(tmp_path, capsys):
    """A bag, Ctrl-C, --resume: a network for the node, its parameters, a log, and pictures."""
    shots = [photographed_scene(k, "corridor", WIDTH, HEIGHT) for k in range(10)]

    def messages():
        for k, shot in enumerate(shots):
            stamp = START + k * 200_000_000
            for topic, pixels, encoding in (
                (IMAGE, shot.rgb, "rgb8"),
                ("/camera/depth/image_raw", np.rint(np.minimum(shot.depth, 30) * 1000).astype(np.uint16), "16UC1"),
            ):
                yield topic.replace("image_raw", "camera_info"), stamp, camera_info(header_of(stamp, FRAME), WIDTH, HEIGHT)
                yield topic, stamp, image_of(pixels, stamp, encoding)

    bag, out = write_bag(tmp_path / "bag", messages()), tmp_path / "run"
    begin = [sys.executable, "-m", "depth_anything_ros.depth_finetune"]
    options = [str(bag), "--output", str(out), "--model", "demo", "--input-size", "48", "--device", "cpu", "--batch", "2"]
    options += ["--steps", "4", "--validate-every", "2", "--freeze-encoder", "--rate", "1e-3", "--quiet"]
    process = subprocess.Popen([*begin, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (out / "state.pt").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and f"--resume {out}" in said, said
    said = json.loads((out / "options.json").read_text())
    del said["rotation"]  # as a version had it that did not know this option
    (out / "options.json").write_text(json.dumps(said))
    done = subprocess.run([*begin, "--resume", str(out), "--quiet"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "AbsRel" in done.stdout and f"params_file:={out / 'tuned.yaml'}" in done.stdout
    rows = (out / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "0", "2", "4"]
    pictures = [out / "before_after.png", *(out / "pictures" / f"{step:06d}.png" for step in (0, 2, 4))]
    assert all(cv2.imread(str(each)).shape[1] == 4 * 320 for each in pictures)
    network = create_model("custom", checkpoint=str(out / "tuned.safetensors"))
    focal = camera_info(header_of(0), WIDTH, HEIGHT)
    assert network.model.training_focal == pytest.approx((focal.k[0] + focal.k[4]) / 2 / HEIGHT, rel=0.03)
    assert "custom" in (out / "tuned.yaml").read_text() and json.loads((out / "options.json").read_text())["steps"] == 4
    assert depth_finetune.main(options) == 2 and "holds a run already" in capsys.readouterr().err
