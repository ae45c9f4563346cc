# SPDX-License-Identifier: Apache-2.0
"""Random scenes by family and seed: rooms, corridors, halls, streets, jumbles, and warehouses, which are never trained on."""

from __future__ import annotations

import math
import random

from .builder import Builder
from .scenes import BRICKS, CHECKS, NOISE, PLAIN, STRIPES, Scene, View, stack

HELD_OUT_SEED = 10_000_000  # scenes from here on are never used in training
PANELS = (CHECKS, PLAIN)  # of ceilings


def random_scene(seed: int, family: str | None = None) -> tuple[Scene, View]:
    """One scene and one robot's view of it, the same for the same seed (B = 1).

    Args:
        seed: any integer; from `HELD_OUT_SEED` on never used in training.
        family: one of `FAMILIES` or `HELD_OUT_FAMILY`; by default the seed chooses: half of all are jumbles.
    """
    builder = Builder(random.Random(seed))
    family = family or builder.rng.choice((*PLACES, *["jumble"] * len(PLACES)))
    if family not in _BUILD:
        raise ValueError(f"unknown scene family '{family}', expected one of {', '.join(_BUILD)}")
    view = _BUILD[family](builder)
    return builder.scene(), view


def random_batch(seeds: list[int], family: str | None = None) -> tuple[Scene, View]:
    """`len(seeds)` scenes and views stacked into one batch."""
    scenes, views = zip(*(random_scene(seed, family) for seed in seeds))
    return stack(scenes), stack(views)


def _shell(b: Builder, x: float, length: float, width: float, height: float) -> None:
    """Walls around (x, 0), a floor and a ceiling of their own materials, and a lamp under the ceiling."""
    b.box("wall", x, 0, 0, (length, width, height), 0.0, b.walls())
    b.box("ground", x, 0, 0, (length, width, 0.01), 0, b.floor())
    b.box("ceiling", x, 0, height - 0.01, (length, width, 0.01), 0, b.material(PANELS, 0.6, 0.95, 0.3))
    rng = b.rng
    b.light = (x + rng.uniform(-0.35, 0.35) * length, rng.uniform(-0.35, 0.35) * width, height - 0.2)
    b.light_colour = (rng.uniform(0.95, 1.15), 1.0, rng.uniform(0.8, 1.1))
    b.ambient = rng.uniform(0.35, 0.65)


def _open_air(b: Builder) -> None:
    """Ground without end, sky, sun, and sometimes fog."""
    rng = b.rng
    b.outdoor, b.sky = True, (rng.uniform(0.5, 0.8), rng.uniform(0.6, 0.85), rng.uniform(0.75, 1.0))
    b.fog = rng.choice((0.0, 0.0, rng.uniform(0.005, 0.03)))
    b.box("ground", 0, 0, 0, (400, 400, 400), 0.0, b.material((NOISE, NOISE, PLAIN), 0.25, 0.5, 0.3))
    b.light = (rng.uniform(-60, 60), rng.uniform(-60, 60), 80.0)
    b.light_colour = (rng.uniform(0.95, 1.1), 1.0, rng.uniform(0.85, 1.05))
    b.ambient = rng.uniform(0.4, 0.7)


def _openings(b: Builder, length: float, width: float) -> None:
    """Doors and windows in the far wall and the side walls of a room that reaches from -length / 2 to length / 2."""
    rng = b.rng
    for x, y, yaw in (
        (length / 2, rng.uniform(-width / 2 + 0.8, width / 2 - 0.8), 0.0),
        (rng.uniform(-1, length / 2 - 1), width / 2, math.pi / 2),
        (rng.uniform(-1, length / 2 - 1), -width / 2, math.pi / 2),
    ):
        choice = rng.random()
        if choice < 0.45:
            b.door(x, y, yaw)
        elif choice < 0.75:
            b.window(x, y, yaw)


