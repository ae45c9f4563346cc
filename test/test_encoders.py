# SPDX-License-Identifier: Apache-2.0
"""Networks of timm as encoders: shapes from the papers' strides, values from timm's own network built for the same size."""

import functools
import sys
from dataclasses import dataclass

import pytest
import timm
import torch
import torch.nn.functional as F

from depth_anything_ros.models import ModelError
from depth_anything_ros.models.timm_encoder import TimmEncoder

PYRAMID = (4, 8, 16, 32)


@dataclass(frozen=True)
class Row:
    """What is published of a network: pixels per cell and channels of four levels."""

    family: str
    name: str
    size: tuple[int, int]
    strides: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    class_token: bool = False
    any_size: bool = False
    taps: tuple[int, ...] = ()


ROWS = [
    Row("vision_transformer", "vit_tiny_patch16_224", (64, 96), (16,) * 4, (192,) * 4, True, True),
    Row("deit", "deit_tiny_distilled_patch16_224", (64, 96), (16,) * 4, (192,) * 4, True, True),
    Row("beit", "beit_base_patch16_224", (64, 96), (16,) * 4, (768,) * 4, True),
    Row("eva", "eva02_tiny_patch14_224", (56, 84), (14,) * 4, (192,) * 4, True, True),
    Row("vision_transformer_sam", "samvit_base_patch16_224", (64, 96), (16,) * 4, (768,) * 4, False, True),
    Row("vision_transformer_relpos", "test_vit_relpos", (64, 96), (16,) * 4, (96,) * 4),
    Row("vision_transformer_hybrid", "vit_tiny_r_s16_p8_224", (64, 96), (32,) * 4, (192,) * 4, True, True),
    Row("vitamin", "vitamin_small_224", (64, 96), (16,) * 4, (384,) * 4, False, True),
    Row("naflexvit", "naflexvit_base_patch16_gap", (64, 96), (16,) * 4, (768,) * 4, False, True),
    Row("cait", "cait_xxs24_224", (64, 96), (16,) * 4, (192,) * 4),
    Row("xcit", "xcit_nano_12_p16_224", (64, 96), (16,) * 4, (128,) * 4, False, True),
    Row("tnt", "tnt_s_patch16_224", (64, 96), (16,) * 4, (384,) * 4, True),
    Row("crossvit", "crossvit_tiny_240", (120, 240), (12,) * 4, (96,) * 4, taps=(0, 1, 2, 2)),
    Row("convmixer", "convmixer_768_32", (28, 42), (7,) * 4, (768,) * 4, False, True),
    Row("volo", "volo_d1_224", (64, 96), (8, 16, 16, 16), (192, 384, 384, 384)),
    Row("mvitv2", "mvitv2_tiny", (128, 192), PYRAMID, (96, 192, 384, 768)),
    Row("twins", "twins_svt_small", (64, 96), PYRAMID, (64, 128, 256, 512), False, True),
    Row("hiera", "hiera_tiny_224", (64, 96), PYRAMID, (96, 192, 384, 768)),
    Row("hieradet_sam2", "sam2_hiera_tiny", (64, 96), PYRAMID, (96, 192, 384, 768), False, True),
    Row("coat", "coat_lite_tiny", (64, 96), PYRAMID, (64, 128, 256, 320)),
]
BY_FAMILY = {row.family: row for row in ROWS}
LOCAL = {"convmixer": 2}  # levels after which dozens of random convolutions have spread a change over the image
IDLE = {"crossvit"}  # only class tokens go between its branches, and only those of earlier blocks reach the fine patches


@functools.cache
def encoder(family: str) -> TimmEncoder:
    """At the row's size, with position embeddings and biases large enough to be seen where they are wrong."""
    row = BY_FAMILY[family]
    torch.manual_seed(0)
    with torch.inference_mode(False), torch.no_grad():  # whichever test comes first, others train it
        network = TimmEncoder(row.name, row.size, row.taps).eval()
        for name, parameter in network.named_parameters():
            if "pos" in name or "token" in name:
                parameter.normal_(std=0.3)
    return network


