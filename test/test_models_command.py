# SPDX-License-Identifier: Apache-2.0
"""`depth_models`: what it lists, verifies and advises; networks that describe themselves, and files that lie."""

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from published import random_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from depth_anything_ros.depth_models import main
from depth_anything_ros.inference import DepthEstimator
from depth_anything_ros.models import (
    MODELS,
    CheckpointError,
    LicenceError,
    ModelError,
    create_model,
    new_network,
    rows_of,
    save_network,
)
from depth_anything_ros.models.catalogue import ADVICE, entries
from depth_anything_ros.models.zoo import noncommercial

DOCS = (Path(__file__).parent.parent / "docs" / "models.md").read_text()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A small network, and its file."""
    torch.manual_seed(0)
    network = new_network("vit_tiny_patch16_224", "metric", 15.0, 96, features=16, out_channels=(8, 8, 16, 16))
    path = tmp_path_factory.mktemp("own") / "own.safetensors"
    return network, save_network(network, path, "scratch", "Apache-2.0", "of a test")


def test_the_page_shows_what_the_command_prints(capsys):
    for action in ("list", "recommend"):
        assert main([action, "--markdown"]) == 0
        assert capsys.readouterr().out.strip() in DOCS


def test_every_network_is_listed_with_its_size_and_licence():
    """Sizes as published: LiheYoung and DepthAnything READMEs, apple/ml-depth-pro; 0.35 B for Depth Anything 3."""
    published = {"vits": 24_785_089, "vitb": 97_470_785, "vitl": 335_315_649, "vitg": 1_258_132_225}
    found = {(entry.name, entry.encoder): entry for entry in entries()}
    assert set(found) == {(name, encoder) for name, model in MODELS.items() for encoder in model.taps}
    for (name, encoder), entry in found.items():
        if name in ("v1", "v2", "v2_metric_indoor", "v2_metric_outdoor"):
            token = {"vits": 384, "vitb": 768, "vitl": 1024, "vitg": 1536}[
                encoder
            ]  # the files have a mask token that is unused
            assert entry.parameters() == published[encoder] - token
    assert found["depth_pro", "vitl16"].parameters() == 951_991_330
    assert found["da3_metric", "vitl"].parameters() == pytest.approx(0.335e9, rel=0.01)
    free = {key for key, entry in found.items() if entry.commercial}
    assert {("v1", "vitl"), ("v2", "vits"), ("da3_metric", "vitl"), ("demo", "tiny")} <= free
    assert not free & {("v2", "vitb"), ("v2_metric_indoor", "vitl"), ("v2", "vitg"), ("depth_pro", "vitl16")}


def test_advice_names_networks_that_exist_under_licences_as_it_says():
    for one in ADVICE:
        row, _, encoder = rows_of(one.settings["model"], one.settings.get("encoder", ""))
        entry = next(e for e in entries() if (e.name, e.encoder) == (one.settings["model"], encoder))
        assert entry.commercial == one.commercial
        unit = 512 if one.settings["model"] == "depth_pro" else 14
        assert one.settings.get("input_size", 0) % unit == 0
    for use in ("indoor", "outdoor"):
        for computer in ("cpu", "jetson", "gpu"):
            assert any(one.commercial and one.use == use and one.computer == computer for one in ADVICE)


def test_recommend_keeps_to_what_is_asked(capsys):
    assert main(["recommend", "--use", "outdoor", "--commercial"]) == 0
    text = capsys.readouterr().out
    assert "da3_metric" in text and "depth_pro" not in text and "v2_metric_indoor" not in text


def test_verify_finds_what_is_wrong(tmp_path, capsys, own):
    assert main(["verify"]) == 0  # the embedded model is always here
    assert "demo/tiny: good" in capsys.readouterr().out
    assert main(["verify", "--file", str(own[1])]) == 0
    state = random_state_dict("vits")
    good = tmp_path / "mine.pth"
    torch.save(state, good)
    assert main(["verify", "--file", str(good), "--model", "v2"]) == 0
    state["pretrained.norm.weight"][3] = torch.nan
    torch.save(state, good)
    assert main(["verify", "--file", str(good), "--model", "v2"]) == 1
    assert "NaN or Inf in pretrained.norm.weight" in capsys.readouterr().out
    assert main(["verify", "--file", str(good), "--model", "v2", "--encoder", "vitb"]) == 1
    assert main(["verify", "--file", str(tmp_path / "none.pth"), "--model", "v2"]) == 2
    for suffix in ("pth", "safetensors"):
        (tmp_path / f"cut.{suffix}").write_bytes(good.read_bytes()[:5000])
        assert main(["verify", "--file", str(tmp_path / f"cut.{suffix}"), "--model", "v2"]) == 1
        assert "damaged or incomplete" in capsys.readouterr().out
    data = bytearray(own[1].read_bytes())
    data[-2] ^= 1  # of a number: still finite
    (tmp_path / "flipped.safetensors").write_bytes(data)
    assert main(["verify", "--file", str(tmp_path / "flipped.safetensors")]) == 1
    assert "other numbers than it was written with" in capsys.readouterr().out


@pytest.mark.parametrize("damaged", [False, True])
def test_what_is_in_the_hubs_cache_has_to_match_the_hubs_checksum(tmp_path, monkeypatch, capsys, damaged):
    """The cache's layout as huggingface_hub writes it: blobs under their SHA-256, and links to them under their names."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    folder = cache / "models--depth-anything--Depth-Anything-V2-Small"
    for part in ("blobs", "refs", "snapshots/0123"):
        (folder / part).mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123")
    torch.save(random_state_dict("vits"), folder / "file")
    digest = hashlib.sha256((folder / "file").read_bytes()).hexdigest()
    blob = (folder / "file").rename(folder / "blobs" / digest)
    (folder / "snapshots" / "0123" / "depth_anything_v2_vits.pth").symlink_to(blob)
    if damaged:
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.write_bytes(data)
    assert main(["list"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("v2 ") and " vits " in line)
    assert row.endswith("yes")
    assert main(["verify"]) == int(damaged)
    text = capsys.readouterr().out
    assert ("v2/vits: BAD" in text and "the hub said" in text) if damaged else "SHA-256 as the hub says" in text


def test_download_says_what_to_do_without_a_network_and_asks_for_the_licence(capsys):
    assert main(["download", "depth_pro"]) == 2
    assert "Apple-AMLR" in capsys.readouterr().err
    assert main(["download", "da3_metric"]) == 2
    text = capsys.readouterr().err
    assert "https://huggingface.co/depth-anything/DA3METRIC-LARGE/resolve/main/model.safetensors" in text
    assert main(["download", "v3"]) == 2
    assert "unknown model 'v3'" in capsys.readouterr().err


def test_the_command_runs_as_installed():
    run = subprocess.run(
        [sys.executable, "-m", "depth_anything_ros.depth_models", "recommend"], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0 and "v2_metric_indoor" in run.stdout


# -- networks that describe themselves ----------------------------------------------------------------------------------


def test_a_file_of_ones_own_gives_the_same_network_again(own):
    network, path = own
    again = create_model("custom", checkpoint=str(path))
    images = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(again(images), network(images), atol=0, rtol=0)
    assert (again.kind, again.model.max_depth, again.model.input_size) == ("metric", 15.0, 96)
    assert rows_of("custom", checkpoint=str(path))[2] == "vit_tiny_patch16_224"
    with safe_open(path, "pt") as file:  # any program can read what it is
        said = json.loads(file.metadata()["depth_anything_ros"])
    assert said["licence"] == "Apache-2.0" and said["origin"] == "scratch" and said["note"] == "of a test"


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "test_vit_relpos", "coat_lite_tiny", "hiera_tiny_224"])
def test_tables_that_no_file_holds_and_weights_that_are_shared_come_back(name, tmp_path):
    """Rotary embeddings and indices of relative positions are no parameters; CoaT has one tensor under two names."""
    torch.manual_seed(0)
    network = new_network(name, features=8, out_channels=(8, 8, 8, 8))
    path = save_network(network, tmp_path / "own.safetensors", "scratch", "Apache-2.0")
    again = create_model("custom", checkpoint=str(path))
    unit = network.patch
    height, width = (4 * unit, 6 * unit)
    images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network.at_size(height, width)(images)
        torch.testing.assert_close(again.at_size(height, width)(images), expected, atol=0, rtol=0)
        path = save_network(network.at_size(height, width), tmp_path / "own.safetensors", "scratch", "Apache-2.0")
        built = create_model("custom", checkpoint=str(path))  # for that size, as fine-tuning leaves it
        torch.testing.assert_close(built.at_size(height, width)(images), expected, atol=0, rtol=0)


