# SPDX-License-Identifier: Apache-2.0
"""What a procedural scene is: primitives with materials, lamps and air, and the cameras that look at them.

`families.py` makes scenes, `raycast.py` turns a scene and a view into an image and its exact depth. World frame: x forward,
y left, z up (REP-103), metres. Scenes are stacked along a leading batch dimension, so that many are ray cast in one call.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TypeVar

import torch

VERSION = 2  # of the generator: another number, another world. Figures name the version that they were measured on.
BOX, CYLINDER, SPHERE = 0, 1, 2
PLAIN, CHECKS, STRIPES, NOISE, BRICKS, WOOD = range(6)
LABELS = (
    "sky", "ground", "wall", "ceiling", "door", "window", "table", "chair", "shelf", "box", "thing", "person", "pillar",
    "stairs", "car", "tree", "building", "kerb",
)  # fmt: skip
MAX_PRIMITIVES = 64


class _Batch:
    """A dataclass of tensors that share their first dimension."""

    def to(self, device: torch.device | str):
        """The same on another device."""
        return type(self)(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def at(self, index: int):
        """One of the batch, as a batch of one."""
        return type(self)(**{f.name: getattr(self, f.name)[index : index + 1] for f in fields(self)})


@dataclass(frozen=True)
class Scene(_Batch):
    """A batch of B scenes of P primitives each; unused slots have `size` 0.

    The shell (walls, floor and ceiling of a room, seen from inside) is primitive 0; in streets it is a box so large that
    only its floor is ever hit, and `outdoor` lets the rays that meet its walls escape.
    """

    kind: torch.Tensor  # (B, P) int64: BOX, CYLINDER, SPHERE
    centre: torch.Tensor  # (B, P, 3) metres
    size: torch.Tensor  # (B, P, 3) half extents; cylinders: radius, radius, half height; spheres: radius three times
    yaw: torch.Tensor  # (B, P) radians about z
    label: torch.Tensor  # (B, P) int64: index into LABELS
    colour: torch.Tensor  # (B, P, 2, 3) two albedos in [0, 1] that the texture mixes
    texture: torch.Tensor  # (B, P) int64: PLAIN … WOOD
    period: torch.Tensor  # (B, P) metres, the texture's size
    light: torch.Tensor  # (B, 3) position of the lamp (or of a far sun)
    light_colour: torch.Tensor  # (B, 3) around 1
    ambient: torch.Tensor  # (B,) share of light without direction
    outdoor: torch.Tensor  # (B,) bool
    sky: torch.Tensor  # (B, 3) colour where a ray hits nothing, and of the fog
    fog: torch.Tensor  # (B,) 1 / metres: what a ray of length r keeps is exp(-fog * r)


@dataclass(frozen=True)
class View(_Batch):
    """A batch of B pinhole cameras: position (B, 3) in metres; yaw and pitch (B,) in radians, pitch positive downwards;
    focal length (B,) in units of the image width."""

    position: torch.Tensor
    yaw: torch.Tensor
    pitch: torch.Tensor
    focal: torch.Tensor


AnyBatch = TypeVar("AnyBatch", Scene, View)


def stack(parts: list[AnyBatch]) -> AnyBatch:
    """Several batches as one."""
    kind = type(parts[0])
    return kind(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(kind)})


def focal_from_fov(fov_deg: float) -> float:
    """Focal length in image widths of a horizontal field of view in degrees."""
    return 0.5 / math.tan(math.radians(fov_deg) / 2)


def drive(view: View, count: int, length: float = 1.0) -> View:
    """The view (B = 1) moved `length` metres forward and back with a gentle sway, as `count` views of a closed loop."""
    phase = torch.linspace(0, 2 * math.pi, count + 1)[:-1]
    along = length * (1 - torch.cos(phase)) / 2
    yaw = view.yaw + 0.12 * torch.sin(phase)
    step = torch.stack([along * torch.cos(view.yaw), along * torch.sin(view.yaw), torch.zeros(count)], -1)
    return View(view.position + step, yaw, view.pitch.expand(count), view.focal.expand(count))
