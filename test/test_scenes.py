# SPDX-License-Identifier: Apache-2.0
"""Procedural scenes are exact: depth, normals and labels are where geometry says, and the generator is frozen."""

import math
import random

import numpy as np
import pytest
import torch

from depth_anything_ros.demo import raycast
from depth_anything_ros.demo.builder import Builder
from depth_anything_ros.demo.families import FAMILIES, HELD_OUT_FAMILY, HELD_OUT_SEED, random_batch, random_scene
from depth_anything_ros.demo.photograph import photograph
from depth_anything_ros.demo.raycast import render
from depth_anything_ros.demo.scenes import BOX, CYLINDER, LABELS, SPHERE, VERSION, View
from depth_anything_ros.demo.sources import photographed_scene

EVERY_FAMILY = (*FAMILIES, HELD_OUT_FAMILY)


def looking_ahead(height, pitch=0.0, fov=70.0):
    focal = 0.5 / math.tan(math.radians(fov) / 2)
    return View(torch.tensor([[0.0, 0.0, height]]), torch.tensor([0.0]), torch.tensor([pitch]), torch.tensor([focal]))


def scene_of(*primitives):
    """A hall of 40 x 40 x 10 m and what stands in it, 5 m ahead."""
    builder = Builder(random.Random(0))
    builder.box("wall", 0, 0, 0, (40, 40, 10))
    for kind, centre, size in primitives:
        builder.add(kind, "thing", centre, size)
    return builder.scene()


def points_of(view, depth):
    """World points (H, W, 3) of a depth image: u to the right, v down, x forward, y left, z up, pitch downwards."""
    height, width = depth.shape
    focal, pitch, yaw = float(view.focal) * width, float(view.pitch), float(view.yaw)
    v, u = np.mgrid[0:height, 0:width]
    optical = np.stack([(u - (width - 1) / 2) / focal, (v - (height - 1) / 2) / focal, np.ones((height, width))], -1)
    right, down = np.array([math.sin(yaw), -math.cos(yaw), 0]), np.array([0.0, 0, -1])
    ahead = np.array([math.cos(yaw), math.sin(yaw), 0])
    forward = math.cos(pitch) * ahead + math.sin(pitch) * down
    below = math.cos(pitch) * down - math.sin(pitch) * ahead
    return (optical * np.minimum(depth, 1e6)[..., None]) @ np.stack([right, below, forward]) + view.position[0].numpy()