def test_weights_have_an_identity_that_is_not_their_files_name(own, tmp_path):
    network, path = own
    first = rows_of("custom", checkpoint=str(path))[0].identity
    copy = save_network(network, tmp_path / "copy.safetensors", "scratch", "Apache-2.0")
    assert rows_of("custom", checkpoint=str(copy))[0].identity == first
    with torch.no_grad():
        network.depth_head.scratch.output_conv2[2].bias += 1e-3
    save_network(network, copy, "scratch", "Apache-2.0")
    with torch.no_grad():
        network.depth_head.scratch.output_conv2[2].bias -= 1e-3
    second = rows_of("custom", checkpoint=str(copy))[0].identity  # the same file's name, trained on
    assert second != first
    assert DepthEstimator.create("custom", checkpoint=str(copy), device="cpu", backend="torch").name.endswith(f"/96/{second}")


@pytest.mark.parametrize(
    "licence, free",
    [
        ("apache-2.0", True),
        ("Apache-2.0", True),
        ("mit", True),
        ("your own", True),
        ("Some Licence", True),
        ("cc-by-nc-4.0", False),
        ("CC-BY-NC-SA-4.0", False),
        ("apple-amlr", False),
        ("fair-noncommercial-research-license", False),
        ("seer-license", False),
        ("unknown", False),
    ],
)
def test_licences_in_all_their_spellings(licence, free):
    assert noncommercial(licence) != free