def _room(b: Builder) -> View:
    rng = b.rng
    length, width, height = rng.uniform(4, 8), rng.uniform(3.5, 6), rng.choice((2.4, 2.5, 2.7, 3.0, 3.5))
    _shell(b, 0, length, width, height)
    x, yaw = -length / 2 + rng.uniform(0.4, 1.2), rng.uniform(-0.45, 0.45)
    view = b.camera(x, rng.uniform(-0.6, 0.6), yaw)
    _openings(b, length, width)
    for side in (-1, 1):
        along = rng.uniform(-0.5, length / 2 - 0.7)
        if rng.random() < 0.5 and b.free(along, side * (width / 2 - 0.2), 0.5):
            b.shelf(along, side * (width / 2 - 0.2), side * math.pi / 2)
    px, py = rng.uniform(0, length / 2 - 1), rng.uniform(-width / 2 + 0.8, width / 2 - 0.8)
    if rng.random() < 0.3 and b.free(px, py, 1.0):
        b.crates(px, py, rng.uniform(0, math.pi))
    for _ in range(rng.randint(3, 8)):
        distance, angle = rng.uniform(1.0, length - 1.0), yaw + rng.uniform(-0.6, 0.6)
        px, py = x + distance * math.cos(angle), distance * math.sin(angle)
        if abs(py) < width / 2 - 0.4 and px < length / 2 - 0.4:
            b.furnish(px, py, 0.15)
    return view


def _corridor(b: Builder) -> View:
    rng = b.rng
    length, width, height = rng.uniform(8, 22), rng.uniform(1.6, 3.5), rng.choice((2.4, 2.5, 2.7, 3.0, 4.0, 5.5))
    _shell(b, length / 2 - 1, length, width, height)
    view = b.camera(0.0, rng.uniform(-0.3, 0.3), rng.uniform(-0.25, 0.25))
    library = width > 2.2 and rng.random() < 0.5
    for side in (-1, 1):
        x = rng.uniform(1.0, 3.0)
        if library:
            for _ in range(3):
                b.shelf(x, side * (width / 2 - 0.2), side * math.pi / 2, filled=True)
                x += rng.choice((1.0, 1.1, 1.8))
        while x < min(length - 1.6, 11):
            b.door(x, side * width / 2, math.pi / 2)
            x += rng.choice((2.5, 3.0, 4.0, 6.0))
    if rng.random() < 0.35:
        b.stairs(length - 1 - 7 * 0.28, 0, 0.0, width)
    elif rng.random() < 0.6:
        b.door(length - 1, rng.uniform(-0.3, 0.3), 0.0)
    for _ in range(rng.randint(0, 4)):
        b.furnish(rng.uniform(1.5, min(9.0, length - 3)), rng.choice((-1, 1)) * (width / 2 - 0.3), 0.0)
    return view


def _hall(b: Builder) -> View:
    rng = b.rng
    length, width, height = rng.uniform(9, 17), rng.uniform(6, 14), rng.uniform(2.7, 5.5)
    _shell(b, 0, length, width, height)
    x = -length / 2 + rng.uniform(0.6, 1.5)
    view = b.camera(x, rng.uniform(-1.0, 1.0), rng.uniform(-0.4, 0.4))
    spacing, radius, material = rng.choice((3.0, 4.0)), rng.uniform(0.15, 0.35), b.walls()
    round_, offset = rng.random() < 0.6, rng.uniform(1.2, 2.2)
    for row in (-1, 1):
        along = x + rng.uniform(1.0, 3.0)
        while along < length / 2 - 0.5:
            if b.free(along, row * offset, radius):
                if round_:
                    b.cylinder("pillar", along, row * offset, 0.0, radius, height, material)
                else:
                    b.box("pillar", along, row * offset, 0.0, (2 * radius, 2 * radius, height), 0.0, material)
            along += spacing
    _openings(b, length, width)
    if rng.random() < 0.4:
        b.stairs(length / 2 - 7 * 0.28, rng.uniform(-2, 2), 0.0, rng.uniform(1.2, 3.0))
    for _ in range(rng.randint(0, 3)):
        px, py, yaw = x + rng.uniform(1.5, length - 2), rng.uniform(-width / 2 + 1, width / 2 - 1), rng.uniform(0, math.pi)
        if b.free(px, py, 1.3):
            b.crates(px, py, yaw) if rng.random() < 0.7 else b.shelter(px, py, yaw)
    if rng.random() < 0.4:  # beams across, below the ceiling
        beam = b.material((PLAIN, NOISE))
        for along in range(4):
            b.box("ceiling", x + 1.5 + 3 * along, 0, height - 0.4, (0.3, width, 0.4), 0, beam)
    for _ in range(rng.randint(2, 6)):
        b.furnish(x + rng.uniform(1.5, 7), rng.uniform(-3.5, 3.5))
    return view


