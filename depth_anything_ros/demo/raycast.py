# SPDX-License-Identifier: Apache-2.0
"""Ray casting of procedural scenes: an image and its exact depth, on any device.

Every ray is `origin + t * direction` with a direction whose component along the optical axis is 1, so t *is* the depth
in metres along z (REP-118), with no conversion that could hide an error.
"""

from __future__ import annotations

import torch

from .scenes import BOX, BRICKS, CHECKS, CYLINDER, MAX_PRIMITIVES, NOISE, SPHERE, STRIPES, WOOD, Scene, View

FAR = 1e6  # depth of a ray that meets nothing; becomes +Inf in the result
_NEAR = 1e-3


def render(scene: Scene, view: View, width: int, height: int, shadows: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and exact depth of a batch of scenes.

    Returns:
        rgb (B, height, width, 3) float32 in [0, 1], and depth (B, height, width) float32: metres along the optical
        axis, +Inf where the sky is. Pixel centres lie at whole coordinates and the principal point at
        ((width - 1) / 2, (height - 1) / 2); the focal length is `view.focal * width` pixels.
    """
    origin, direction = rays(view, width, height)
    depth, hit = _nearest(scene, origin, direction)
    point = origin + depth[..., None] * direction
    normal, surface = _surface(scene, hit, point)
    pixels_per_metre = view.focal[:, None] * width / depth
    albedo = _albedo(scene, hit, surface, pixels_per_metre)

    to_light = scene.light[:, None] - point
    reach = to_light.norm(dim=-1).clamp_min(1e-3)
    lambert = ((normal * to_light).sum(-1) / reach).clamp_min(0)
    falloff = torch.where(scene.outdoor[:, None], 1.0, 1.6 / (1 + (reach / 3) ** 2))
    if shadows:
        start = point + normal * 1e-3
        blocked, _ = _nearest(scene, start, scene.light[:, None] - start, skip_shell=True)
        lambert = torch.where(blocked < 1.0, 0.25 * lambert, lambert)
    ambient = scene.ambient[:, None]
    rgb = albedo * (ambient + (1 - ambient) * 1.5 * lambert * falloff)[..., None]

    missed = scene.outdoor[:, None] & ((depth >= FAR) | ((hit == 0) & (normal[..., 2] < 0.5)))
    rgb = torch.where(missed[..., None], scene.sky[:, None], rgb).clamp(0, 1)
    depth = torch.where(missed, torch.inf, depth)
    return rgb.view(-1, height, width, 3), depth.view(-1, height, width)


def rays(view: View, width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Origins (B, 1, 3) and directions (B, height * width, 3) in the world, each direction of length 1 along z."""
    device = view.focal.device
    u = torch.arange(width, device=device, dtype=torch.float32) - (width - 1) / 2
    v = torch.arange(height, device=device, dtype=torch.float32) - (height - 1) / 2
    v, u = (grid.reshape(1, -1) for grid in torch.meshgrid(v, u, indexing="ij"))
    focal = view.focal[:, None] * width
    right, down = u / focal, v / focal
    cos_p, sin_p = torch.cos(view.pitch)[:, None], torch.sin(view.pitch)[:, None]
    cos_y, sin_y = torch.cos(view.yaw)[:, None], torch.sin(view.yaw)[:, None]
    forward, up = cos_p - down * sin_p, -sin_p - down * cos_p  # in the vertical plane of the optical axis
    direction = torch.stack([forward * cos_y + right * sin_y, forward * sin_y - right * cos_y, up], -1)
    return view.position[:, None], direction


def _nearest(scene: Scene, origin, direction, skip_shell: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest t (B, N) along each ray and the index (B, N) of the primitive that it meets."""
    shape = direction.shape[:2]
    best = torch.full(shape, FAR, device=direction.device)
    hit = torch.zeros(shape, dtype=torch.int64, device=direction.device)
    for p in range(1 if skip_shell else 0, MAX_PRIMITIVES):
        used = scene.size[:, p].amax(-1) > 0
        if not bool(used.any()):
            continue
        # Into the primitive's own frame: its centre is the origin and yaw is undone.
        cos, sin = torch.cos(scene.yaw[:, p])[:, None], torch.sin(scene.yaw[:, p])[:, None]
        relative = origin - scene.centre[:, p, None]
        o, d = _turn(relative, cos, sin), _turn(direction, cos, sin)
        kind, size = scene.kind[:, p, None], scene.size[:, p]
        t = torch.full(shape, FAR, device=direction.device)
        box = _leave_box if p == 0 else _hit_box  # the shell is seen from inside
        for which, intersect in ((BOX, box), (CYLINDER, _hit_cylinder), (SPHERE, _hit_sphere)):
            if bool((kind == which).any()):
                t = torch.where(kind == which, intersect(o, d, size), t)
        closer = (t < best) & used[:, None]
        best = torch.where(closer, t, best)
        hit = torch.where(closer, p, hit)
    return best, hit


def _turn(vector, cos, sin):
    x, y, z = vector.unbind(-1)
    return cos * x + sin * y, cos * y - sin * x, z


def _slabs(o, d, size):
    """Where each ray enters and leaves the box."""
    entry, leave = None, None
    for axis in range(3):
        inverse = 1 / torch.where(d[axis].abs() < 1e-9, 1e-9, d[axis])
        half = size[:, axis, None]
        near, far = (-half - o[axis]) * inverse, (half - o[axis]) * inverse
        near, far = torch.minimum(near, far), torch.maximum(near, far)
        entry = near if entry is None else torch.maximum(entry, near)
        leave = far if leave is None else torch.minimum(leave, far)
    return entry, leave


def _hit_box(o, d, size):
    entry, leave = _slabs(o, d, size)
    return torch.where((entry <= leave) & (entry > _NEAR), entry, FAR)


def _leave_box(o, d, size):
    entry, leave = _slabs(o, d, size)
    return torch.where((entry <= leave) & (leave > _NEAR), leave, FAR)


def _hit_cylinder(o, d, size):
    radius, half = size[:, 0, None], size[:, 2, None]
    a = (d[0] ** 2 + d[1] ** 2).clamp_min(1e-12)
    b = o[0] * d[0] + o[1] * d[1]
    disc = b * b - a * (o[0] ** 2 + o[1] ** 2 - radius**2)
    side = (-b - disc.clamp_min(0).sqrt()) / a
    side_ok = (disc > 0) & (side > _NEAR) & ((o[2] + side * d[2]).abs() < half)
    top = (half - o[2]) / torch.where(d[2].abs() < 1e-9, 1e-9, d[2])
    top_ok = (top > _NEAR) & ((o[0] + top * d[0]) ** 2 + (o[1] + top * d[1]) ** 2 < radius**2)
    return torch.minimum(torch.where(side_ok, side, FAR), torch.where(top_ok, top, FAR))


def _hit_sphere(o, d, size):
    a = d[0] ** 2 + d[1] ** 2 + d[2] ** 2
    b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
    disc = b * b - a * (o[0] ** 2 + o[1] ** 2 + o[2] ** 2 - size[:, 0, None] ** 2)
    t = (-b - disc.clamp_min(0).sqrt()) / a
    return torch.where((disc > 0) & (t > _NEAR), t, FAR)


def _pick(values, hit):
    """Per-primitive values (B, P, ...) at each ray's primitive (B, N) -> (B, N, ...)."""
    batch = torch.arange(len(values), device=values.device)[:, None]
    return values[batch, hit]


def _surface(scene: Scene, hit, point):
    """Outward world normal (B, N, 3) and surface coordinates (B, N, 2) in metres of each hit."""
    kind, size, yaw = (_pick(values, hit) for values in (scene.kind, scene.size, scene.yaw))
    cos, sin = torch.cos(yaw), torch.sin(yaw)
    local = torch.stack(_turn(point - _pick(scene.centre, hit), cos, sin), -1)
    x, y, z = local.unbind(-1)

    axis = (local.abs() / size.clamp_min(1e-6)).argmax(-1)
    axis = torch.where((kind == CYLINDER) & (axis != 2), 3, axis)
    axis = torch.where(kind == SPHERE, 4, axis)
    round_side = torch.stack([x, y, torch.zeros_like(z)], -1)
    radial = torch.where((axis == 3)[..., None], round_side, local)
    radial = radial / radial.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    flat = torch.nn.functional.one_hot(axis.clamp_max(2), 3) * local.sign()
    normal = torch.where((axis > 2)[..., None], radial, flat)
    normal = torch.where((hit == 0)[..., None], -normal, normal)  # the shell is seen from inside
    normal = torch.stack(_turn(normal, cos, -sin), -1)

    around = torch.atan2(y, x) * size[..., 0]
    u = torch.where(axis > 2, around, torch.where(axis == 0, y, x))
    v = torch.where(axis == 2, y, z)
    return normal, torch.stack([u, v], -1)


def _albedo(scene: Scene, hit, surface, pixels_per_metre):
    """Colour (B, N, 3): two albedos mixed by the material's texture, which fades where it is finer than a pixel."""
    texture, period, colour = (_pick(values, hit) for values in (scene.texture, scene.period, scene.colour))
    u, v = (surface / period[..., None]).unbind(-1)
    row = torch.floor(v * 2)
    mortar = ((u + 0.5 * (row % 2)) % 1 < 0.06) | ((v * 2) % 1 < 0.12)
    mix = torch.full_like(u, 0.5)
    for which, value in (
        (CHECKS, (torch.floor(u) + torch.floor(v)) % 2),
        (STRIPES, torch.floor(u * 2) % 2),
        (NOISE, _noise(u * 2, v * 2)),
        (BRICKS, mortar.float()),
        (WOOD, _noise(u * 0.7, v * 7)),
    ):
        mix = torch.where(texture == which, value, mix)
    sharpness = ((period * pixels_per_metre - 2) / 4).clamp(0, 1)
    mix = 0.5 + (mix - 0.5) * sharpness
    mix = mix + 0.08 * (_noise(surface[..., 0] * 1.3, surface[..., 1] * 1.3) - 0.5)  # nothing real is of one colour
    return colour[..., 0, :] + (colour[..., 1, :] - colour[..., 0, :]) * mix[..., None]


def _noise(u, v):
    """Smooth value noise in [0, 1] with a lattice of one unit."""
    u0, v0 = torch.floor(u), torch.floor(v)
    fu, fv = u - u0, v - v0
    fu, fv = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv)

    def corner(du, dv):
        return (torch.sin((u0 + du) * 12.9898 + (v0 + dv) * 78.233) * 437.585) % 1

    top = corner(0, 0) + (corner(1, 0) - corner(0, 0)) * fu
    bottom = corner(0, 1) + (corner(1, 1) - corner(0, 1)) * fu
    return top + (bottom - top) * fv