def test_weights_under_another_name_are_asked_about_too(tmp_path):
    torch.save({}, tmp_path / "mine.pth")
    with pytest.raises(LicenceError, match="CC-BY-NC-4.0"):
        create_model("v2", "vitb", str(tmp_path / "mine.pth"))


def test_a_tuned_network_of_the_zoo_keeps_its_encoder_and_its_numbers(tmp_path):
    network = create_model("demo")
    with torch.no_grad():
        network.depth_head.scratch.output_conv2[2].bias += 0.25
    path = save_network(network, tmp_path / "tuned.safetensors", "demo/tiny", "Apache-2.0")
    again = create_model("custom", checkpoint=str(path))
    images = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(again(images), network(images), atol=0, rtol=0)
        assert float((again(images) - create_model("demo")(images)).abs().max()) > 0.1
    assert rows_of("custom", checkpoint=str(path))[2] == "tiny"


def changed(path, target, **changes):
    with safe_open(path, "pt") as file:
        said = json.loads(file.metadata()["depth_anything_ros"]) | changes
    save_file(load_file(path), target, {"depth_anything_ros": json.dumps(said)})
    return str(target)


def test_what_a_file_says_of_itself_is_not_believed_blindly(own, tmp_path):
    path = own[1]
    with pytest.raises(LicenceError, match="no commercial use"):
        create_model("custom", checkpoint=changed(path, tmp_path / "nc.safetensors", licence="CC-BY-NC-4.0"))
    with pytest.raises(CheckpointError, match="of format 7, this package reads 1"):
        create_model("custom", checkpoint=changed(path, tmp_path / "new.safetensors", format=7))
    with pytest.raises(CheckpointError, match="cannot be understood"):
        create_model("custom", checkpoint=changed(path, tmp_path / "odd.safetensors", model={"kind": "metric", "colour": 1}))
    with pytest.raises(CheckpointError, match="set model to custom"):
        create_model("v2", checkpoint=str(path))
    with pytest.raises(CheckpointError, match="does not say what network it is of"):
        torch.save({}, tmp_path / "file.pth")
        create_model("custom", checkpoint=str(tmp_path / "file.pth"))
    with pytest.raises(ModelError, match="needs a checkpoint"):
        create_model("custom")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        create_model("custom", checkpoint=str(tmp_path / "cut.safetensors"))


