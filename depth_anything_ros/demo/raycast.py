# SPDX-License-Identifier: Apache-2.0
"""Ray casting of procedural scenes: an image and its exact depth, on any device.

Every ray is `origin + t * direction` with a direction whose component along the optical axis is 1, so t *is* the depth
in metres along z (REP-118), with no conversion that could hide an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .scenes import BOX, BRICKS, CHECKS, CYLINDER, LABELS, NOISE, SPHERE, STRIPES, WOOD, Scene, View

FAR = 1e6  # depth of a ray that meets nothing; becomes +Inf in the result
_NEAR = 1e-3


@dataclass(frozen=True)
class Rendering:
    """What a batch of views sees, exactly; pixel centres lie at whole coordinates."""

    rgb: torch.Tensor  # (B, height, width, 3) float32 in [0, 1]
    depth: torch.Tensor  # (B, height, width) float32 metres along the optical axis, +Inf where the sky is
    normal: torch.Tensor  # (B, height, width, 3) float32 unit vectors in the world, towards the camera; 0 where the sky is
    label: torch.Tensor  # (B, height, width) int64, index into `scenes.LABELS`


def render(scene: Scene, view: View, width: int, height: int, shadows: bool = True) -> Rendering:
    """Ray cast a batch of scenes, on the device that they are on.

    The principal point is at ((width - 1) / 2, (height - 1) / 2); the focal length is `view.focal * width` pixels.
    """
    origin, direction = rays(view, width, height)
    depth, hit = _nearest(scene, origin.expand_as(direction), direction, (width, height), view.position, direction)
    point, normal, albedo, to_light = _surfaces(scene, view, origin, direction, depth, hit, width)
    lit = torch.ones_like(depth)
    if shadows:
        start = point + normal * 1e-3
        blocked, _ = _nearest(scene, start, to_light, (width, height), scene.light, -to_light, skip_shell=True)
        lit = torch.where(blocked < 1.0, 0.25, lit)
    rgb, depth, normal, label = _shade(scene, direction, depth, hit, normal, albedo, to_light, lit)
    shape = (-1, height, width)
    return Rendering(rgb.view(*shape, 3), depth.view(shape), normal.view(*shape, 3), label.view(shape))


def fuse() -> None:
    """Compile the inner functions (needs a C++ compiler on a CPU): several times faster, after a minute of compiling."""
    torch._dynamo.config.recompile_limit = 64  # one variant per kind of primitive, size and number of rays' origins
    for name in ("_meet", "_surfaces", "_shade"):
        globals()[name] = torch.compile(globals()[name], dynamic=name == "_meet")


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


def _nearest(
    scene: Scene, origin, direction, size: tuple[int, int], apex, seen, skip_shell: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest t (B, N) along each ray and the index (B, N) of the primitive that it meets.

    Rays are taken by tiles of the image, and a tile only meets the primitives within its cone: the cone that the vectors
    `seen` (B, N, 3) span at `apex` (B, 3), the point that all rays of a view come from or go to.
    """
    origin, direction, seen = (_to_tiles(values, size) for values in (origin, direction, seen))
    tiles_per_scene = len(direction) // len(apex)
    owner = torch.arange(len(apex), device=apex.device).repeat_interleave(tiles_per_scene)
    meets = _within_cone(apex[owner], seen, scene.centre[owner], scene.size.norm(dim=-1)[owner])
    meets &= scene.size.amax(-1)[owner] > 0
    meets[:, 0] = not skip_shell
    best = torch.full(direction.shape[:2], FAR, device=direction.device)
    hit = torch.zeros(direction.shape[:2], dtype=torch.int64, device=direction.device)
    for p in torch.nonzero(meets.any(0))[:, 0].tolist():
        kinds = scene.kind[owner, p]
        for kind in kinds.unique().tolist():
            rows = torch.nonzero(meets[:, p] & (kinds == kind))[:, 0]
            if len(rows):
                own = owner[rows]
                primitive = scene.centre[own, p, None], scene.size[own, p], scene.yaw[own, p, None], p
                shell = _SHELL if p == 0 else kind
                best[rows], hit[rows] = _meet(shell, best[rows], hit[rows], origin[rows], direction[rows], *primitive)
    return _from_tiles(best, size), _from_tiles(hit, size)


def _tile(size: tuple[int, int]) -> tuple[int, int]:
    """Sides of the tiles that an image is cut into: the largest divisors up to 32."""
    width, height = (next(side for side in range(32, 0, -1) if length % side == 0) for length in size)
    return width, height


