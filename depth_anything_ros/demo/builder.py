# SPDX-License-Identifier: Apache-2.0
"""Collects the primitives of one scene: materials, furniture, people, stairs, cars, trees, each of its real size.

Sizes are those of real things (a brick is 25 cm, a ceiling panel 60 cm, a door 2 m): they are what metres are inferred from.
"""

from __future__ import annotations

import math
import random

import torch

from .scenes import (
    BOX,
    BRICKS,
    CHECKS,
    CYLINDER,
    LABELS,
    MAX_PRIMITIVES,
    NOISE,
    PLAIN,
    SPHERE,
    STRIPES,
    WOOD,
    Scene,
    View,
    focal_from_fov,
)

# How robots carry their cameras: height in metres, pitch downwards and horizontal field of view in degrees.
MOUNTS = (
    (0.25, 0.0, 69.0),  # a small indoor robot, level: OAK-D, RealSense D435
    (0.50, 5.0, 69.0),  # a quadruped, a cart
    (0.90, 10.0, 69.0),  # an outdoor platform, a delivery robot
    (1.30, 16.0, 62.0),  # a service robot's head
)
_PERIODS = {  # metres; what is made in factories comes in few sizes
    PLAIN: (1.0,),
    CHECKS: (0.3, 0.6),
    STRIPES: (0.2, 0.4),
    NOISE: (0.06, 0.12, 0.25, 0.5),
    BRICKS: (0.25,),
    WOOD: (0.14,),
}
Material = tuple[tuple[list[float], list[float]], int, float]