OF_MODEL = {"kind": "metric", "max_depth": 15.0, "input_size": 96, "align_corners": False}
OF_VIT = {"width": 32, "depth": 4, "heads": 4, "features": 8, "out_channels": [8] * 4, "patch": 16, "train_size": [96, 96]}
OF_TIMM = OF_VIT | {"depth": 0, "heads": 0, "timm": "vit_tiny_patch16_224"}
ODD = [
    *({"model": OF_MODEL | odd} for odd in ({"kind": "banana"}, {"kind": 7}, {"resize": "x"}, {"input_size": "96"})),
    *({"model": OF_MODEL | odd} for odd in ({"max_depth": 0.0}, {"max_depth": np.inf}, {"training_focal": "x"})),
    *({"model": OF_MODEL | odd} for odd in ({"mean": [1.0]}, {"std": [0, 0, 0]}, {"std": ["a"] * 3}, {"input_size": 97})),
    *({"encoder": OF_VIT | odd} for odd in ({"heads": 7}, {"heads": 0}, {"patch": 0}, {"width": "abc"}, {"width": -4})),
    *({"encoder": OF_VIT | odd} for odd in ({"width": 10**9}, {"depth": 100_000}, {"stem": 3}, {"out_channels": [8]})),
    *({"encoder": OF_VIT, "taps": odd} for odd in ([3, 99], [3], ["a", "b"], [0, 1, 2, 99], [0, 1, 1, 2], 3)),
    *({"encoder": OF_TIMM | odd} for odd in ({"timm": "vit_none"}, {"timm": 4}, {"patch": 8}, {"train_size": [90, 96]})),
    {"encoder": OF_TIMM, "taps": [2, 5, 8, 12]},
    *({"licence": None}, {"identity": 3}, {"identity": ""}, {"encoder name": []}, {"model": []}, {"taps": None}),
]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: "-".join(f"{k}" for k in odd))
def test_a_header_that_cannot_be_is_refused(own, tmp_path, capsys, odd):
    path = changed(own[1], tmp_path / "odd.safetensors", **({"taps": [0, 1, 2, 3]} | odd if "encoder" in odd else odd))
    with pytest.raises(CheckpointError, match="cannot be (understood|built)"):
        create_model("custom", checkpoint=path)
    assert main(["verify", "--file", path]) == 1 and "BAD" in capsys.readouterr().out


def test_a_header_of_a_vit_that_can_be_is_believed(own, tmp_path):
    """The control of the rows above: it fails at the tensors, which are another's."""
    with pytest.raises(CheckpointError, match="tensors are missing"):
        create_model("custom", checkpoint=changed(own[1], tmp_path / "a.safetensors", encoder=OF_VIT, taps=[0, 1, 2, 3]))


def test_a_network_is_written_whole_or_not_at_all(own, tmp_path):
    """A file that may not grow, as on a full disk: what was there stays, and nothing else is left."""
    path, (soft, hard) = tmp_path / "mine.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    path.write_bytes(b"before")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OSError, match="could not be written .*: is the disk full"):
            save_network(own[0], path, "scratch", "Apache-2.0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == [path.name]
    before = os.umask(0o027)
    try:
        save_network(own[0], path, "scratch", "Apache-2.0")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("kind, max_depth", [("metric", 0.0), ("relative", 10.0), ("canonical", 0.0), ("metric", np.inf)])
def test_a_new_network_needs_a_kind_that_fits(kind, max_depth):
    with pytest.raises(ModelError, match="expected relative, or metric with a max_depth"):
        new_network("vit_tiny_patch16_224", kind, max_depth)


def test_a_network_is_not_kept_without_a_licence(own, tmp_path):
    with pytest.raises(ModelError, match="kept with the licence"):
        save_network(own[0], tmp_path / "own.safetensors", "scratch", "")


def test_a_new_network_takes_whole_patches_and_the_taps_that_are_named():
    with pytest.raises(ModelError, match="input_size 100 is not a multiple of 16; the nearest are 96 and 112"):
        new_network("vit_tiny_patch16_224", input_size=100)
    with torch.device("meta"):
        assert new_network("crossvit_tiny_240", taps=(0, 1, 2, 2)).taps == [0, 1, 2, 2]


def test_a_new_relative_network_is_alive():
    torch.manual_seed(1)
    network = new_network("vit_tiny_patch16_224", features=16, out_channels=(8, 8, 8, 8), input_size=64)
    with torch.inference_mode():
        values = network(torch.randn(1, 3, 64, 64)).numpy()
    assert np.mean(values > 0) > 0.9
