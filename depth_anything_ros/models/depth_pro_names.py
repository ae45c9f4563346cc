# SPDX-License-Identifier: Apache-2.0
"""The transformers copy of Depth Pro (apple/DepthPro-hf) -> the names of the published `depth_pro.pt`.

The hub's file has the names of transformers 4; those that transformers 5 saves differ in the ViT's attention. Both are taken.
"""

from __future__ import annotations

import re

import torch

StateDict = dict[str, torch.Tensor]

# Beginnings of names. The copy counts levels from coarse to fine, the original from fine to coarse.
_PARTS = {
    "depth_pro.encoder.patch_encoder.model.": "encoder.patch_encoder.",
    "depth_pro.encoder.image_encoder.model.": "encoder.image_encoder.",
    "depth_pro.neck.feature_upsample.image_block.layers.0.": "encoder.upsample_lowres.",
    **{f"depth_pro.neck.feature_upsample.scaled_images.{i}.layers.": f"encoder.upsample{2 - i}." for i in range(3)},
    **{f"depth_pro.neck.feature_upsample.intermediate.{i}.layers.": f"encoder.upsample_latent{1 - i}." for i in range(2)},
    "depth_pro.neck.fuse_image_with_low_res.": "encoder.fuse_lowres.",
    **{f"depth_pro.neck.feature_projection.projections.{i}.": f"decoder.convs.{4 - i}." for i in range(4)},
    **{f"fusion_stage.intermediate.{i}.": f"decoder.fusions.{4 - i}." for i in range(4)},
    "fusion_stage.final.": "decoder.fusions.0.",
    "head.layers.": "head.",
    "fov_model.fov_encoder.model.": "fov.encoder.0.",
    "fov_model.fov_encoder.neck.": "fov.encoder.1.",
    "fov_model.conv.": "fov.downsample.0.",
    "fov_model.head.layers.": "fov.head.",
}
# What follows them, in this order.
_WITHIN = {
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.cls_token": "cls_token",
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "encoder.layer.": "blocks.",
    "layernorm.": "norm.",
    "attention.output.dense.": "attn.proj.",
    "attention.o_proj.": "attn.proj.",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "residual_layer": "resnet",
    "convolution1.": "residual.1.",
    "convolution2.": "residual.3.",
    "projection.": "out_conv.",
}
_QKV = re.compile(r"(.*\.)attention\.(?:attention\.(query|key|value)|([qkv])_proj)\.(weight|bias)")


def is_transformers(state: StateDict) -> bool:
    """Whether these are the names of `transformers.DepthProForDepthEstimation`."""
    return any(name.startswith("depth_pro.encoder.") for name in state)


def from_transformers(state: StateDict) -> StateDict:
    """The same tensors under the names of the published file: query, key and value joined, mask tokens left out.

    What is unknown keeps its name, and what is incomplete stays away, for the strict comparison to report.
    """
    renamed: StateDict = {}
    attention: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in state.items():
        ours = _rename(name)
        if match := _QKV.fullmatch(ours):
            block, word, letter, kind = match.groups()
            attention.setdefault(f"{block}attn.qkv.{kind}", {})[(word or letter)[0]] = tensor
        elif not ours.endswith(".embeddings.mask_token"):
            renamed[ours] = tensor
    for name, parts in attention.items():
        if len(parts) == 3:
            renamed[name] = torch.cat([parts["q"], parts["k"], parts["v"]])
    return renamed


def _rename(name: str) -> str:
    part = next((part for part in _PARTS if name.startswith(part)), None)
    if part is None:
        return name
    rest = name.removeprefix(part)
    for theirs, ours in _WITHIN.items():
        rest = rest.replace(theirs, ours)
    return _PARTS[part] + rest
