# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files: every published layout loads strictly, everything else is a clear error and runs no code."""

import os
import pickle

import pytest
import torch
from published import random_state_dict, to_transformers
from safetensors.torch import save_file

from depth_anything_ros.models import CheckpointError, LicenceError, ModelError, check_licence, create_model, locate
from depth_anything_ros.models.zoo import check_file_name


@pytest.fixture(scope="module")
def state():
    return random_state_dict("vits")


@pytest.fixture(scope="module")
def reference(state, tmp_path_factory):
    """What the network computes from the plain .pth file."""
    path = tmp_path_factory.mktemp("reference") / "file.pth"
    torch.save(state, path)
    return run(create_model("v2", encoder="vits", checkpoint=path))


@torch.inference_mode()
def run(network):
    return network(torch.linspace(-1, 1, 3 * 56 * 70).reshape(1, 3, 56, 70))


def refuses(path, message, **options):
    with pytest.raises(CheckpointError, match=message):
        create_model("v2", encoder="vits", checkpoint=path, **options)


def write_safetensors(state, path):
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


@pytest.mark.parametrize("layout", ["safetensors", "hf-old", "hf-new", "wrapped", "half"])
def test_every_layout_of_the_same_weights_gives_the_same_output(tmp_path, state, reference, layout):
    if layout == "safetensors":
        write_safetensors(state, path := tmp_path / "file.safetensors")
    elif layout == "hf-old":
        write_safetensors(to_transformers(state), path := tmp_path / "file.safetensors")
    elif layout == "hf-new":
        renamed = to_transformers(state)
        for word in ("query", "key", "value"):
            renamed = {n.replace(f"attention.attention.{word}", f"attention.{word[0]}_proj"): t for n, t in renamed.items()}
        renamed = {n.replace("attention.output.dense", "attention.o_proj"): t for n, t in renamed.items()}
        write_safetensors(renamed, path := tmp_path / "file.safetensors")
    elif layout == "wrapped":  # as the metric training script of Depth Anything V2 saves it
        torch.save({"model": {f"module.{n}": t for n, t in state.items()}, "epoch": 3}, path := tmp_path / "latest.pth")
    else:
        torch.save({name: tensor.half() for name, tensor in state.items()}, path := tmp_path / "file.pth")
    tolerance = 2e-2 if layout == "half" else 0.0
    torch.testing.assert_close(run(create_model("v2", encoder="vits", checkpoint=path)), reference, atol=tolerance, rtol=0)


def test_a_swapped_pair_of_tensors_would_be_noticed(tmp_path, state, reference):
    """The negative control of the test above: it does compare something."""
    swapped = dict(state)
    a, b = "pretrained.blocks.3.norm1.weight", "pretrained.blocks.3.norm2.weight"
    swapped[a], swapped[b] = state[b], state[a]
    torch.save(swapped, tmp_path / "file.pth")
    changed = run(create_model("v2", encoder="vits", checkpoint=tmp_path / "file.pth"))
    assert float((changed - reference).abs().max()) > 1e-3


def test_missing_surplus_and_misshapen_tensors(tmp_path, state):
    path = tmp_path / "file.pth"
    torch.save({n: t for n, t in state.items() if n != "pretrained.norm.weight"}, path)
    refuses(path, "1 tensors are missing, such as pretrained.norm.weight")
    torch.save(state | {"extra.weight": torch.zeros(1)}, path)
    refuses(path, "1 tensors are unknown, such as extra.weight")
    torch.save(state | {"depth_head.projects.0.bias": torch.zeros(7)}, path)
    refuses(path, "1 tensors are of another shape, such as depth_head.projects.0.bias")


def test_another_encoder_is_named(tmp_path, state):
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="holds the weights of encoder 'vits', but 'vitb' was asked for"):
        create_model("v2", encoder="vitb", checkpoint=tmp_path / "file.pth", allow_noncommercial=True)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.0001, 0.3, 0.999])
def test_truncated_files(tmp_path, state, suffix, share):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    torch.save(state, whole) if suffix == "pth" else write_safetensors(state, whole)
    content = whole.read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])
    refuses(cut, "damaged or incomplete|not a PyTorch")


