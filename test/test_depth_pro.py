# SPDX-License-Identifier: Apache-2.0
"""Depth Pro gives the same numbers as an independent implementation (transformers) with the same random weights."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from depth_anything_ros.models import ModelError, depth_pro_parts
from depth_anything_ros.models.checkpoint import read_tensors
from depth_anything_ros.models.depth_pro import DepthPro
from depth_anything_ros.models.depth_pro_names import from_transformers, is_transformers
from depth_anything_ros.models.depth_pro_parts import free_memory, merge_tiles, split_tiles, tile_batch_for
from depth_anything_ros.models.zoo import Encoder, Model

TOLERANCE = 1e-5
TRAINED, TOKENS = 1536, 577  # side of the published network's input, and tokens of one of its tiles of 384 pixels
TAPS = (5, 11)
PUBLISHED = {"width": 1024, "depth": 24, "heads": 16, "features": 256, "out_channels": (256, 512, 1024, 1024)}
TINY = {"width": 32, "depth": 13, "heads": 2, "features": 16, "out_channels": (16, 24, 32, 40)}


def shapes(width, depth, heads, features, out_channels):
    """Every name and shape in the published `depth_pro.pt`, written down from apple/ml-depth-pro, `src/depth_pro/network`."""
    c, f, out = width, features, out_channels
    conv = lambda name, after, before, size: {f"{name}.weight": (after, before, size, size), f"{name}.bias": (after,)}  # noqa: E731
    table = {}
    for vit in ("encoder.patch_encoder.", "encoder.image_encoder.", "fov.encoder.0."):
        table |= {f"{vit}cls_token": (1, 1, c), f"{vit}pos_embed": (1, TOKENS, c), **conv(f"{vit}patch_embed.proj", c, 3, 16)}
        for norm in ("norm", *(f"blocks.{i}.norm{n}" for i in range(depth) for n in (1, 2))):
            table |= {f"{vit}{norm}.weight": (c,), f"{vit}{norm}.bias": (c,)}
        for b in (f"{vit}blocks.{i}." for i in range(depth)):
            for name, n, m in (("attn.qkv", 3 * c, c), ("attn.proj", c, c), ("mlp.fc1", 4 * c, c), ("mlp.fc2", c, 4 * c)):
                table |= {f"{b}{name}.weight": (n, m), f"{b}{name}.bias": (n,)}
            table |= {f"{b}ls1.gamma": (c,), f"{b}ls2.gamma": (c,)}
    ups = {"upsample_latent0": (out[0], f, 3), "upsample_latent1": (out[0], out[0], 2)}
    ups |= {f"upsample{i}": (out[i + 1], out[i + 1], 1) for i in range(3)}
    for name, (between, after, times) in ups.items():
        table[f"encoder.{name}.0.weight"] = (between, c, 1, 1)
        table |= {f"encoder.{name}.{i}.weight": (between if i == 1 else after, after, 2, 2) for i in range(1, times + 1)}
    table |= {"encoder.upsample_lowres.weight": (c, out[3], 2, 2), "encoder.upsample_lowres.bias": (out[3],)}
    table |= conv("encoder.fuse_lowres", out[3], 2 * out[3], 1)
    for level, channels in enumerate(out, start=1):
        table[f"decoder.convs.{level}.weight"] = (f, channels, 3, 3)
        table[f"decoder.fusions.{level}.deconv.weight"] = (f, f, 2, 2)
    for fusion in (f"decoder.fusions.{level}." for level in range(5)):
        table |= conv(f"{fusion}out_conv", f, f, 1)
        for unit in ("resnet1", "resnet2"):
            table |= conv(f"{fusion}{unit}.residual.1", f, f, 3) | conv(f"{fusion}{unit}.residual.3", f, f, 3)
    table |= conv("head.0", f // 2, f, 3) | conv("head.1", f // 2, f // 2, 2)
    table |= conv("head.2", 32, f // 2, 3) | conv("head.4", 1, 32, 1)
    table |= {"fov.encoder.1.weight": (f // 2, c), "fov.encoder.1.bias": (f // 2,)}
    table |= conv("fov.downsample.0", f // 2, f, 3) | conv("fov.head.0", f // 4, f // 2, 3)
    return table | conv("fov.head.2", f // 8, f // 4, 3) | conv("fov.head.4", 1, f // 8, 6)


def random_state(sizes=TINY):
    """A tiny checkpoint in the published layout; its inverse depth is rarely cut off at 0, its angles are some 50 degrees."""
    generator = np.random.default_rng(0)
    state = {}
    for name, shape in shapes(**sizes).items():
        values = generator.standard_normal(shape, np.float32)
        if name.endswith("gamma"):
            values = 0.3 + 0.1 * values
        elif "norm" in name and name.endswith("weight"):
            values = 1 + 0.1 * values
        elif name.endswith("weight"):
            transposed = "upsample" in name and shape[-1] == 2 or "deconv" in name or name == "head.1.weight"
            values *= 1.2 / np.sqrt(shape[0] if transposed else np.prod(shape[1:]))
        elif name.endswith(("pos_embed", "token")):
            values *= 0.5
        else:
            values *= 0.1
        state[name] = torch.from_numpy(values)
    state["head.4.weight"] *= 0.03  # to a spread of about 1 / m
    state["head.4.bias"] += 2.0
    state["fov.head.4.bias"] += 50.0
    return state


def to_transformers(state, new_names):
    """The same weights as transformers 5 names them in memory, or as it reads them from the hub's file."""
    words = ("q_proj", "k_proj", "v_proj") if new_names else ("attention.query", "attention.key", "attention.value")
    swaps = {
        "encoder.patch_encoder.": "depth_pro.encoder.patch_encoder.model.",
        "encoder.image_encoder.": "depth_pro.encoder.image_encoder.model.",
        "fov.encoder.0.": "fov_model.fov_encoder.model.",
        "fov.encoder.1.": "fov_model.fov_encoder.neck.",
        "fov.downsample.0.": "fov_model.conv.",
        "fov.head.": "fov_model.head.layers.",
        "encoder.upsample_latent0.": "depth_pro.neck.feature_upsample.intermediate.1.layers.",
        "encoder.upsample_latent1.": "depth_pro.neck.feature_upsample.intermediate.0.layers.",
        "encoder.upsample0.": "depth_pro.neck.feature_upsample.scaled_images.2.layers.",
        "encoder.upsample1.": "depth_pro.neck.feature_upsample.scaled_images.1.layers.",
        "encoder.upsample2.": "depth_pro.neck.feature_upsample.scaled_images.0.layers.",
        "encoder.upsample_lowres.": "depth_pro.neck.feature_upsample.image_block.layers.0.",
        "encoder.fuse_lowres.": "depth_pro.neck.fuse_image_with_low_res.",
        "decoder.fusions.0.": "fusion_stage.final.",
        "head.": "head.layers.",
    }
    for level in (1, 2, 3, 4):
        swaps[f"decoder.convs.{level}."] = f"depth_pro.neck.feature_projection.projections.{4 - level}."
        swaps[f"decoder.fusions.{level}."] = f"fusion_stage.intermediate.{4 - level}."
    inner = {
        "blocks.": "encoder.layer.",
        "attn.proj.": "attention.o_proj." if new_names else "attention.output.dense.",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
        "resnet1.": "residual_layer1.",
        "resnet2.": "residual_layer2.",
        "residual.1.": "convolution1.",
        "residual.3.": "convolution2.",
        "out_conv.": "projection.",
    }
    renamed = {}
    for name, tensor in state.items():
        start = next(start for start in swaps if name.startswith(start))
        rest = name.removeprefix(start)
        rest = rest.replace("norm.", "layernorm.") if rest.startswith("norm.") else rest
        for ours, theirs in inner.items():
            rest = rest.replace(ours, theirs)
        parts = tensor.chunk(3) if "attn.qkv." in rest else [tensor]
        for word, part in zip(words, parts):
            renamed[swaps[start] + rest.replace("attn.qkv.", f"attention.{word}.")] = part.clone()
    for vit in ("depth_pro.encoder.patch_encoder", "depth_pro.encoder.image_encoder", "fov_model.fov_encoder"):
        renamed[f"{vit}.model.embeddings.mask_token"] = torch.zeros(1, TINY["width"])
    return renamed