@pytest.mark.parametrize("pitch", [0.0, 0.3])
def test_floor_and_wall_are_where_geometry_says(pitch):
    """Along z, the floor under pixel v is at h / (sin p + y cos p), the far wall at 20 / (cos p - y sin p)."""
    view, width, height = looking_ahead(1.5, pitch), 64, 48
    depth = render(scene_of(), view, width, height).depth
    y = (np.arange(height) - (height - 1) / 2) / (float(view.focal) * width)
    with np.errstate(divide="ignore"):
        floor = 1.5 / (math.sin(pitch) + y * math.cos(pitch))
        ceiling = 8.5 / -(math.sin(pitch) + y * math.cos(pitch))
    wall = 20 / (math.cos(pitch) - y * math.sin(pitch))
    expected = np.min([np.where(d > 0, d, np.inf) for d in (floor, ceiling, wall)], axis=0)
    middle = depth[0, :, width // 2].numpy()
    np.testing.assert_allclose(middle, expected, rtol=1e-4)


@pytest.mark.parametrize("kind, nearest", [(BOX, 4.5), (CYLINDER, 4.5), (SPHERE, 4.5)])
def test_things_stand_where_they_were_put(kind, nearest):
    seen = render(scene_of((kind, (5.0, 0.0, 1.0), (0.5, 0.5, 0.5))), looking_ahead(1.0), 65, 49)
    assert float(seen.depth[0, 24, 32]) == pytest.approx(nearest, abs=2e-3)
    assert seen.normal[0, 24, 32].numpy() == pytest.approx([-1, 0, 0], abs=2e-3)
    assert LABELS[int(seen.label[0, 24, 32])] == "thing" and LABELS[int(seen.label[0, 24, 2])] == "wall"
    focal = looking_ahead(1.0).focal.item() * 65
    y = (np.arange(49) - 24) / focal
    inside = (seen.depth[0, :, 32].numpy() < 6) & (np.abs(y) < 0.15)  # the floor comes nearer than 6 m only below that
    assert inside.sum() / focal == pytest.approx(1.0 / (nearest if kind != SPHERE else 4.975), abs=0.04)


def test_a_wrong_ray_would_be_noticed(monkeypatch):
    """The negative control: rays of length 1 instead of depth 1 along z give ranges, not depth."""
    true_rays = raycast.rays
    monkeypatch.setattr(raycast, "rays", lambda *a: (true_rays(*a)[0], torch.nn.functional.normalize(true_rays(*a)[1], dim=-1)))
    depth = render(scene_of(), looking_ahead(1.5), 64, 48).depth
    assert float((depth[0, 24, 0] / 20 - 1).abs()) > 0.1


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_normals_and_labels_agree_with_depth(family):
    """The cross product of neighbouring points is the normal of a plane; ground is at z = 0, and nothing is below it."""
    for seed in (3, 4):
        scene, view = random_scene(seed, family)
        seen = render(scene, view, 160, 120)
        depth, normal, label = seen.depth[0].numpy(), seen.normal[0].numpy(), seen.label[0].numpy()
        points = points_of(view, depth.astype(np.float64))
        sky = label == LABELS.index("sky")
        assert np.array_equal(np.isinf(depth), sky) and not normal[sky].any()
        assert np.allclose(np.linalg.norm(normal[~sky], axis=-1), 1, atol=1e-5)
        towards_camera = ((view.position[0].numpy() - points)[~sky] * normal[~sky]).sum(-1)
        assert (towards_camera > -1e-4).mean() > 0.999
        assert points[~sky][:, 2].min() > -1e-3
        assert np.abs(points[label == LABELS.index("ground")][:, 2] - 0.005).max() < 0.007  # floors of rooms are 1 cm thick
        with np.errstate(invalid="ignore"):
            across = np.cross(points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1])
        flat = np.ones_like(label[1:-1, 1:-1], bool)
        for dv, du in ((0, 1), (2, 1), (1, 0), (1, 2)):
            neighbour = normal[dv : dv + 118, du : du + 158]
            flat &= (np.abs(neighbour - normal[1:-1, 1:-1]).max(-1) < 1e-6) & ~sky[dv : dv + 118, du : du + 158]
        across = across[flat] / np.linalg.norm(across[flat], axis=-1, keepdims=True)
        assert flat.mean() > 0.3
        assert np.quantile(np.abs((across * normal[1:-1, 1:-1][flat]).sum(-1)), 0.1) > 0.999


def test_every_thing_of_the_list_is_seen_somewhere():
    seen = {family: set() for family in EVERY_FAMILY}
    for family in EVERY_FAMILY:
        rendering = render(*random_batch(list(range(40)), family), 64, 48, shadows=False)
        seen[family] = {LABELS[i] for i in rendering.label.unique().tolist()}
    assert set().union(*seen.values()) == set(LABELS)
    assert {"car", "tree", "building", "kerb", "sky", "person"} <= seen["street"]
    assert {"pillar", "stairs"} <= seen["hall"] and {"door", "stairs"} <= seen["corridor"]
    assert {"table", "chair", "shelf", "window", "ceiling"} <= seen["room"]
    assert "sky" not in seen["room"] | seen["corridor"] | seen["hall"] | seen["warehouse"]