class Bomb:
    """A pickle that would create a file if it were executed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not_run(tmp_path, state):
    trap = tmp_path / "trap"
    path = tmp_path / "file.pth"
    torch.save(dict(state) | {"bomb": Bomb(trap)}, path)
    refuses(path, "could run code")
    path.write_bytes(pickle.dumps(Bomb(trap)))
    refuses(path, "could run code")
    assert not trap.exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99173660\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html>Not found</html>", "web page"),
        (b"hello, this is no checkpoint at all", "not a PyTorch or safetensors file"),
    ],
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_what_downloads_leave_behind(tmp_path, suffix, content, message):
    path = tmp_path / f"file.{suffix}"
    path.write_bytes(content)
    refuses(path, message if suffix == "pth" else message.replace("not a PyTorch or safetensors file", "damaged or incomplete"))


def test_plain_data_that_is_no_state_dict(tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "file.pth")
    refuses(tmp_path / "file.pth", "not a plain dict of tensors")


def test_no_such_file(tmp_path):
    refuses(tmp_path / "nowhere.pth", "does not exist")


@pytest.mark.parametrize(
    "name, model, encoder",
    [
        ("depth_anything_v2_vits.pth", "v2", "vits"),
        ("depth_anything_vits14.pth", "v1", "vits"),
        ("depth_anything_v2_metric_hypersim_vits.pth", "v2_metric_indoor", "vits"),
        ("depth_anything_v2_metric_vkitti_vitl.pth", "v2_metric_outdoor", "vitl"),
        ("Depth-Anything-V2-Metric-Indoor-Small-hf/model.safetensors", "v2_metric_indoor", "vits"),
        ("hub/models--depth-anything--Depth-Anything-V2-Base-hf/snapshots/abc/model.safetensors", "v2", "vitb"),
        ("models--LiheYoung--depth-anything-small-hf/snapshots/abc/model.safetensors", "v1", "vits"),
    ],
)
def test_a_known_name_that_contradicts_the_choice_is_an_error(name, model, encoder):
    check_file_name(name, model, encoder)
    for other in ("v1", "v2", "v2_metric_indoor", "v2_metric_outdoor"):
        if other != model:
            with pytest.raises(CheckpointError, match=f"checkpoint of model '{model}', encoder '{encoder}'"):
                check_file_name(name, other, encoder)


def test_names_of_ones_own_say_nothing():
    check_file_name("my_finetuned_weights.pth", "v2", "vits")
    check_file_name("/home/me/Depth-Anything-V2-Small/runs/metric/best.pth", "v2_metric_indoor", "vits")


def test_a_misnamed_file_is_refused_before_it_is_read(tmp_path, state):
    path = tmp_path / "depth_anything_v2_metric_vkitti_vits.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="'v2_metric_outdoor'"):
        create_model("v2_metric_indoor", encoder="vits", checkpoint=path)


def test_licences_follow_the_published_cards():
    assert check_licence("v2", "vits", False) == "Apache-2.0"
    assert check_licence("v1", "vitl", False) == "Apache-2.0"
    for model in ("v2", "v2_metric_indoor", "v2_metric_outdoor"):
        for encoder in ("vitb", "vitl"):
            with pytest.raises(LicenceError, match="CC-BY-NC-4.0: no commercial use.*take encoder 'vits'"):
                check_licence(model, encoder, False)
            assert check_licence(model, encoder, True) == "CC-BY-NC-4.0"
    with pytest.raises(LicenceError):
        create_model("v2", encoder="vitb")


@pytest.mark.parametrize("name", ["depth_anything_v2_vitb.pth", "mine.pth"])
def test_a_licence_has_to_be_accepted_whatever_the_file_is_called(tmp_path, name):
    """What was tuned from weights is under their licence, too."""
    torch.save({}, tmp_path / name)
    with pytest.raises(LicenceError):
        create_model("v2", encoder="vitb", checkpoint=tmp_path / name)
    with pytest.raises(CheckpointError, match="not a plain dict"):  # read, that is, and found empty
        create_model("v2", encoder="vitb", checkpoint=tmp_path / name, allow_noncommercial=True)


def test_without_a_network_the_error_says_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    url = "https://huggingface.co/depth-anything/Depth-Anything-V2-Metric-Hypersim-Small/resolve/main/"
    with pytest.raises(CheckpointError) as caught:
        create_model("v2_metric_indoor", encoder="vits")
    assert "depth_anything_v2_metric_hypersim_vits.pth" in str(caught.value)
    assert url in str(caught.value) and "set checkpoint" in str(caught.value)
    assert locate("v2_metric_indoor", "vits", download=False) is None


def test_a_file_in_the_hubs_cache_needs_no_network(tmp_path, monkeypatch, state, reference):
    """The layout of the hub's cache, as huggingface_hub writes it."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--depth-anything--Depth-Anything-V2-Small"
    commit = "0123456789012345678901234567890123456789"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit).mkdir(parents=True)
    torch.save(state, repo / "snapshots" / commit / "depth_anything_v2_vits.pth")
    torch.testing.assert_close(run(create_model("v2", encoder="vits")), reference, atol=0, rtol=0)


def test_names_that_do_not_exist():
    with pytest.raises(ModelError, match="unknown model 'v3', expected one of: v1, v2"):
        create_model("v3")
    with pytest.raises(ModelError, match="no encoder 'vitg', expected one of: vits, vitb, vitl"):
        create_model("v1", encoder="vitg")
    with pytest.raises(ModelError, match="no weights of model 'v2', encoder 'vitg' are published"):
        create_model("v2", encoder="vitg", allow_noncommercial=True)
