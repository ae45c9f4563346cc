# SPDX-License-Identifier: Apache-2.0
"""RGB-D pairs in files, for the tests of fine-tuning."""

import cv2
import numpy as np

WIDTH, HEIGHT = 128, 96


def millimetres(seed, height=HEIGHT, width=WIDTH):
    depth = np.random.default_rng(seed).integers(400, 9000, (height, width)).astype(np.uint16)
    depth[:3, :5] = 0
    return depth


def write_image(path, rgb):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rgb[..., ::-1] if rgb.ndim == 3 else rgb)


def write_folder(folder, shots):
    """Pairs as rgb/ and depth/, in millimetres."""
    for k, shot in enumerate(shots):
        write_image(folder / "rgb" / f"{k}.png", shot.rgb)
        write_image(folder / "depth" / f"{k}.png", np.rint(np.where(shot.depth < 20, shot.depth, 0) * 1000).astype(np.uint16))
    return folder