def test_tiles_leave_nothing_out(monkeypatch):
    """The same image, bit by bit, as when every ray is tried against every primitive, also at odd sizes."""
    scene, view = random_batch([1, 2, 3])
    for size in ((96, 64), (65, 49), (37, 53)):
        quick = render(scene, view, *size)
        with monkeypatch.context() as patched:
            patched.setattr(raycast, "_within_cone", lambda apex, seen, centre, radius: radius >= 0)
            slow = render(scene, view, *size)
        for name in ("rgb", "depth", "normal", "label"):
            assert torch.equal(getattr(quick, name), getattr(slow, name)), name
    true_cone = raycast._within_cone
    monkeypatch.setattr(raycast, "_within_cone", lambda apex, seen, centre, radius: true_cone(apex, seen, centre, radius / 4))
    assert not torch.equal(render(scene, view, 37, 53).depth, slow.depth)  # the negative control: cones too narrow


def test_scenes_are_the_same_for_the_same_seed():
    one, two = render(*random_batch([5, 6]), 32, 24), render(*random_batch([5, 6]), 32, 24)
    assert torch.equal(one.rgb, two.rgb) and torch.equal(one.depth, two.depth)
    assert not torch.equal(one.depth[0], one.depth[1])
    alone = render(*random_scene(6), 32, 24)
    assert torch.allclose(alone.depth[0], one.depth[1], rtol=1e-5)
    for family in EVERY_FAMILY:
        seen = render(*random_scene(1, family), 32, 24)
        assert seen.rgb.shape == (1, 24, 32, 3) and seen.rgb.min() >= 0 and seen.rgb.max() <= 1
        assert float(seen.depth.min()) > 0.05
    with pytest.raises(ValueError, match="unknown scene family 'attic', expected one of room"):
        random_scene(1, "attic")


def test_the_held_out_family_is_never_drawn():
    """Posts of racks are 4 m high; no shelf of any other family is."""
    racks = 0
    for seed in range(300):
        scene, _ = random_scene(seed)
        racks += bool(((scene.label == LABELS.index("shelf")) & (scene.size[..., 2] > 1.9)).any())
    assert racks == 0 and HELD_OUT_FAMILY not in FAMILIES
    scene, _ = random_scene(0, HELD_OUT_FAMILY)
    assert ((scene.label == LABELS.index("shelf")) & (scene.size[..., 2] > 1.9)).any()


def test_a_camera_changes_light_and_sharpness_but_not_places():
    scene, view = random_batch([1, 2])
    images = render(scene, view, 96, 64).rgb.permute(0, 3, 1, 2)
    first, again = (photograph(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again) and first.min() >= 0 and first.max() <= 1
    assert not torch.equal(first, photograph(images, torch.Generator().manual_seed(4)))
    twice = photograph(images[:1].expand(6, -1, -1, -1), torch.Generator().manual_seed(5), one_camera=True)
    apart = photograph(images[:1].expand(6, -1, -1, -1), torch.Generator().manual_seed(5))
    assert not torch.equal(twice[0], twice[1])  # noise
    assert twice.mean((1, 2, 3)).std() < 1e-3 < apart.mean((1, 2, 3)).std()
    shot = photographed_scene(HELD_OUT_SEED, "street", 64, 48)
    assert shot.rgb.shape == (48, 64, 3) and shot.rgb.dtype == np.uint8 and np.isinf(shot.depth).any()


FROZEN = {  # family: mean depth nearer than 20 m, mean brightness
    "room": (2.6829, 0.3275),
    "corridor": (4.5284, 0.4352),
    "hall": (4.3843, 0.2324),
    "street": (4.2927, 0.4520),
    "jumble": (2.0237, 0.3502),
    "warehouse": (5.2883, 0.3289),
}


def test_the_generator_is_frozen():
    """Figures are of a version: whoever changes what is rendered must raise VERSION, measure anew, and change this."""
    assert VERSION == 2
    measured = {}
    for family in EVERY_FAMILY:
        seen = render(*random_scene(HELD_OUT_SEED + 7, family), 64, 48)
        near = seen.depth < 20
        measured[family] = (float(seen.depth[near].mean()), float(seen.rgb.mean()))
    assert {family: pytest.approx(values, rel=2e-3) for family, values in FROZEN.items()} == measured
