# SPDX-License-Identifier: Apache-2.0
"""Random rooms, corridors and streets as primitives with materials, and cameras that look at them.

Geometry only: `raycast.py` turns a scene and a view into an image and its exact depth.

World frame: x forward, y left, z up (REP-103), metres. Scenes are built one at a time from a seed and stacked along a
leading batch dimension, so that hundreds can be ray cast in one call.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, fields

import torch

HELD_OUT_SEED = 10_000_000  # scenes from here on are never used in training
FAMILIES = ("room", "corridor", "street")
BOX, CYLINDER, SPHERE = 0, 1, 2
PLAIN, CHECKS, STRIPES, NOISE, BRICKS, WOOD = range(6)
MAX_PRIMITIVES = 24


@dataclass(frozen=True)
class Scene:
    """A batch of B scenes of P primitives each; unused slots have `size` 0.

    The shell (walls, floor and ceiling of a room, seen from inside) is primitive 0 of rooms and corridors; in streets
    it is a box so tall that only its floor is ever hit, and `outdoor` lets the rays that meet its walls escape.
    """

    kind: torch.Tensor  # (B, P) int64: BOX, CYLINDER, SPHERE
    centre: torch.Tensor  # (B, P, 3) metres
    size: torch.Tensor  # (B, P, 3) half extents; cylinders: radius, radius, half height; spheres: radius three times
    yaw: torch.Tensor  # (B, P) radians about z
    colour: torch.Tensor  # (B, P, 2, 3) two albedos in [0, 1] that the texture mixes
    texture: torch.Tensor  # (B, P) int64: PLAIN … WOOD
    period: torch.Tensor  # (B, P) metres, the texture's size
    light: torch.Tensor  # (B, 3) position of the lamp (or of a far sun)
    ambient: torch.Tensor  # (B,) share of light without direction
    outdoor: torch.Tensor  # (B,) bool
    sky: torch.Tensor  # (B, 3) colour where a ray hits nothing

    def to(self, device: torch.device | str) -> Scene:
        """The same scenes on another device."""
        return Scene(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True)
class View:
    """A batch of B pinhole cameras: position (B, 3) in metres; yaw and pitch (B,) in radians, pitch positive downwards;
    focal length (B,) in units of the image width."""

    position: torch.Tensor
    yaw: torch.Tensor
    pitch: torch.Tensor
    focal: torch.Tensor

    def to(self, device: torch.device | str) -> View:
        """The same views on another device."""
        return View(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def at(self, index: int) -> View:
        """One of the views, as a batch of one."""
        return View(**{f.name: getattr(self, f.name)[index : index + 1] for f in fields(self)})


def focal_from_fov(fov_deg: float) -> float:
    """Focal length in image widths of a horizontal field of view in degrees."""
    return 0.5 / math.tan(math.radians(fov_deg) / 2)


def random_scene(seed: int, family: str | None = None) -> tuple[Scene, View]:
    """One scene and one robot's view of it, the same for the same seed (B = 1)."""
    builder = _Builder(random.Random(seed))
    family = family or builder.rng.choice(FAMILIES)
    if family not in FAMILIES:
        raise ValueError(f"unknown scene family '{family}', expected one of {', '.join(FAMILIES)}")
    view = getattr(builder, f"build_{family}")()
    return builder.scene(), view


def random_batch(seeds: list[int]) -> tuple[Scene, View]:
    """`len(seeds)` scenes and views stacked into one batch."""
    scenes, views = zip(*(random_scene(seed) for seed in seeds))
    return _stack(scenes), _stack(views)


def drive(view: View, count: int, length: float = 1.0) -> View:
    """The view (B = 1) moved `length` metres forward and back with a gentle sway, as `count` views of a closed loop."""
    phase = torch.linspace(0, 2 * math.pi, count + 1)[:-1]
    along = length * (1 - torch.cos(phase)) / 2
    yaw = view.yaw + 0.12 * torch.sin(phase)
    step = torch.stack([along * torch.cos(view.yaw), along * torch.sin(view.yaw), torch.zeros(count)], -1)
    return View(view.position + step, yaw, view.pitch.expand(count), view.focal.expand(count))


def _stack(parts):
    kind = type(parts[0])
    return kind(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(kind)})