class Builder:
    """One scene in the making; every random choice comes from one generator."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.rows: list[tuple] = []
        self.taken: list[tuple[float, float, float]] = []  # x, y, radius of what stands on the floor
        self.light, self.light_colour, self.ambient = (0.0, 0.0, 2.0), (1.0, 1.0, 1.0), 0.4
        self.outdoor, self.sky, self.fog = False, (0.7, 0.72, 0.75), 0.0

    # -- materials ----------------------------------------------------------------------------------------------

    def material(self, textures=(PLAIN, CHECKS, STRIPES, NOISE, BRICKS, WOOD), low=0.15, high=0.9, saturation=1.0) -> Material:
        """Two related colours and one of the textures, in one of the sizes in which it is made."""
        rng = self.rng
        base = [rng.uniform(low, high) for _ in range(3)]
        grey = sum(base) / 3
        keep = rng.uniform(0.1, 1.0) * saturation
        base = [grey + (c - grey) * keep for c in base]
        gain = rng.uniform(0.5, 0.88)
        texture = rng.choice(textures)
        return (base, [c * gain for c in base]), texture, rng.choice(_PERIODS[texture])

    def floor(self) -> Material:
        """Tiles, planks, carpet or concrete."""
        return self.material((CHECKS, CHECKS, WOOD, WOOD, NOISE, PLAIN), 0.2, 0.75, 0.6)

    def walls(self) -> Material:
        """Paint, plaster, brick or wallpaper."""
        return self.material((PLAIN, PLAIN, NOISE, BRICKS, STRIPES), 0.4, 0.95, 0.5)

    def wood(self) -> Material:
        """Planks or paint."""
        return self.material((WOOD, PLAIN), 0.2, 0.8)

    # -- primitives ---------------------------------------------------------------------------------------------

    def add(self, kind: int, label: str, centre, size, yaw: float = 0.0, material: Material | None = None) -> None:
        """One primitive; what does not fit into the scene any more is left out."""
        if len(self.rows) < MAX_PRIMITIVES:
            self.rows.append((kind, centre, size, yaw, LABELS.index(label), *(material or self.material())))

    def box(self, label: str, x, y, z0, size, yaw=0.0, material=None) -> None:
        """A box of full size (lx, ly, lz) whose underside is at height z0."""
        half = [s / 2 for s in size]
        self.add(BOX, label, (x, y, z0 + half[2]), half, yaw, material)

    def cylinder(self, label: str, x, y, z0, radius, height, material=None) -> None:
        """An upright cylinder whose underside is at height z0."""
        self.add(CYLINDER, label, (x, y, z0 + height / 2), (radius, radius, height / 2), 0.0, material)

    def sphere(self, label: str, x, y, z, radius, material=None) -> None:
        """A sphere with its centre at (x, y, z)."""
        self.add(SPHERE, label, (x, y, z), (radius,) * 3, 0.0, material)

    def free(self, x: float, y: float, radius: float) -> bool:
        """Whether a disc on the floor is free; if so it is taken."""
        if any(math.hypot(x - a, y - b) < radius + c for a, b, c in self.taken):
            return False
        self.taken.append((x, y, radius))
        return True

    # -- things, standing at (x, y) and turned by yaw ------------------------------------------------------------

    def parts(self, label: str, x, y, yaw, boxes) -> None:
        """Boxes ((dx, dy, z0), (lx, ly, lz), material) given in the frame of a thing."""
        cos, sin = math.cos(yaw), math.sin(yaw)
        for (dx, dy, z0), size, material in boxes:
            self.box(label, x + dx * cos - dy * sin, y + dx * sin + dy * cos, z0, size, yaw, material)

    def table(self, x, y, yaw) -> None:
        """A top on four legs, 73 cm high."""
        rng, wood = self.rng, self.wood()
        lx, ly, height = rng.uniform(1.0, 1.6), rng.uniform(0.6, 0.9), rng.uniform(0.71, 0.75)
        legs = [(sx * (lx / 2 - 0.05), sy * (ly / 2 - 0.05), 0.0) for sx in (-1, 1) for sy in (-1, 1)]
        top = ((0, 0, height - 0.04), (lx, ly, 0.04), wood)
        self.parts("table", x, y, yaw, [top, *((leg, (0.06, 0.06, height - 0.04), wood) for leg in legs)])

    def chair(self, x, y, yaw) -> None:
        """A seat at 46 cm, a back, four legs."""
        wood = self.wood()
        legs = [(sx * 0.19, sy * 0.19, 0.0) for sx in (-1, 1) for sy in (-1, 1)]
        seat, back = ((0, 0, 0.42), (0.44, 0.44, 0.04), wood), ((-0.2, 0, 0.46), (0.04, 0.44, 0.42), wood)
        self.parts("chair", x, y, yaw, [seat, back, *((leg, (0.04, 0.04, 0.42), wood) for leg in legs)])

    def shelf(self, x, y, yaw, filled: bool = False) -> None:
        """Five boards between two sides, a back, perhaps things on two of the boards; up to 2.1 m; open towards -yaw."""
        rng, wood = self.rng, self.wood()
        width, height, depth = rng.choice((0.6, 0.8, 1.0)), rng.uniform(1.6, 2.1), 0.35
        sides = [((0, s * width / 2, 0.0), (depth, 0.03, height), wood) for s in (-1, 1)]
        boards = [((0, 0, i * height / 5), (depth, width, 0.03), wood) for i in range(1, 6)]
        back = ((depth / 2, 0, 0.0), (0.02, width, height), self.wood())
        self.parts("shelf", x, y, yaw, [*sides, back, *boards])
        for i in rng.sample(range(5), 2) if filled else ():
            size = (0.28, rng.uniform(0.3, 0.9) * width, rng.uniform(0.4, 0.9) * height / 5 - 0.03)
            self.parts("box", x, y, yaw, [((0, 0, i * height / 5 + 0.03), size, self.material())])

    def carton(self, x, y, yaw) -> None:
        """A carton of a common size, perhaps another one on it."""
        rng = self.rng
        size = rng.choice(((0.3, 0.3, 0.25), (0.4, 0.3, 0.3), (0.6, 0.4, 0.4), (0.5, 0.5, 0.5)))
        self.box("box", x, y, 0.0, size, yaw, self.material((PLAIN, STRIPES, NOISE, CHECKS)))
        if rng.random() < 0.4:
            smaller, turned = [s * 0.8 for s in size], yaw + rng.uniform(-0.4, 0.4)
            self.box("box", x, y, size[2], smaller, turned, self.material((PLAIN, STRIPES)))

    def thing(self, x, y) -> None:
        """A bin, a ball or a plant."""
        rng, choice = self.rng, self.rng.random()
        if choice < 0.4:
            self.cylinder("thing", x, y, 0.0, rng.uniform(0.14, 0.2), rng.uniform(0.35, 0.6))
        elif choice < 0.65:
            radius = rng.uniform(0.11, 0.25)
            self.sphere("thing", x, y, radius, radius)
        else:
            self.cylinder("thing", x, y, 0.0, 0.17, 0.35, self.material((PLAIN,)))
            self.sphere("thing", x, y, 0.65, rng.uniform(0.25, 0.4), (([0.15, 0.4, 0.15], [0.1, 0.25, 0.1]), NOISE, 0.12))

    def person(self, x, y) -> None:
        """Legs, a body and a head: 1.6 to 1.9 m."""
        scale = self.rng.uniform(1.6, 1.9) / 1.75
        trousers, shirt = self.material((PLAIN,), 0.05, 0.5), self.material((PLAIN, STRIPES, NOISE))
        skin = (([0.8, 0.6, 0.5], [0.6, 0.4, 0.3]), PLAIN, 1.0)
        for side in (-0.09, 0.09):
            self.cylinder("person", x, y + side, 0.0, 0.075 * scale, 0.85 * scale, trousers)
        self.cylinder("person", x, y, 0.85 * scale, 0.19 * scale, 0.6 * scale, shirt)
        self.sphere("person", x, y, 1.6 * scale, 0.13 * scale, skin)

    def crates(self, x, y, yaw) -> None:
        """One to three large boxes of any size, each on top of the last or leaning beside it."""
        rng, top = self.rng, 0.0
        for _ in range(rng.randint(1, 3)):
            size = rng.uniform(0.5, 1.5), rng.uniform(0.4, 1.2), rng.uniform(0.4, 1.3)
            dx, dy = rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3)
            self.box("box", x + dx, y + dy, top, size, yaw + rng.uniform(-0.1, 0.1), self.material())
            top = rng.choice((0.0, top + size[2]))

    def shelter(self, x, y, yaw) -> None:
        """A roof on posts with a bench below: a bus stop, a stall."""
        rng, steel = self.rng, self.material((PLAIN,), 0.1, 0.7)
        lx, ly, height = rng.uniform(1.5, 3.5), rng.uniform(1.0, 1.6), rng.uniform(2.1, 2.8)
        posts = [((sx * lx / 2, sy * ly / 2, 0.0), (0.08, 0.08, height), steel) for sx in (-1, 1) for sy in (-1, 1)]
        roof = (0, 0, height), (lx + 0.4, ly + 0.4, 0.1), self.material()
        bench = (0, 0, 0.4), (lx * 0.8, 0.4, 0.06), self.wood()
        self.parts("pillar", x, y, yaw, [*posts, roof, bench])

    def stairs(self, x, y, yaw, width, steps=7) -> None:
        """Steps of 17 by 28 cm that rise along yaw."""
        material, rise, going = self.material((PLAIN, NOISE, WOOD, CHECKS)), 0.17, 0.28
        length = steps * going
        boxes = [(((i * going) / 2, 0, i * rise), (length - i * going, width, rise), material) for i in range(steps)]
        self.parts("stairs", x + length / 2 * math.cos(yaw), y + length / 2 * math.sin(yaw), yaw, boxes)

    def door(self, x, y, yaw) -> None:
        """A leaf of 0.9 by 2 m in a frame; yaw is its normal's."""
        frame, leaf = self.wood(), self.material((PLAIN, WOOD))
        jambs = [((0, s * 0.49, 0.0), (0.14, 0.08, 2.08), frame) for s in (-1, 1)]
        lintel, panel = ((0, 0, 2.0), (0.14, 0.9, 0.08), frame), ((0, 0, 0.0), (0.08, 0.9, 2.0), leaf)
        handle = ((0, 0.36, 1.03), (0.2, 0.1, 0.03), self.material((PLAIN,), 0.05, 0.3))
        self.parts("door", x, y, yaw, [panel, *jambs, lintel, handle])

    def window(self, x, y, yaw) -> None:
        """A bright pane whose sill is at 0.9 m."""
        pane = self.material((PLAIN,), 0.85, 1.0, 0.3)
        self.parts("window", x, y, yaw, [((0, 0, 0.9), (0.06, self.rng.choice((0.8, 1.2, 1.8)), 1.2), pane)])

    def car(self, x, y, yaw=0.0) -> None:
        """A body, a cabin and four wheels; 4.2 m long."""
        paint, dark = self.material((PLAIN,)), (([0.08] * 3, [0.05] * 3), PLAIN, 1.0)
        wheels = [((sx * 1.3, sy * 0.8, 0.0), (0.6, 0.2, 0.6), dark) for sx in (-1, 1) for sy in (-1, 1)]
        body, roof = ((0, 0, 0.3), (4.2, 1.75, 0.55), paint), ((-0.2, 0, 1.2), (1.9, 1.5, 0.12), paint)
        glass = ((-0.2, 0, 0.85), (2.2, 1.55, 0.35), (([0.15, 0.18, 0.2], [0.1, 0.1, 0.12]), PLAIN, 1.0))
        self.parts("car", x, y, yaw, [body, glass, roof, *wheels])

    def tree(self, x, y) -> None:
        """A trunk and a crown of one to three spheres."""
        rng, bark = self.rng, (([0.35, 0.25, 0.15], [0.2, 0.14, 0.1]), NOISE, 0.12)
        green = ([0.1, rng.uniform(0.3, 0.5), 0.1], [0.05, 0.2, 0.05]), NOISE, 0.25
        self.cylinder("tree", x, y, 0.0, 0.14, 2.4, bark)
        for _ in range(rng.randint(1, 3)):
            dx, dy, z = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(2.6, 3.4)
            self.sphere("tree", x + dx, y + dy, z, rng.uniform(0.7, 1.2), green)

    def furnish(self, x: float, y: float, reach: float = 0.3) -> None:
        """Something that stands on the floor at (x, y), if there is room for it."""
        rng, yaw = self.rng, self.rng.uniform(0, 2 * math.pi)
        choice = rng.random()
        if choice < 0.2 and self.free(x, y, 0.9 + reach):
            self.table(x, y, yaw)
            for side in (-1, 1):
                if rng.random() < 0.6:
                    self.chair(x - side * 0.6 * math.sin(yaw), y + side * 0.6 * math.cos(yaw), yaw - side * math.pi / 2)
        elif choice < 0.4 and self.free(x, y, 0.3 + reach):
            self.chair(x, y, yaw)
        elif choice < 0.65 and self.free(x, y, 0.3 + reach):
            self.carton(x, y, yaw)
        elif choice < 0.85 and self.free(x, y, 0.3 + reach):
            self.thing(x, y)
        elif choice >= 0.85 and self.free(x, y, 0.3 + reach):
            self.person(x, y)

    # -- camera and result --------------------------------------------------------------------------------------

    def camera(self, x: float, y: float, yaw: float) -> View:
        """One of the mounts, as far off its drawing as suspensions and screws allow; keeps 0.8 m around it free."""
        rng = self.rng
        height, pitch, fov = rng.choice(MOUNTS)
        self.taken.append((x, y, 0.8))
        height, pitch = height * rng.uniform(0.95, 1.05), math.radians(pitch + rng.uniform(-1.5, 1.5))
        one = lambda value: torch.tensor([value], dtype=torch.float32)  # noqa: E731
        return View(one([x, y, height]), one(yaw), one(pitch), one(focal_from_fov(fov)))

    def scene(self) -> Scene:
        """What has been collected, as a batch of one."""
        spare = (BOX, (0, 0, -1e3), (0, 0, 0), 0.0, 0, ((0, 0, 0), (0, 0, 0)), PLAIN, 1.0)
        rows = self.rows + [spare] * (MAX_PRIMITIVES - len(self.rows))
        kind, centre, size, yaw, label, colour, texture, period = (torch.tensor([column]) for column in zip(*rows))
        return Scene(
            kind, centre.float(), size.float(), yaw.float(), label, colour.float(), texture, period.float(),
            torch.tensor([self.light]), torch.tensor([self.light_colour]), torch.tensor([self.ambient]),
            torch.tensor([self.outdoor]), torch.tensor([self.sky]), torch.tensor([self.fog]),
        )  # fmt: skip
