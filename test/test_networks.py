# SPDX-License-Identifier: Apache-2.0
"""Our networks give the same numbers as an independent implementation (transformers) with the same random weights."""

from dataclasses import replace

import pytest
import torch
from published import ENCODERS as PUBLISHED
from published import V1_TAPS, V2_TAPS, random_state_dict, transformers_network, use_dinov2_rule

from depth_anything_ros.models import DepthNetwork, ModelError, create_model, lookup, token_grid
from depth_anything_ros.models import backbone as backbone_module
from depth_anything_ros.models.backbone import build_backbone
from depth_anything_ros.models.zoo import ENCODERS

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def vits(tmp_path_factory):
    """Random vits weights, and the file that holds them."""
    state = random_state_dict("vits")
    path = tmp_path_factory.mktemp("weights") / "file.pth"
    torch.save(state, path)
    return state, path


def images(height, width, batch=1):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(7))


@torch.inference_mode()
def difference(ours, theirs, x):
    """Largest difference in the output, and how far the reference's output itself ranges."""
    expected = theirs(x).predicted_depth
    assert ours(x).shape == expected.shape == x.shape[:1] + x.shape[2:]
    return float((ours(x) - expected).abs().max()), float(expected.max() - expected.min())


@pytest.mark.parametrize(
    "model, taps, max_depth", [("v1", V1_TAPS, 0.0), ("v2", V2_TAPS, 0.0), ("v2_metric_indoor", V2_TAPS, 20.0)]
)
def test_equals_transformers_as_it_is_on_squares(vits, model, taps, max_depth):
    state, path = vits
    ours = create_model(model, encoder="vits", checkpoint=path)
    theirs = transformers_network(state, "vits", taps["vits"], max_depth)
    error, span = difference(ours, theirs, images(518, 518))
    assert span > 0.5  # the comparison means something
    assert error < max(TOLERANCE, 1e-5 * max_depth)


@pytest.mark.parametrize("height, width", [(392, 518), (518, 686), (518, 924)])
def test_equals_transformers_with_dinov2_rule_off_the_square(vits, height, width):
    state, path = vits
    ours = create_model("v2", encoder="vits", checkpoint=path)
    theirs = transformers_network(state, "vits", V2_TAPS["vits"])
    use_dinov2_rule(theirs)
    error, span = difference(ours, theirs, images(height, width))
    assert span > 0.5
    assert error < TOLERANCE


def test_stock_timm_rule_would_fail_off_the_square(vits, monkeypatch):
    """The negative control: what a wrapper gets that lets timm resize the position embedding."""
    from timm.layers import resample_abs_pos_embed

    state, path = vits
    ours = create_model("v2", encoder="vits", checkpoint=path)
    theirs = transformers_network(state, "vits", V2_TAPS["vits"])
    use_dinov2_rule(theirs)
    monkeypatch.setattr(
        backbone_module, "resample_pos_embed", lambda embed, old, new: resample_abs_pos_embed(embed, list(new), list(old))
    )
    error, _ = difference(ours, theirs, images(392, 518))
    assert error > 100 * TOLERANCE


def test_v1_and_v2_differ_only_in_their_taps(vits):
    """The same file runs as either, with different numbers: why the model has to be an explicit choice."""
    state, path = vits
    v1 = create_model("v1", encoder="vits", checkpoint=path)
    error, _ = difference(v1, transformers_network(state, "vits", V2_TAPS["vits"]), images(518, 518))
    assert error > 100 * TOLERANCE