def _street(b: Builder) -> View:
    rng = b.rng
    _open_air(b)
    road = rng.uniform(5, 8)
    view = b.camera(0.0, rng.uniform(-road / 4, road / 4), rng.uniform(-0.25, 0.25))
    for side in (-1, 1):
        kerb = rng.uniform(1.5, 2.5)
        paving = b.material((NOISE, CHECKS), 0.4, 0.7, 0.3)
        b.box("kerb", 50, side * (road / 2 + kerb / 2), 0, (120, kerb, 0.13), 0, paving)
        x = rng.uniform(-3, 2)
        for _ in range(4):
            deep, front, height = rng.uniform(5, 9), rng.uniform(6, 12), rng.choice((3.0, 6.0, 9.0))
            y = side * (road / 2 + kerb + deep / 2)
            facade = b.material((BRICKS, BRICKS, PLAIN, NOISE, STRIPES), 0.3, 0.9, 0.6)
            b.box("building", x + front / 2, y, 0, (front, deep, height), 0, facade)
            b.box("door", x + front / 2, y - side * deep / 2, 0, (0.9, 0.1, 2.0), 0, b.wood())
            x += front + rng.choice((0.0, 0.0, 2.0))
        for _ in range(rng.randint(0, 2)):
            x, y = rng.uniform(3, 14), side * (road / 2 + 0.5)
            if b.free(x, y, 1.0):
                b.tree(x, y) if rng.random() < 0.6 else b.cylinder("pillar", x, y, 0.0, 0.07, 4.5)
        x, y = rng.uniform(3, 14), side * (road / 2 + 0.9)
        if rng.random() < 0.35 and b.free(x, y, 2.0):
            b.shelter(x, y, 0.0)
    for _ in range(rng.randint(1, 3)):
        x, y = rng.uniform(4, 15), rng.choice((-1, 1)) * (road / 2 - 1.0)
        if b.free(x, y, 2.3):
            b.car(x, y, rng.choice((0.0, math.pi)))
    for _ in range(rng.randint(0, 3)):
        x, y = rng.uniform(2, 9), rng.uniform(-road / 2, road / 2)
        if b.free(x, y, 0.4):
            b.person(x, y) if rng.random() < 0.6 else b.carton(x, y, rng.uniform(0, math.pi))
    if rng.random() < 0.4:
        x, y = rng.uniform(3, 12), rng.uniform(-road / 2, road / 2)
        if b.free(x, y, 1.3):
            b.crates(x, y, rng.uniform(0, math.pi))
    return view


def _jumble(b: Builder) -> View:
    """Things of no kind, of any size, anywhere, some of them in rows: geometry that no habit helps with."""
    rng = b.rng
    ceiling = 6.0
    if rng.random() < 0.5:
        length, width, ceiling = rng.uniform(6, 18), rng.uniform(4, 12), rng.uniform(2.6, 6)
        _shell(b, length / 2 - 1, length, width, ceiling)
    else:
        _open_air(b)
    view = b.camera(0.0, 0.0, rng.uniform(-0.3, 0.3))
    if rng.random() < 0.6:
        for side in (-1, 1):
            parts = [_any_size(rng, ceiling) for _ in range(rng.randint(1, 4))]
            spacing, y, start = rng.uniform(1.2, 3.5), side * rng.uniform(1.2, 3.0), rng.uniform(0.5, 2.5)
            stuff = [b.material() for _ in parts]
            for place in range(4):
                for (size, z), material in zip(parts, stuff):
                    deep = y + side * size[1] / 2
                    b.box("thing", start + place * spacing + size[0] / 2, deep, z, size, 0.0, material)
    for _ in range(rng.randint(4, 16)):
        distance, angle = 1.0 * 14 ** rng.random(), float(view.yaw) + rng.uniform(-0.7, 0.7)
        x, y, yaw = distance * math.cos(angle), distance * math.sin(angle), rng.uniform(0, math.pi)
        size, z = _any_size(rng, ceiling)
        if distance < 0.7 + max(size[:2]) / 2:
            continue
        if rng.random() < 0.75:
            b.box("thing", x, y, z, size, yaw)
        elif rng.random() < 0.5:
            b.cylinder("thing", x, y, z, size[0] / 2, size[2])
        else:
            radius = min(size) / 2
            b.sphere("thing", x, y, z + radius, radius)
    return view


