# SPDX-License-Identifier: Apache-2.0
"""The demo's pictures: a contact sheet, a cloud seen from the side, a .ply file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from depth_anything_ros.geometry import colorize

_TILE = (400, 300)
_FAR = 10.0  # metres at the far end of the colours


def contact_sheet(path: Path, bundles: list[dict], pixels: Callable, read_cloud: Callable) -> None:
    """One row for each bundle: camera, depth, cloud from the side, and where there is truth, truth and error."""
    rows = []
    for messages in bundles:
        depth, image = pixels(messages["depth"]), pixels(messages["image"])
        tiles = [("camera", image), (f"depth, 0 to {_FAR:.0f} m", pixels(messages["color"]))]
        if "truth" in messages:
            truth = pixels(messages["truth"])
            with np.errstate(invalid="ignore"):  # the sky has no error
                error = np.abs(depth - truth) / truth
            tiles += [(f"truth, 0 to {_FAR:.0f} m", _turbo(truth)), ("error, black 0, yellow 50 %", _heat(error / 0.5))]
        tiles.append(("cloud, seen from above left", side_view(read_cloud(messages["cloud"]))))
        rows.append(np.hstack([_tile(name, picture) for name, picture in tiles]))
    cv2.imwrite(str(path), np.vstack(rows))


def _turbo(depth: np.ndarray) -> np.ndarray:
    return colorize(torch.from_numpy(np.nan_to_num(depth, posinf=1e3)), 0.0, _FAR, "turbo")


def _heat(share: np.ndarray) -> np.ndarray:
    level = (np.clip(np.nan_to_num(share), 0, 1) * 255).astype(np.uint8)
    return np.where(np.isfinite(share)[..., None], cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), 60).astype(np.uint8)


def _tile(name: str, picture: np.ndarray) -> np.ndarray:
    tile = np.full((_TILE[1] + 24, _TILE[0], 3), 24, np.uint8)
    scale = min(_TILE[0] / picture.shape[1], _TILE[1] / picture.shape[0])
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    x, y = (_TILE[0] - size[0]) // 2, 24 + (_TILE[1] - size[1]) // 2
    tile[y : y + size[1], x : x + size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    cv2.putText(tile, name, (8, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (230, 230, 230), 1, cv2.LINE_AA)
    return tile


def side_view(cloud: np.ndarray) -> np.ndarray:
    """Points drawn from 1.5 m above and 1.5 m left of the camera, looking at what is 4 m in front of it."""
    xyz, bgr = _finite(cloud)
    near = xyz[:, 2] < _FAR
    xyz, bgr = xyz[near], bgr[near]
    eye, target = np.array([-1.5, -1.5, -0.8]), np.array([0.0, 0.3, 4.0])
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(forward, right), forward])
    x, y, z = ((xyz - eye) @ axes.T).T
    picture = np.full((_TILE[1], _TILE[0], 3), 24, np.uint8)
    focal = 0.8 * _TILE[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = focal * x / z + _TILE[0] / 2, focal * y / z + _TILE[1] / 2
    seen = (z > 0.2) & (u >= 0) & (u < _TILE[0] - 1) & (v >= 0) & (v < _TILE[1] - 1)
    order = np.argsort(-z[seen])
    u, v, bgr = u[seen][order].astype(int), v[seen][order].astype(int), bgr[seen][order]
    for du in (0, 1):
        for dv in (0, 1):
            picture[v + dv, u + du] = bgr
    return picture


def write_ply(path: Path, cloud: np.ndarray) -> int:
    """The finite points with their colours as a binary .ply; returns how many there are."""
    xyz, bgr = _finite(cloud)
    rows = np.empty(len(xyz), [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")])
    rows["x"], rows["y"], rows["z"] = xyz.T
    rows["blue"], rows["green"], rows["red"] = bgr.T
    kinds = {"<f4": "float", "|u1": "uchar"}
    properties = "".join(f"property {kinds[rows.dtype[name].str]} {name}\n" for name in rows.dtype.names)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{properties}end_header\n"
    path.write_bytes(header.encode() + rows.tobytes())
    return len(rows)


def _finite(cloud: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finite points (N, 3) and their colours (N, 3) BGR of a structured cloud with fields x, y, z, rgb."""
    flat = cloud.reshape(-1)
    flat = flat[np.isfinite(flat["z"])]
    xyz = np.stack([flat["x"], flat["y"], flat["z"]], -1)
    bgr = np.ascontiguousarray(flat["rgb"]).view(np.uint8).reshape(-1, 4)[:, :3]
    return xyz, bgr