def images(height, width, batch=1):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.family)
def test_levels_have_the_published_shapes_and_their_place_in_the_image(row):
    network, (height, width) = encoder(row.family), row.size
    assert timm.model_entrypoint(row.name).__module__ == f"timm.models.{row.family}"
    assert (network.strides, network.widths, network.size) == (row.strides, row.widths, row.size)
    assert (network.has_class_token, network.any_size) == (row.class_token, row.any_size)
    assert network.unit == (120 if row.family == "crossvit" else max(row.strides))
    # The same image twice, once with another patch: the last cell of the coarsest level's first row.
    x, patch = images(height, width).repeat(2, 1, 1, 1), max(row.strides)
    x[1, :, :patch, -patch:] += 2 * images(patch, patch)[0]
    taps = network.taps_of(x)
    assert len(taps) == 4
    for tap, ((tokens, token), stride, channels) in enumerate(zip(taps, row.strides, row.widths)):
        rows, columns = height // stride, width // stride
        assert network.grid(tap, height, width) == (rows, columns) and rows != columns
        assert tokens.shape == (2, rows * columns, channels)
        assert token.shape == (2, channels) if row.class_token else token is None
        cell = int((tokens[1] - tokens[0]).norm(dim=-1).argmax())
        if tap < LOCAL.get(row.family, 4):
            assert (cell // columns * stride // patch, cell % columns * stride // patch) == (0, width // patch - 1)
    # Training: every parameter gets a gradient, from the first layer on.
    sum(tokens.square().mean() for tokens, _ in taps).backward()
    idle = [name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not idle or row.family in IDLE
    assert next(network.parameters()).grad.any()
    network.zero_grad(set_to_none=True)


@pytest.mark.parametrize("family", ["vision_transformer", "hiera"])
@torch.inference_mode()
def test_maps_are_tokens_in_two_dimensions(family):
    network = encoder(family)
    x = images(*network.size, batch=2)
    for tap, (level, (tokens, _)) in enumerate(zip(network.maps(x), network.taps_of(x))):
        rows, columns = network.grid(tap, *network.size)
        assert level.shape == (2, tokens.shape[-1], rows, columns)
        torch.testing.assert_close(level[:, :, 1, 0], tokens[:, columns])


@pytest.mark.parametrize(
    "family, prefix",
    [("vision_transformer", 1), ("deit", 2), ("beit", 1), ("eva", 1), ("vision_transformer_hybrid", 1), ("tnt", 1)],
)
@torch.inference_mode()
def test_class_and_patch_tokens_equal_the_networks_own(family, prefix):
    """The last level is the network's output; an earlier one what its block gives, after the final LayerNorm."""
    network = encoder(family)
    assert isinstance(network.model.norm, torch.nn.Identity) == (family in ("beit", "eva"))  # they normalise after pooling
    x, blocks = images(*network.size), []
    hook = network.model.blocks[network.taps[1]].register_forward_hook(lambda _, __, output: blocks.append(output))
    expected = network.model.forward_features(x)
    hook.remove()
    block = blocks[0][1] if family == "tnt" else blocks[0]  # its blocks also give the tokens of pixels
    taps = network.taps_of(x)
    for (tokens, token), reference in ((taps[3], expected), (taps[1], network.model.norm(block))):
        torch.testing.assert_close(token, reference[:, 0])
        torch.testing.assert_close(tokens, reference[:, prefix:])


def reference(name, size, state, options):
    """timm's network for a size, with a state dict of another size through timm's own filter for checkpoints."""
    network = timm.create_model(name, img_size=size, num_classes=0, **options)
    load = getattr(sys.modules[timm.model_entrypoint(name).__module__], "checkpoint_filter_fn", lambda state, _: state)
    assert not network.load_state_dict(load(dict(state), network), strict=False).unexpected_keys
    return network.eval()


def last_level(network, x, norm=True):
    return network.forward_intermediates(x, indices=1, norm=norm, intermediates_only=True)[0]


FILTERED = ["vision_transformer", "deit", "beit", "eva", "vision_transformer_relpos", "vision_transformer_hybrid", "vitamin"]


@pytest.mark.parametrize("family", [*FILTERED, "tnt", "coat"])
@torch.inference_mode()
def test_at_size_equals_the_network_that_timm_builds_for_it(family):
    """From a square, which timm's filter supposes."""
    row = BY_FAMILY[family]
    square = encoder(family).at_size(64 // row.strides[3] * row.strides[3], 64 // row.strides[3] * row.strides[3])
    size = (2 * row.size[0], row.size[1])
    expected = last_level(reference(row.name, size, square.model.state_dict(), {}), images(*size))
    before = square.maps(images(*square.size))[3]
    torch.testing.assert_close(square.at_size(*size).maps(images(*size))[3], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(square.maps(images(*square.size))[3], before, atol=0, rtol=0)


def by_hand(embed, old, new, prefix):
    """The position embedding of another grid: bicubic with antialiasing, without the tokens before the patches."""
    grid = embed[:, prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode="bicubic", antialias=True).permute(0, 2, 3, 1)
    return torch.cat([embed[:, :prefix], grid.flatten(1, 2)], dim=1) if embed.ndim == 3 else grid


@pytest.mark.parametrize(
    "family, positions, prefix",
    [
        ("vision_transformer", {"pos_embed": 16}, 1),
        ("cait", {"pos_embed": 16}, 0),
        ("tnt", {"patch_pos": 16}, 1),
        ("volo", {"pos_embed": 16}, 0),
        ("hiera", {"pos_embed": 4}, 0),
        ("crossvit", {"pos_embed_0": 12, "pos_embed_1": 120 / 7}, 1),
    ],
)
@torch.inference_mode()
def test_at_size_turned_by_a_quarter(family, positions, prefix):
    """As many tokens on another grid: nothing has another shape, and yet position embeddings have to be resampled."""
    network = encoder(family)
    old, new = network.size, network.size[::-1]
    state = network.model.state_dict()
    for name, stride in positions.items():
        grids = [tuple(round(side / stride) for side in size) for size in (old, new)]
        state[name] = by_hand(state[name], *grids, prefix)
    model = timm.create_model(network.name, img_size=new, num_classes=0)
    model.load_state_dict(state, strict=False)
    features = model.eval().forward_intermediates(images(*new), norm=family != "hiera", intermediates_only=True)
    torch.testing.assert_close(network.at_size(*new).maps(images(*new))[3], features[max(network.taps)])


@pytest.mark.parametrize("size", [(64, 96), (96, 256)])
@torch.inference_mode()
def test_relative_positions_of_mvitv2_are_stretched_as_by_its_authors(size):
    """SlowFast's `get_rel_pos`: linear, to 2 max(q, k) - 1 places. At 224 pixels, cells have 4, 8, 16 and 32 of them."""
    network = encoder("mvitv2").at_size(224, 224)
    model = timm.create_model("mvitv2_tiny", num_classes=0).eval()
    model.load_state_dict(network.model.state_dict(), strict=False)
    strides = {2 * 224 // stride - 1: stride for stride in PYRAMID}
    for block in [block for stage in model.stages for block in stage.blocks]:
        for name, side in zip(("rel_pos_h", "rel_pos_w"), size):
            table = getattr(block.attn, name)
            places = 2 * side // strides[len(table)] - 1
            stretched = F.interpolate(table.reshape(1, len(table), -1).permute(0, 2, 1), size=places, mode="linear")
            setattr(block.attn, name, torch.nn.Parameter(stretched.reshape(-1, places).permute(1, 0)))
    found = network.at_size(*size).maps(images(*size))
    expected = model.forward_intermediates(images(*size), norm=True, intermediates_only=True)
    for level, reference in zip(found, expected):
        torch.testing.assert_close(level, reference)


@pytest.mark.parametrize("family", [row.family for row in ROWS if row.any_size])
@torch.inference_mode()
def test_another_size_directly_and_at_size(family):
    """Wider than the network's own, where a table that belongs to one size would end."""
    network = encoder(family)
    height, width = network.size[1], (network.model.pretrained_cfg["input_size"][2] // network.unit + 1) * network.unit
    x = images(height, width)
    for direct, built in zip(network.maps(x), network.at_size(height, width).maps(x)):
        torch.testing.assert_close(direct, built)


@pytest.mark.parametrize("family, own", [("vision_transformer", {"pos_embed"}), ("cait", {"pos_embed"}), ("twins", set())])
def test_at_size_shares_what_belongs_to_no_size(family, own):
    network = encoder(family)
    other = network.at_size(*network.size[::-1])
    assert all(name.startswith("model.") for name in network.state_dict())
    for (name, mine), (_, its) in zip(network.model.named_parameters(), other.model.named_parameters()):
        assert (mine is its) == (name not in own)
    assert other.size == network.size[::-1] and not other.training and network.train().at_size(*network.size[::-1]).training
    frozen = network.eval().requires_grad_(False).at_size(*network.size[::-1])
    assert not any(parameter.requires_grad for parameter in (*frozen.parameters(), *network.parameters()))
    network.requires_grad_(True)


def test_taps_are_spread_as_in_depth_anything_or_chosen():
    assert encoder("vision_transformer").taps == (2, 5, 8, 11)
    assert encoder("cait").taps == (5, 11, 17, 23)
    assert encoder("vitamin").taps == (2, 6, 9, 13)
    assert encoder("volo").taps == (0, 1, 2, 3)
    with torch.device("meta"):
        chosen = TimmEncoder("vit_tiny_patch16_224", taps=(1, 3, 5, 7))
        assert len(chosen.model.blocks) == 8 and chosen.taps == (1, 3, 5, 7)
        registers = TimmEncoder("vit_medium_patch16_reg4_gap_256")  # tokens before the patches, and none of a class
        assert not registers.has_class_token and registers.taps_of(torch.zeros(1, 3, 32, 48, device="meta"))[0][0].shape[1] == 6


def test_a_neck_of_convolutions_is_left_out():
    with torch.device("meta"):
        network = TimmEncoder("samvit_base_patch16", (64, 96))
        assert network.widths == (768,) * 4 and network.maps(torch.zeros(1, 3, 64, 96))[3].shape == (1, 768, 4, 6)
        assert not any("neck" in name for name, _ in network.named_parameters())


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "resnet18", "convnext_atto"])
@torch.inference_mode()
def test_pyramids_that_are_no_vit_work_the_same_way(name):
    network = TimmEncoder(name).eval()
    assert network.strides == PYRAMID and not network.has_class_token
    levels, at_size = network.maps(images(64, 96)), network.at_size(64, 96).maps(images(64, 96))
    assert [level.shape[2:] for level in levels] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    for direct, built in zip(levels, at_size):
        torch.testing.assert_close(direct, built)


@torch.inference_mode()
def test_pretrained_weights_arrive_at_another_size(monkeypatch):
    trained = timm.create_model("test_vit").state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(trained))
    network = TimmEncoder("test_vit.r160_in1k", (64, 96), pretrained=True).eval()
    without_head = {name: tensor for name, tensor in trained.items() if not name.startswith("head")}
    expected = last_level(reference("test_vit", (64, 96), without_head, {}), images(64, 96))
    torch.testing.assert_close(network.maps(images(64, 96))[3], expected)


@pytest.mark.parametrize(
    "name, size, taps, message",
    [
        ("vit_tiny_patch16_244", (0, 0), (), "no model 'vit_tiny_patch16_244'; close: vit_tiny_patch16_224"),
        ("vit_tiny_patch16_224.nowhere", (0, 0), (), "cannot build 'vit_tiny_patch16_224.nowhere'.*tag"),
        ("vit_tiny_patch16_224", (64, 100), (), "multiples of 16, got 100x64"),
        ("vit_tiny_patch16_224", (0, 0), (1, 2, 3, 12), "four ascending numbers from 0 to 11"),
        ("vit_tiny_patch16_224", (0, 0), (5, 2, 8, 11), "four ascending numbers"),
        ("vit_tiny_patch16_224", (0, 0), (2, 11), "four ascending numbers"),
        ("visformer_tiny", (0, 0), (), "has 3 levels, of four that are needed"),
        ("crossvit_tiny_240", (0, 0), (), "no whole number of pixels .*3: 120/7"),
        ("convit_tiny", (64, 96), (), "cannot be had for inputs of 96x64"),
        ("mixer_s32_224", (64, 96), (), "cannot be had for inputs of 96x64.*size mismatch"),
        ("efficientformer_l1", (64, 96), (), "cannot be had for inputs of 96x64"),
    ],
)
def test_what_cannot_be_had_is_refused(name, size, taps, message):
    with torch.device("meta"), pytest.raises(ModelError, match=f"(?s){message}"):
        TimmEncoder(name, size, taps)


def test_inputs_of_a_wrong_size_are_refused(monkeypatch):
    with pytest.raises(ModelError, match="takes 96x64 only, got 64x96: see TimmEncoder.at_size"):
        encoder("beit").maps(images(96, 64))
    with pytest.raises(ModelError, match="multiples of 32, got 96x80"):
        encoder("mvitv2").taps_of(images(80, 96))
    monkeypatch.delattr(timm.models.ResNet, "forward_intermediates")
    with pytest.raises(ModelError, match="has no forward_intermediates"):
        TimmEncoder("resnet18")


def test_an_old_timm_is_refused(monkeypatch):
    monkeypatch.setattr(timm, "__version__", "1.0.22")
    with pytest.raises(ModelError, match="needs timm 1.0.31, found 1.0.22"):
        TimmEncoder("vit_tiny_patch16_224")