def transformers_network(state, tile=384):
    """The independent implementation; for tiles of another size with position embeddings resampled as timm does."""
    from transformers import DepthProConfig, DepthProForDepthEstimation

    out = TINY["out_channels"]
    vit = {"model_type": "dinov2", "image_size": tile, "patch_size": 16, "hidden_size": TINY["width"]}
    vit |= {"num_hidden_layers": TINY["depth"], "num_attention_heads": TINY["heads"]}
    config = DepthProConfig(
        patch_size=tile,
        fusion_hidden_size=TINY["features"],
        intermediate_hook_ids=[11, 5],
        intermediate_feature_dims=[out[0], out[0]],
        scaled_images_feature_dims=[out[3], out[2], out[1]],
        merge_padding_value=3 * tile // 384,
        use_fov_model=tile == 384,  # the kernel of its last convolution is as large as the grid
        **{f"{part}_model_config": dict(vit) for part in ("image", "patch", "fov")},
    )
    renamed = to_transformers(state, new_names=True)
    if tile != 384:
        renamed = {name: tensor for name, tensor in renamed.items() if not name.startswith("fov_model.")}
        for name in (name for name in renamed if name.endswith("position_embeddings")):
            token, grid = renamed[name][:, :1], renamed[name][:, 1:].reshape(1, 24, 24, -1).permute(0, 3, 1, 2)
            grid = F.interpolate(grid, size=(tile // 16, tile // 16), mode="bicubic", antialias=True)
            renamed[name] = torch.cat([token, grid.flatten(2).transpose(1, 2)], dim=1)
    with torch.device("meta"):  # the weights replace everything
        network = DepthProForDepthEstimation(config)
    network.load_state_dict(renamed, strict=True, assign=True)
    return network.eval()


def depth_pro(state, taps=TAPS, sizes=TINY):
    row = Model(kind="canonical", taps={"vitl": taps}, weights={})
    with torch.device("meta"):
        network = DepthPro(row, Encoder(**sizes, patch=16, train_size=(384, 384)), taps)
    if state:
        network.load_state_dict(state, strict=True, assign=True)
    return network.requires_grad_(False).eval()


def images(side, batch=1):
    """Smooth and noisy at once, each image of a batch another one."""
    noise = torch.from_numpy(np.random.default_rng(7).standard_normal((batch, 3, side, side), np.float32))
    coarse = F.interpolate(noise[..., : side // 64, : side // 64], size=(side, side), mode="bicubic")
    return (0.3 * noise + coarse).clamp(-1, 1)


def alive(values):
    """Whether a comparison of these maps means something: mostly above 0, and far from constant."""
    return float((values > 0).float().mean()) > 0.9 and float(values.std()) > 0.1


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def network(state):
    return depth_pro(state)


@pytest.fixture(scope="module")
def theirs(state):
    return transformers_network(state)


@pytest.fixture(scope="module")
def small(state, network, theirs):
    """Both implementations on two images of the smallest size."""
    x = images(512, batch=2)
    with torch.inference_mode():
        (depth, angle), (values, fov) = reference(state, theirs, x), said(network, x)
    return SimpleNamespace(x=x, depth=depth, angle=angle, values=values, fov=fov)


def said(network, x):
    """Inverse depth and field of view, as the node gets them when a camera has no calibration."""
    found = network.examine(x)
    return found.values, found.fov


def reference(state, theirs, x):
    """transformers' parts put together for smaller tiles: inverse depth (B, S, S) and angle (B,)."""
    network, part = transformers_network(state, tile=x.shape[-1] // 4), theirs.fov_model
    features = network.depth_pro(x).features
    depth = network.head(network.fusion_stage(features)[-1])
    # The angle comes from a ViT at the size of training, and from the decoder's map brought to that ViT's grid.
    tokens = part.fov_encoder.model(F.interpolate(x, size=(384, 384), mode="bilinear")).last_hidden_state[:, 1:]
    grid = part.fov_encoder.neck(tokens).transpose(1, 2).reshape(len(x), -1, 24, 24)
    context = F.interpolate(part.activation(part.conv(features[0])), size=(24, 24), mode="bilinear")
    return depth, part.head(grid + context).flatten()


@torch.inference_mode()
def test_equals_transformers_at_the_size_of_training(network, theirs):
    x = images(TRAINED)
    expected, (values, fov) = theirs(x), said(network, x)
    assert alive(expected.predicted_depth)
    assert values.shape == (1, TRAINED, TRAINED) and values.dtype == fov.dtype == torch.float32
    torch.testing.assert_close(values, expected.predicted_depth, atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(fov, expected.field_of_view, atol=TOLERANCE, rtol=TOLERANCE)


@torch.inference_mode()
def test_equals_transformers_with_smaller_tiles(state, network, theirs):
    x = images(1024)
    depth, angle = reference(state, theirs, x)
    fixed = network.at_size(1024, 1024)
    values, fov = said(fixed, x)
    assert alive(depth)
    torch.testing.assert_close(values, depth, atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(fov, angle, atol=TOLERANCE, rtol=TOLERANCE)
    assert fixed.head[0].weight.data_ptr() == network.head[0].weight.data_ptr()


@torch.inference_mode()
def test_a_batch_equals_transformers(network, small):
    assert alive(small.depth)
    assert float((small.depth[0] - small.depth[1]).abs().max()) > 0.1 and float(small.angle.diff().abs()) > 0.1
    torch.testing.assert_close(small.values, small.depth, atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(small.fov, small.angle, atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(network(small.x), small.values, atol=0, rtol=0)


@torch.inference_mode()
def test_another_block_would_fail(state, small):
    """The negative control: the block after the one that is to be tapped."""
    values = depth_pro(state, taps=(6, 11))(small.x)
    assert float((values - small.depth).abs().max()) > 1e-2


@torch.inference_mode()
def test_features_equal_transformers(network, theirs):
    x = images(TRAINED, batch=2)
    ((patch, token),) = network.features(x)
    small = F.interpolate(x, size=(384, 384), mode="bilinear")
    expected = theirs.depth_pro.encoder.image_encoder.model(small).last_hidden_state
    assert patch.shape == (2, 24 * 24, 32) and token.shape == (2, 32)
    torch.testing.assert_close(patch, expected[:, 1:], atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(token, expected[:, 0], atol=TOLERANCE, rtol=TOLERANCE)


@torch.inference_mode()
def test_examine_says_all_of_it_at_once(network, small):
    said = network.examine(small.x)
    ((patch, token),) = network.features(small.x)
    for ours, other in ((said.values, small.depth), (said.fov, small.angle), (said.class_token, token)):
        torch.testing.assert_close(ours, other, atol=TOLERANCE, rtol=TOLERANCE)
    assert said.features.shape == (2, 8, 8, 32)
    torch.testing.assert_close(said.features[:, 3, 5], patch[:, 3 * 8 + 5], atol=0, rtol=0)


def test_a_file_in_the_published_layout_loads_strictly(state, tmp_path):
    torch.save({name: tensor.half() for name, tensor in state.items()}, tmp_path / "depth_pro.pth")
    loaded = depth_pro({name: tensor.float() for name, tensor in read_tensors(tmp_path / "depth_pro.pth").items()})
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, state[name], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("new_names", [False, True])
def test_the_transformers_copy_becomes_the_published_layout(state, new_names):
    copy = to_transformers(state, new_names)
    assert is_transformers(copy) and not is_transformers(state)
    ours = from_transformers(copy)
    assert ours.keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.items())


def test_what_the_transformers_copy_lacks_is_lacking_afterwards(state):
    copy = to_transformers(state, new_names=False)
    key = "depth_pro.encoder.patch_encoder.model.encoder.layer.3.attention.attention.key.bias"
    del copy[key]
    ours = from_transformers(copy | {"fov_model.what": torch.zeros(1)})
    assert state.keys() - ours.keys() == {"encoder.patch_encoder.blocks.3.attn.qkv.bias"}
    assert ours.keys() - state.keys() == {"fov_model.what"}


def test_full_size_has_the_published_names_and_shapes():
    ours = depth_pro(None, sizes=PUBLISHED)
    assert {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()} == shapes(**PUBLISHED)
    assert len(ours.state_dict()) == 1119
    assert sum(p.numel() for p in ours.parameters()) == 951_991_330
    assert (ours.kind, ours.patch, ours.model.kind) == ("canonical", 512, "canonical")


@torch.inference_mode()
@pytest.mark.parametrize("tile_batch", [1, 69])
def test_values_do_not_depend_on_how_many_tiles_go_at_once(network, small, tile_batch):
    chunked = network.at_size(512, 512)
    chunked.tile_batch = tile_batch
    torch.testing.assert_close(chunked(small.x), small.values, atol=TOLERANCE, rtol=TOLERANCE)


def test_tiles_overlap_and_come_together_again():
    """An image of pixel numbers, cut as the finest level and put together again, is the image."""
    image = torch.arange(2 * 32 * 32.0).reshape(2, 1, 32, 32)
    tiles = split_tiles(image, tile=8, stride=6)
    assert tiles.shape == (25 * 2, 1, 8, 8)
    assert tiles[2 * 7, 0, 0, 0] == 6 * 32 + 2 * 6  # row by row, two images of each: tile 7 is in row 1, column 2
    torch.testing.assert_close(merge_tiles(tiles, count=5, trim=1), image)
    half = image[..., :16, :16]
    torch.testing.assert_close(merge_tiles(split_tiles(half, tile=8, stride=4), count=3, trim=2), half)


def test_tiles_at_once_follow_free_memory(network, monkeypatch):
    # One tile of ViT-L in half precision: 12 maps of 577 x 1024 numbers of 2 bytes = 14,180,352 bytes.
    assert tile_batch_for(2**30, tokens=577, width=1024, element_size=2) == 37  # 536,870,912 / 14,180,352 = 37.9
    assert tile_batch_for(2**30, tokens=577, width=1024, element_size=4) == 18
    assert tile_batch_for(100_000_000, tokens=577, width=1024, element_size=2) == 3
    assert tile_batch_for(100_000_000, tokens=577, width=1024, element_size=2, share=1.0) == 7
    assert tile_batch_for(0, tokens=577, width=1024, element_size=2) == 1
    # 65 tokens of a tile of 128 pixels, 32 wide, 4 bytes: 99,840 bytes.
    monkeypatch.setattr("torch.are_deterministic_algorithms_enabled", lambda: False)
    monkeypatch.setattr("depth_anything_ros.models.depth_pro.free_memory", lambda device: 4 * 99_840)
    assert network.at_size(512, 512).tile_batch == 2
    monkeypatch.setattr("depth_anything_ros.models.depth_pro.free_memory", lambda device: None)
    assert network.at_size(512, 512).tile_batch == 0
    monkeypatch.setattr("torch.are_deterministic_algorithms_enabled", lambda: True)
    first = network.at_size(512, 512).tile_batch
    monkeypatch.setattr("depth_anything_ros.models.depth_pro.free_memory", lambda device: 2**40)
    assert network.at_size(512, 512).tile_batch == first  # the same bytes, whatever is free


def test_free_memory_is_what_the_kernel_says(monkeypatch, tmp_path):
    table = tmp_path / "meminfo"
    table.write_text("MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    3000000 kB\n")
    monkeypatch.setattr(depth_pro_parts, "Path", lambda _: table)
    assert free_memory(torch.device("cpu")) == 3_000_000 * 1024
    assert free_memory(torch.device("meta")) is None
    table.unlink()
    assert free_memory(torch.device("cpu")) is None


@torch.inference_mode()
def test_lowered_keeps_its_last_convolutions(network, small):
    low = network.lowered(torch.bfloat16)
    exact = {name for name, p in low.named_parameters() if p.dtype == torch.float32}
    assert exact == {f"{part}.{kind}" for part in ("head.2", "head.4", "fov.head.4") for kind in ("weight", "bias")}
    assert all(p.dtype == torch.float32 for p in network.parameters())
    values, fov = said(low, small.x)
    assert values.dtype == fov.dtype == torch.float32
    assert 0 < float((values - small.values).abs().mean()) < 0.05 * float(small.values.std())  # bfloat16 has 8 bits
    torch.testing.assert_close(fov, small.fov, atol=0.5, rtol=0)
    torch.testing.assert_close(low.at_size(512, 512)(small.x), values, atol=TOLERANCE, rtol=TOLERANCE)


def test_exported_equals_eager():
    sizes = TINY | {"depth": 3}  # tracing takes its time
    fixed, x = depth_pro(random_state(sizes), taps=(0, 1), sizes=sizes).at_size(512, 512), images(512)
    fixed.tile_batch = 18
    program = torch.export.export(fixed, (torch.zeros_like(x),), strict=False)
    assert not any("bicubic" in str(node.target) for node in program.graph.nodes)  # which ONNX does not have as it is
    expected = fixed(x)
    assert alive(expected)
    torch.testing.assert_close(program.module()(x), expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("height, width", [(1536, 1024), (518, 518), (384, 384)])
def test_other_sizes_are_refused(network, height, width):
    with pytest.raises(ModelError, match=f"squares whose side is a multiple of 512, got {width}x{height}"):
        network(torch.zeros(1, 3, height, width))
    with pytest.raises(ModelError, match="multiple of 512"):
        network.at_size(height, width)
