# SPDX-License-Identifier: Apache-2.0
"""The published checkpoint layout, written down independently of the package: names, shapes, and the transformers copy.

Facts: DepthAnything/Depth-Anything-V2 (dinov2.py, dpt.py, README "model_configs"), huggingface/transformers
(convert_depth_anything_to_hf.py).
"""

import numpy as np
import torch
import torch.nn.functional as F

# width, blocks, heads, features, out_channels
ENCODERS = {
    "vits": (384, 12, 6, 64, (48, 96, 192, 384)),
    "vitb": (768, 12, 12, 128, (96, 192, 384, 768)),
    "vitl": (1024, 24, 16, 256, (256, 512, 1024, 1024)),
}
V2_TAPS = {"vits": (2, 5, 8, 11), "vitb": (2, 5, 8, 11), "vitl": (4, 11, 17, 23)}
V1_TAPS = {"vits": (8, 9, 10, 11), "vitb": (8, 9, 10, 11), "vitl": (20, 21, 22, 23)}


def shapes(encoder: str) -> dict[str, tuple[int, ...]]:
    """Every name and shape in a published .pth file."""
    c, blocks, _, f, out = ENCODERS[encoder]
    table = {
        "pretrained.cls_token": (1, 1, c),
        "pretrained.pos_embed": (1, 1370, c),
        "pretrained.mask_token": (1, c),
        "pretrained.patch_embed.proj.weight": (c, 3, 14, 14),
        "pretrained.patch_embed.proj.bias": (c,),
        "pretrained.norm.weight": (c,),
        "pretrained.norm.bias": (c,),
    }
    for i in range(blocks):
        b = f"pretrained.blocks.{i}."
        for norm in ("norm1", "norm2"):
            table |= {f"{b}{norm}.weight": (c,), f"{b}{norm}.bias": (c,)}
        for name, n_out, n_in in (("attn.qkv", 3 * c, c), ("attn.proj", c, c), ("mlp.fc1", 4 * c, c), ("mlp.fc2", c, 4 * c)):
            table |= {f"{b}{name}.weight": (n_out, n_in), f"{b}{name}.bias": (n_out,)}
        table |= {f"{b}ls1.gamma": (c,), f"{b}ls2.gamma": (c,)}
    h = "depth_head."
    for i, o in enumerate(out):
        table |= {f"{h}projects.{i}.weight": (o, c, 1, 1), f"{h}projects.{i}.bias": (o,)}
        table[f"{h}scratch.layer{i + 1}_rn.weight"] = (f, o, 3, 3)
    for i, kernel in ((0, 4), (1, 2), (3, 3)):
        table |= {f"{h}resize_layers.{i}.weight": (out[i], out[i], kernel, kernel), f"{h}resize_layers.{i}.bias": (out[i],)}
    for n in (1, 2, 3, 4):
        r = f"{h}scratch.refinenet{n}."
        table |= {f"{r}out_conv.weight": (f, f, 1, 1), f"{r}out_conv.bias": (f,)}
        for unit in (1, 2):
            for conv in (1, 2):
                name = f"{r}resConfUnit{unit}.conv{conv}"
                table |= {f"{name}.weight": (f, f, 3, 3), f"{name}.bias": (f,)}
    s = f"{h}scratch."
    table |= {f"{s}output_conv1.weight": (f // 2, f, 3, 3), f"{s}output_conv1.bias": (f // 2,)}
    table |= {f"{s}output_conv2.0.weight": (32, f // 2, 3, 3), f"{s}output_conv2.0.bias": (32,)}
    table |= {f"{s}output_conv2.2.weight": (1, 32, 1, 1), f"{s}output_conv2.2.bias": (1,)}
    return table


def random_state_dict(encoder: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A checkpoint of random weights whose outputs vary over several units, the same for the same seed."""
    generator = np.random.default_rng(seed)
    state = {}
    for name, shape in shapes(encoder).items():
        values = generator.standard_normal(shape, np.float32)
        if name.endswith("pos_embed"):
            values *= 0.5
        elif name.endswith("gamma"):
            values = 0.3 + 0.1 * values
        elif "norm" in name and name.endswith("weight"):
            values = 1 + 0.1 * values
        elif len(shape) > 1 and "token" not in name:
            values *= 1.2 / np.sqrt(np.prod(shape[1:]))
        else:
            values *= 0.1
        state[name] = torch.from_numpy(values)
    state["depth_head.scratch.output_conv2.2.bias"] += 0.5
    return state


def to_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights under the names of the hub's `-hf` files (those that transformers 4 wrote)."""
    renamed = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "pretrained" and parts[1] == "blocks":
            layer, rest = f"backbone.encoder.layer.{parts[2]}.", ".".join(parts[3:])
            if rest.startswith("attn.qkv"):
                for word, third in zip(("query", "key", "value"), tensor.chunk(3)):
                    renamed[f"{layer}attention.attention.{word}.{parts[-1]}"] = third.clone()
                continue
            rest = rest.replace("attn.proj", "attention.output.dense")
            rest = rest.replace("ls1.gamma", "layer_scale1.lambda1").replace("ls2.gamma", "layer_scale2.lambda1")
            renamed[layer + rest] = tensor
        elif parts[0] == "pretrained":
            rest = ".".join(parts[1:])
            names = {"pos_embed": "embeddings.position_embeddings", "cls_token": "embeddings.cls_token"}
            names |= {"mask_token": "embeddings.mask_token", "norm.weight": "layernorm.weight", "norm.bias": "layernorm.bias"}
            rest = names.get(rest, rest.replace("patch_embed.proj", "embeddings.patch_embeddings.projection"))
            renamed["backbone." + rest] = tensor
        else:
            rest = ".".join(parts[1:]).removeprefix("scratch.")
            for n in (1, 2, 3, 4):
                rest = rest.replace(f"refinenet{n}.", f"neck.fusion_stage.layers.{4 - n}.")
                rest = rest.replace(f"layer{n}_rn", f"neck.convs.{n - 1}")
                rest = rest.replace(f"projects.{n - 1}.", f"neck.reassemble_stage.layers.{n - 1}.projection.")
                rest = rest.replace(f"resize_layers.{n - 1}.", f"neck.reassemble_stage.layers.{n - 1}.resize.")
                rest = rest.replace(f"resConfUnit{n}.conv", f"residual_layer{n}.convolution")
            rest = rest.replace("out_conv", "projection") if "fusion_stage" in rest else rest
            rest = rest.replace("output_conv1", "head.conv1")
            rest = rest.replace("output_conv2.0", "head.conv2").replace("output_conv2.2", "head.conv3")
            renamed[rest] = tensor
    return renamed


def transformers_network(state, encoder: str, taps, metric_max_depth: float = 0.0):
    """The independent implementation with the same weights, in eval mode."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    width, blocks, heads, features, out = ENCODERS[encoder]
    backbone = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        image_size=518,
        patch_size=14,
        out_indices=[tap + 1 for tap in taps],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=width,
        neck_hidden_sizes=list(out),
        fusion_hidden_size=features,
        depth_estimation_type="metric" if metric_max_depth else "relative",
        max_depth=int(metric_max_depth) or 1,
    )
    with torch.device("meta"):  # the weights replace everything
        network = DepthAnythingForDepthEstimation(config)
    renamed = to_transformers(state)
    if not any("attention.attention.query" in name for name in network.state_dict()):  # transformers 5 renamed them in memory
        for word in ("query", "key", "value"):
            renamed = {n.replace(f"attention.attention.{word}", f"attention.{word[0]}_proj"): t for n, t in renamed.items()}
        renamed = {name.replace("attention.output.dense", "attention.o_proj"): t for name, t in renamed.items()}
    network.load_state_dict(renamed, strict=True, assign=True)
    return network.eval()


def use_dinov2_rule(network) -> None:
    """Replace transformers' position-embedding rule by the reference's (facebookresearch/dinov2, vision_transformer.py)."""
    embeddings = network.backbone.embeddings

    def interpolate(tokens, height, width):
        embed = embeddings.position_embeddings
        rows, columns, side = height // 14, width // 14, 37
        if rows == side and columns == side:
            return embed
        grid = embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        scale = ((rows + 0.1) / side, (columns + 0.1) / side)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", antialias=False)
        assert grid.shape[-2:] == (rows, columns)
        return torch.cat([embed[:, :1], grid.permute(0, 2, 3, 1).reshape(1, rows * columns, -1)], dim=1)

    embeddings.interpolate_pos_encoding = interpolate