def _to_tiles(values, size: tuple[int, int]):
    """(B, height * width, 3) -> (B * tiles, pixels of a tile, 3)."""
    (width, height), (w, h) = size, _tile(size)
    return values.view(-1, height // h, h, width // w, w, 3).transpose(2, 3).reshape(-1, h * w, 3)


def _from_tiles(values, size: tuple[int, int]):
    """(B * tiles, pixels of a tile) -> (B, height * width)."""
    (width, height), (w, h) = size, _tile(size)
    return values.view(-1, height // h, width // w, h, w).transpose(2, 3).reshape(-1, height * width)


def _within_cone(apex, seen, centre, radius):
    """Whether each of P spheres (N, P, 3), (N, P) may meet the cone of rays `seen` (N, n, 3) from `apex` (N, 3)."""
    seen = torch.nn.functional.normalize(seen, dim=-1)
    axis = torch.nn.functional.normalize(seen.mean(1, keepdim=True), dim=-1)
    opening = torch.acos((seen * axis).sum(-1).amin(1, keepdim=True).clamp(-1, 1))
    towards = centre - apex[:, None]
    distance = towards.norm(dim=-1)
    between = torch.acos(((towards * axis).sum(-1) / distance.clamp_min(1e-6)).clamp(-1, 1))
    return (distance <= radius) | (between <= opening + torch.asin((radius / distance.clamp_min(1e-6)).clamp_max(1)) + 1e-3)


def _meet(kind: int, best, hit, origin, direction, centre, size, yaw, index):
    """`best` and `hit` after one primitive per scene has been taken into account."""
    cos, sin = torch.cos(yaw), torch.sin(yaw)
    o = _turn(origin - centre, cos, sin)  # into the primitive's own frame: its centre is the origin and yaw is undone
    t = _INTERSECT[kind](o, _turn(direction, cos, sin), size)
    closer = t < best
    return torch.where(closer, t, best), torch.where(closer, index, hit)


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


_SHELL = 3  # a box that is seen from inside
_INTERSECT = {BOX: _hit_box, CYLINDER: _hit_cylinder, SPHERE: _hit_sphere, _SHELL: _leave_box}


def _pick(values, hit):
    """Per-primitive values (B, P, ...) at each ray's primitive (B, N) -> (B, N, ...)."""
    batch = torch.arange(len(values), device=values.device)[:, None]
    return values[batch, hit]


def _surfaces(scene: Scene, view: View, origin, direction, depth, hit, width: int):
    """Points, normals and colours (B, N, 3) of what the rays meet, and the way from there to the light."""
    point = origin + depth[..., None] * direction
    normal, coordinates = _surface(scene, hit, point)
    albedo = _albedo(scene, hit, coordinates, pixels_per_metre=view.focal[:, None] * width / depth)
    return point, normal, albedo, scene.light[:, None] - point


def _shade(scene: Scene, direction, depth, hit, normal, albedo, to_light, lit):
    """Light and air: colours (B, N, 3), and depth, normal and label with the sky told apart."""
    reach = to_light.norm(dim=-1).clamp_min(1e-3)
    lambert = ((normal * to_light).sum(-1) / reach).clamp_min(0) * lit
    falloff = torch.where(scene.outdoor[:, None], 1.0, 1.6 / (1 + (reach / 3) ** 2))
    ambient = scene.ambient[:, None]
    light = scene.light_colour[:, None] * (1.5 * (1 - ambient) * lambert * falloff)[..., None]
    clear = torch.exp(-scene.fog[:, None] * depth * direction.norm(dim=-1))[..., None]
    rgb = albedo * (ambient[..., None] + light) * clear + scene.sky[:, None] * (1 - clear)

    missed = scene.outdoor[:, None] & ((depth >= FAR) | ((hit == 0) & (normal[..., 2] < 0.5)))
    rgb = torch.where(missed[..., None], scene.sky[:, None], rgb).clamp(0, 1)
    depth = torch.where(missed, torch.inf, depth)
    label = torch.where(missed, LABELS.index("sky"), _pick(scene.label, hit))
    return rgb, depth, torch.where(missed[..., None], 0.0, normal), label


def _surface(scene: Scene, hit, point):
    """Outward world normal (B, N, 3) and surface coordinates (B, N, 2) in metres of each hit."""
    kind, size, yaw = (_pick(values, hit) for values in (scene.kind, scene.size, scene.yaw))
    cos, sin = torch.cos(yaw), torch.sin(yaw)
    local = torch.stack(_turn(point - _pick(scene.centre, hit), cos, sin), -1)
    x, y, z = local.unbind(-1)

    axis = (local.abs() / size.clamp_min(1e-6)).argmax(-1)
    on_side = torch.hypot(x, y) / size[..., 0].clamp_min(1e-6) >= z.abs() / size[..., 2].clamp_min(1e-6)
    axis = torch.where(kind == CYLINDER, torch.where(on_side, 3, 2), axis)
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
    mix = torch.full_like(period, 0.5)
    u, v = (surface / period[..., None]).unbind(-1)
    for which, pattern in _PATTERNS.items():
        mix = torch.where(texture == which, pattern(u, v), mix)
    detail = period * torch.where(texture == BRICKS, 0.25, 1.0)
    sharpness = ((detail * pixels_per_metre - 2) / 4).clamp(0, 1)
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


def _bricks(u, v):
    """Mortar (1) around bricks of 1 by 1/3, each row half a brick aside."""
    mortar = ((u + 0.5 * (torch.floor(v * 3) % 2)) % 1 < 0.05) | ((v * 3) % 1 < 0.14)
    return mortar.to(u.dtype)


def _planks(u, v):
    """Grain along planks of width 1, each of its own tone, with dark joints."""
    row = torch.floor(v)
    tone = (torch.sin(row * 12.9898) * 437.585) % 1
    return torch.where(v % 1 < 0.05, 1.0, 0.5 * tone + 0.5 * _noise(u * 0.4 + 7.3 * row, v * 6))


_PATTERNS = {
    CHECKS: lambda u, v: (torch.floor(u) + torch.floor(v)) % 2,
    STRIPES: lambda u, v: torch.floor(u * 2) % 2,
    NOISE: lambda u, v: 0.65 * _noise(u, v) + 0.35 * _noise(u * 3.1, v * 3.1),
    BRICKS: _bricks,
    WOOD: _planks,
}