def _any_size(rng: random.Random, ceiling: float) -> tuple[tuple[float, float, float], float]:
    """Full size of a block, a slab, a post or a panel, and the height of its underside."""
    kind = rng.choice(("block", "slab", "post", "panel"))
    height = min(0.2 * 15 ** rng.random(), ceiling)
    if kind == "block":
        return (0.15 * 15 ** rng.random(), 0.15 * 15 ** rng.random(), height), 0.0
    if kind == "slab":
        return (rng.uniform(0.4, 3.5), rng.uniform(0.3, 2.0), rng.uniform(0.03, 0.2)), rng.uniform(0.05, ceiling - 0.3)
    if kind == "post":
        side = rng.uniform(0.05, 0.4)
        return (side, side, rng.uniform(1.0, ceiling)), 0.0
    return (rng.uniform(0.05, 0.2), rng.uniform(0.8, 4.0), max(height, 0.6)), 0.0


def _warehouse(b: Builder) -> View:
    """An aisle between racks with goods on them, in a hall."""
    rng = b.rng
    length, aisle, height = rng.uniform(12, 18), rng.uniform(2.2, 3.4), rng.uniform(4.5, 6.0)
    width = aisle + 2 * 1.1 + rng.uniform(0.0, 4.0)
    _shell(b, length / 2 - 1, length, width, height)
    view = b.camera(0.0, rng.uniform(-0.4, 0.4), rng.uniform(-0.25, 0.25))
    steel, beam = b.material((PLAIN,), 0.1, 0.6), b.material((PLAIN,), 0.3, 0.9)
    for side in (-1, 1):
        y, x = side * (aisle / 2 + 0.55), rng.uniform(0.5, 1.5)
        for bay in range(3):
            b.box("shelf", x + 2.8 * bay, y - side * 0.5, 0.0, (0.1, 0.1, 4.0), 0.0, steel)
            b.box("shelf", x + 2.8 * bay, y + side * 0.5, 0.0, (0.1, 0.1, 4.0), 0.0, steel)
            middle = x + 2.8 * bay + 1.4
            for level in (0.1, 1.6, 3.1):
                b.box("shelf", middle, y, level, (2.7, 1.1, 0.1), 0.0, beam)
                load = rng.choice((0.0, 0.8, 1.1))
                if load and level < 3:
                    goods = rng.uniform(1.0, 2.5), 1.0, load
                    b.box("box", middle, y, level + 0.1, goods, 0.0, b.material((PLAIN, STRIPES, CHECKS)))
    b.door(length - 1, 0.0, 0.0)
    for _ in range(rng.randint(0, 3)):
        b.furnish(rng.uniform(1.5, 8), rng.uniform(-aisle / 2 + 0.3, aisle / 2 - 0.3), 0.0)
    return view


HELD_OUT_FAMILY = "warehouse"
_PLACES = {"room": _room, "corridor": _corridor, "hall": _hall, "street": _street}
PLACES = tuple(_PLACES)  # what the embedded model is for
FAMILIES = (*PLACES, "jumble")  # what it is trained on
_BUILD = {**_PLACES, "jumble": _jumble, HELD_OUT_FAMILY: _warehouse}