@torch.inference_mode()
def test_features_equal_transformers(vits):
    state, path = vits
    ours = create_model("v2", encoder="vits", checkpoint=path)
    theirs = transformers_network(state, "vits", V2_TAPS["vits"])
    use_dinov2_rule(theirs)
    x = images(392, 518, batch=2)
    levels = ours.features(x)
    expected = theirs.backbone(x).feature_maps
    assert len(levels) == len(expected) == 4
    for (patch, token), reference in zip(levels, expected):
        assert patch.shape == (2, 28 * 37, 384) and token.shape == (2, 384)
        torch.testing.assert_close(patch, reference[:, 1:], atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(token, reference[:, 0], atol=TOLERANCE, rtol=0)
    grid = token_grid(levels[0][0], (392, 518), 14)
    assert grid.shape == (2, 384, 28, 37)
    torch.testing.assert_close(grid[:, :, 3, 5], levels[0][0][:, 3 * 37 + 5])


@pytest.mark.parametrize("encoder, model, max_depth", [("vitb", "v2_metric_outdoor", 80.0), ("vitl", "v1", 0.0)])
def test_larger_encoders_equal_transformers(encoder, model, max_depth):
    state = random_state_dict(encoder)
    row, sizes = lookup(model, encoder)
    with torch.device("meta"):
        ours = DepthNetwork(row, sizes, row.taps[encoder]).eval()
    ours.load_state_dict({name: t for name, t in state.items() if "mask_token" not in name}, strict=True, assign=True)
    theirs = transformers_network(state, encoder, (V1_TAPS if model == "v1" else V2_TAPS)[encoder], max_depth)
    use_dinov2_rule(theirs)
    error, span = difference(ours, theirs, images(196, 280))
    assert span > 0.5
    assert error < max(TOLERANCE, 1e-5 * max_depth)


@torch.inference_mode()
def test_giant_blocks_equal_transformers():
    """vitg (SwiGLU) at full width, cut to two blocks so that it fits a small machine."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    ours = build_backbone(replace(ENCODERS["vitg"], depth=2)).eval()
    config = Dinov2Config(hidden_size=1536, num_hidden_layers=2, num_attention_heads=24, image_size=518, use_swiglu_ffn=True)
    theirs = Dinov2Model(config).eval()
    state = {}
    for name, tensor in theirs.state_dict().items():
        state[name] = torch.randn(tensor.shape) * (0.02 if tensor.ndim > 1 else 0.1)
    theirs.load_state_dict(state)
    x = images(518, 518)
    mapped = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": state["embeddings.position_embeddings"],
        "patch_embed.proj.weight": state["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": state["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": state["layernorm.weight"],
        "norm.bias": state["layernorm.bias"],
    }
    for i in range(2):
        layer, block = f"encoder.layer.{i}.", f"blocks.{i}."
        for kind in ("weight", "bias"):
            pick = lambda *names: next(state[n] for n in names if n in state)  # noqa: E731
            qkv = [
                pick(f"{layer}attention.{p[0]}_proj.{kind}", f"{layer}attention.attention.{p}.{kind}")
                for p in ("query", "key", "value")
            ]
            mapped[f"{block}attn.qkv.{kind}"] = torch.cat(qkv)
            mapped[f"{block}attn.proj.{kind}"] = pick(
                f"{layer}attention.o_proj.{kind}", f"{layer}attention.output.dense.{kind}"
            )
            if f"{layer}mlp.gate_proj.{kind}" in state:
                gate = torch.cat([state[f"{layer}mlp.gate_proj.{kind}"], state[f"{layer}mlp.up_proj.{kind}"]])
                mapped[f"{block}mlp.fc1.{kind}"], mapped[f"{block}mlp.fc2.{kind}"] = gate, state[f"{layer}mlp.down_proj.{kind}"]
            else:
                mapped[f"{block}mlp.fc1.{kind}"] = state[f"{layer}mlp.weights_in.{kind}"]
                mapped[f"{block}mlp.fc2.{kind}"] = state[f"{layer}mlp.weights_out.{kind}"]
            for norm in ("norm1", "norm2"):
                mapped[f"{block}{norm}.{kind}"] = state[f"{layer}{norm}.{kind}"]
        for scale in ("1", "2"):
            mapped[f"{block}ls{scale}.gamma"] = state[f"{layer}layer_scale{scale}.lambda1"]
    ours.load_state_dict(mapped)
    torch.testing.assert_close(ours.forward_features(x), theirs(x).last_hidden_state, atol=TOLERANCE, rtol=0)


def test_parameter_counts_are_the_published_ones():
    for encoder, count in {"vits": 24_785_089, "vitb": 97_470_785, "vitl": 335_315_649, "vitg": 1_258_132_225}.items():
        model, row = lookup("v2", encoder)
        with torch.device("meta"):
            network = DepthNetwork(model, row, model.taps[encoder])
        ours = sum(p.numel() for p in network.parameters())
        assert ours + row.width == count  # the published files also hold a mask token that nothing uses


def test_sides_that_are_no_multiple_of_the_patch_are_refused(vits):
    network = create_model("v2", encoder="vits", checkpoint=vits[1])
    with pytest.raises(ModelError, match="multiples of 14, got 520x518"):
        network(images(518, 520))


def test_published_table_and_ours_agree():
    for encoder, (width, depth, heads, features, out) in PUBLISHED.items():
        row = ENCODERS[encoder]
        assert (row.width, row.depth, row.heads, row.features, row.out_channels) == (width, depth, heads, features, out)