class _Builder:
    """Collects the primitives of one scene; every random choice comes from one generator."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.rows: list[tuple] = []
        self.light, self.ambient, self.outdoor, self.sky = (0.0, 0.0, 2.0), 0.4, False, (0.0, 0.0, 0.0)

    # -- primitives ---------------------------------------------------------------------------------------------

    def material(self, textures=(PLAIN, CHECKS, STRIPES, NOISE, BRICKS, WOOD), period=None):
        rng = self.rng
        base = [rng.uniform(0.15, 0.9) for _ in range(3)]
        grey = sum(base) / 3
        base = [grey + (c - grey) * rng.uniform(0.2, 1.0) for c in base]
        gain = rng.uniform(0.45, 0.85)
        return (base, [c * gain for c in base]), rng.choice(textures), period or rng.uniform(0.08, 0.5)

    def add(self, kind, centre, size, yaw=0.0, material=None):
        if len(self.rows) < MAX_PRIMITIVES:
            self.rows.append((kind, centre, size, yaw, *(material or self.material())))

    def box(self, x, y, z0, size, yaw=0.0, material=None):
        """A box of full size (lx, ly, lz) that stands at height z0."""
        half = [s / 2 for s in size]
        self.add(BOX, (x, y, z0 + half[2]), half, yaw, material)

    def table(self, x, y, yaw):
        rng, wood = self.rng, self.material((WOOD, PLAIN))
        lx, ly, height = rng.uniform(0.9, 1.6), rng.uniform(0.6, 0.9), rng.uniform(0.70, 0.76)
        self.box(x, y, height - 0.04, (lx, ly, 0.04), yaw, wood)
        for sx in (-1, 1):
            for sy in (-1, 1):
                dx, dy = sx * (lx / 2 - 0.05), sy * (ly / 2 - 0.05)
                cx = x + dx * math.cos(yaw) - dy * math.sin(yaw)
                cy = y + dx * math.sin(yaw) + dy * math.cos(yaw)
                self.box(cx, cy, 0.0, (0.06, 0.06, height - 0.04), yaw, wood)

    def cover(self, x, length, width, height):
        """A floor and a ceiling of their own materials inside a shell."""
        self.box(x, 0, 0, (length, width, 0.01), 0, self.material())
        self.box(x, 0, height - 0.01, (length, width, 0.01), 0, self.material((PLAIN, CHECKS)))

    def clutter(self, x, y):
        """Something that stands on the floor at (x, y)."""
        rng, yaw = self.rng, self.rng.uniform(0, math.pi)
        choice = rng.random()
        if choice < 0.45:
            self.box(x, y, 0.0, (rng.uniform(0.25, 0.9), rng.uniform(0.25, 0.9), rng.uniform(0.25, 1.1)), yaw)
        elif choice < 0.6:
            self.box(x, y, 0.0, (rng.uniform(0.6, 1.2), rng.uniform(0.35, 0.5), rng.uniform(1.5, 2.1)), yaw)
        elif choice < 0.75:
            radius, half = rng.uniform(0.12, 0.35), rng.uniform(0.2, 0.7)
            self.add(CYLINDER, (x, y, half), (radius, radius, half))
        elif choice < 0.87:
            radius = rng.uniform(0.12, 0.4)
            self.add(SPHERE, (x, y, radius), (radius,) * 3)
        else:
            self.table(x, y, yaw)

    def camera(self, x, y, yaw) -> View:
        rng = self.rng
        height, pitch = rng.uniform(0.35, 0.9), math.radians(rng.uniform(-3, 15))
        focal = focal_from_fov(rng.uniform(60, 75))
        as_batch = lambda value: torch.tensor([value], dtype=torch.float32)  # noqa: E731
        return View(as_batch([x, y, height]), as_batch(yaw), as_batch(pitch), as_batch(focal))

    # -- families -----------------------------------------------------------------------------------------------

    def build_room(self) -> View:
        rng = self.rng
        lx, ly, height = rng.uniform(4, 9), rng.uniform(3.5, 7), rng.uniform(2.4, 3.0)
        self.box(0, 0, 0, (lx, ly, height), 0.0, self.material(period=rng.uniform(0.2, 0.6)))
        self.cover(0, lx, ly, height)
        camera_x = -lx / 2 + rng.uniform(0.4, 1.2)
        yaw = rng.uniform(-0.5, 0.5)
        for _ in range(rng.randint(3, 8)):
            distance, angle = rng.uniform(1.0, lx - 1.2), yaw + rng.uniform(-0.55, 0.55)
            x, y = camera_x + distance * math.cos(angle), distance * math.sin(angle)
            if abs(y) < ly / 2 - 0.4 and x < lx / 2 - 0.4:
                self.clutter(x, y)
        if rng.random() < 0.6:  # a door in the far wall: 2.0 m, everywhere the same, so a hint at scale
            self.box(
                lx / 2 - 0.01,
                rng.uniform(-ly / 2 + 0.6, ly / 2 - 0.6),
                0,
                (0.05, 0.9, 2.0),
                0,
                self.material((PLAIN, WOOD)),
            )
        self.light = (rng.uniform(-lx / 3, lx / 3), rng.uniform(-ly / 3, ly / 3), height - 0.2)
        self.ambient = rng.uniform(0.3, 0.6)
        return self.camera(camera_x, rng.uniform(-0.5, 0.5), yaw)

    def build_corridor(self) -> View:
        rng = self.rng
        length, width, height = rng.uniform(8, 25), rng.uniform(1.6, 3.0), rng.uniform(2.4, 3.0)
        self.box(length / 2 - 1, 0, 0, (length, width, height), 0.0, self.material(period=rng.uniform(0.2, 0.6)))
        self.cover(length / 2 - 1, length, width, height)
        for _ in range(rng.randint(2, 5)):
            side = rng.choice((-1, 1))
            self.box(rng.uniform(1.5, length - 2), side * width / 2, 0, (0.9, 0.1, 2.0), 0, self.material((PLAIN, WOOD)))
        for _ in range(rng.randint(1, 4)):
            self.clutter(rng.uniform(1.5, min(9.0, length - 2)), rng.choice((-1, 1)) * (width / 2 - 0.3))
        self.light = (rng.uniform(1, 6), 0.0, height - 0.2)
        self.ambient = rng.uniform(0.4, 0.7)
        return self.camera(0.0, rng.uniform(-0.3, 0.3), rng.uniform(-0.25, 0.25))

    def build_street(self) -> View:
        rng = self.rng
        self.outdoor, self.sky = True, (rng.uniform(0.5, 0.8), rng.uniform(0.6, 0.85), rng.uniform(0.75, 1.0))
        road = rng.uniform(5, 9)
        self.box(0, 0, 0, (400, 400, 400), 0.0, self.material((PLAIN, NOISE), rng.uniform(0.1, 0.4)))
        for side in (-1, 1):
            kerb = rng.uniform(1.2, 2.5)
            self.box(50, side * (road / 2 + kerb / 2), 0, (120, kerb, 0.15), 0, self.material((PLAIN, NOISE, CHECKS), 0.4))
            x = rng.uniform(-2, 4)
            for _ in range(4):
                depth, front = rng.uniform(5, 9), rng.uniform(5, 12)
                y = side * (road / 2 + kerb + depth / 2 + rng.uniform(0, 1.0))
                self.box(
                    x + front / 2,
                    y,
                    0,
                    (front, depth, rng.uniform(3, 9)),
                    0,
                    self.material((BRICKS, PLAIN, CHECKS, STRIPES)),
                )
                x += front + rng.uniform(0, 2)
        for _ in range(rng.randint(1, 3)):  # a parked car: a body and a cabin
            x, y, paint = rng.uniform(3, 15), rng.choice((-1, 1)) * (road / 2 - 1.0), self.material((PLAIN,))
            self.box(x, y, 0.25, (4.2, 1.75, 0.6), 0, paint)
            self.box(x - 0.2, y, 0.85, (2.2, 1.6, 0.55), 0, paint)
        for _ in range(rng.randint(0, 3)):  # a tree: a trunk and a crown
            x, y = rng.uniform(3, 14), rng.choice((-1, 1)) * (road / 2 + 0.6)
            self.add(CYLINDER, (x, y, 1.2), (0.13, 0.13, 1.2), material=self.material((WOOD, NOISE)))
            self.add(SPHERE, (x, y, 3.0), (rng.uniform(0.8, 1.3),) * 3, material=self.material((NOISE,), 0.2))
        for _ in range(rng.randint(0, 2)):
            self.clutter(rng.uniform(1.5, 6), rng.uniform(-road / 2 + 0.5, road / 2 - 0.5))
        self.light = (rng.uniform(-60, 60), rng.uniform(-60, 60), 80.0)
        self.ambient = rng.uniform(0.4, 0.7)
        return self.camera(0.0, rng.uniform(-road / 4, road / 4), rng.uniform(-0.25, 0.25))

    def scene(self) -> Scene:
        spare = (BOX, (0, 0, -1e3), (0, 0, 0), 0.0, ((0, 0, 0), (0, 0, 0)), PLAIN, 1.0)
        rows = self.rows + [spare] * (MAX_PRIMITIVES - len(self.rows))
        kind, centre, size, yaw, colour, texture, period = (torch.tensor([column]) for column in zip(*rows))
        return Scene(
            kind, centre.float(), size.float(), yaw.float(), colour.float(), texture, period.float(),
            torch.tensor([self.light]), torch.tensor([self.ambient]), torch.tensor([self.outdoor]), torch.tensor([self.sky]),
        )  # fmt: skip
