# SPDX-License-Identifier: Apache-2.0
"""Nav2's costmap layers, as far as clouds go: the rules of nav2_costmap_2d, written down again for the tests.

As of the branch main; Humble and Kilted measure the flat layer's ranges a little differently.
After observation_buffer.cpp, obstacle_layer.cpp, voxel_layer.cpp (branch main, August 2026), raytrace_line_2d.hpp and
voxel_grid.hpp. Metres; the costmap's frame is level, its z = 0 the floor.
"""

import math

import numpy as np

FREE, LETHAL = 0, 254


class Costmap:
    """A square costmap with one layer, configured by that layer's parameters as they are in Nav2's YAML."""

    def __init__(self, layer, size=8.0, resolution=0.05, origin=(-1.0, -4.0)):
        self.layer, self.resolution, self.origin = layer, resolution, np.array(origin)
        self.cells = int(size / resolution)
        self.cost = np.full((self.cells, self.cells), FREE, np.uint8)  # [y, x]
        self.is_voxel = layer["plugin"] == "nav2_costmap_2d::VoxelLayer"
        self.voxels = np.zeros((self.cells, self.cells, layer.get("z_voxels", 0)), bool)
        self.warnings = []

    def update(self, points, sensor):
        """One cycle: every source that clears, then every source that marks. `points` (N, 3) and `sensor` (3,)."""
        sources = [self.layer[name] for name in self.layer["observation_sources"].split()]
        for clears in (True, False):
            for source in sources:
                if source["clearing" if clears else "marking"]:
                    z = points[:, 2]
                    with np.errstate(invalid="ignore"):
                        kept = points[(z >= source["min_obstacle_height"]) & (z <= source["max_obstacle_height"])]
                    (self._clear if clears else self._mark)(kept, np.asarray(sensor, float), source)

    def lethal(self, x, y, width, depth):
        """How many cells are lethal between (x, y) and (x + depth, y + width), metres."""
        low = ((np.array([x, y]) - self.origin) / self.resolution).astype(int)
        high = ((np.array([x + depth, y + width]) - self.origin) / self.resolution).astype(int)
        return int((self.cost[low[1] : high[1], low[0] : high[0]] == LETHAL).sum())

    def _cells_of(self, xy):
        cells = np.floor((xy - self.origin) / self.resolution).astype(int)
        return cells, ((cells >= 0) & (cells < self.cells)).all(-1)

    def _mark(self, points, sensor, source):
        layer = self.layer
        z = points[:, 2]
        points = points[(z >= layer.get("min_obstacle_height", 0.0)) & (z <= layer["max_obstacle_height"])]
        dimensions = 3 if self.is_voxel else 2
        distance = np.linalg.norm(points[:, :dimensions] - sensor[:dimensions], axis=1)
        points = points[(distance < source["obstacle_max_range"]) & (distance >= source["obstacle_min_range"])]
        cells, inside = self._cells_of(points[:, :2])
        if self.is_voxel:
            level = np.floor((points[:, 2] - layer["origin_z"]) / layer["z_resolution"]).astype(int)
            inside &= (level >= 0) & (level < layer["z_voxels"])
            self.voxels[cells[inside, 1], cells[inside, 0], level[inside]] = True
            columns = cells[inside]
            full = self.voxels[columns[:, 1], columns[:, 0]].sum(-1) > layer["mark_threshold"]
            cells, inside = columns[full], np.ones(full.sum(), bool)
        self.cost[cells[inside, 1], cells[inside, 0]] = LETHAL

    def _clear(self, points, sensor, source):
        points = points[np.isfinite(points).all(1)]
        top = self.layer["origin_z"] + self.layer["z_voxels"] * self.layer["z_resolution"] if self.is_voxel else math.inf
        bottom = self.layer["origin_z"] if self.is_voxel else -math.inf
        if not (bottom <= sensor[2] < top):
            self.warnings.append("Sensor origin is out of map bounds")
            return
        ends = set()
        for point in points:
            ray = point - sensor
            if self.is_voxel:
                length = np.linalg.norm(ray)
                ray = ray * max(min(1.0, (length - 2 * self.resolution) / length), 0.0)
                fraction = 1.0
                if sensor[2] + ray[2] > top:
                    fraction = min(fraction, (top - 0.01 - sensor[2]) / ray[2])
                elif sensor[2] + ray[2] < bottom:
                    fraction = min(fraction, (bottom - sensor[2]) / ray[2]) - 1e-5
                ray = ray * fraction
            for axis in (0, 1):
                low, high = self.origin[axis], self.origin[axis] + self.cells * self.resolution
                if ray[axis] and not low <= sensor[axis] + ray[axis] < high:
                    bound = (low if ray[axis] < 0 else high) - sensor[axis]
                    ray = ray * (bound / ray[axis]) * (1 - 1e-5)
            end = np.append(np.floor((sensor[:2] + ray[:2] - self.origin) / self.resolution), 0)
            if self.is_voxel:
                end[2] = math.floor((sensor[2] + ray[2] - bottom) / self.layer["z_resolution"])
            ends.add(tuple(end.astype(int)))
        begin = np.append(np.floor((sensor[:2] - self.origin) / self.resolution), 0).astype(int)
        if self.is_voxel:
            begin[2] = math.floor((sensor[2] - bottom) / self.layer["z_resolution"])
        longest = math.ceil(source["raytrace_max_range"] / self.resolution)
        for end in ends:
            self._clear_line(begin, np.array(end), longest)

    def _clear_line(self, begin, end, longest):
        """Bresenham over the longest axis, the last cell included."""
        delta = end - begin
        dominant = int(np.argmax(np.abs(delta)))
        steps = abs(int(delta[dominant]))
        length = np.linalg.norm(delta)
        scale = min(1.0, longest / length) if length else 1.0
        error, position, sign = np.full(3, steps // 2), begin.copy(), np.sign(delta)
        for _ in range(int(scale * steps) + 1):
            x, y, z = position
            if self.is_voxel:
                self.voxels[y, x, z] = False
                if self.voxels[y, x].sum() <= self.layer["mark_threshold"]:
                    self.cost[y, x] = FREE
            else:
                self.cost[y, x] = FREE
            position[dominant] += sign[dominant]
            for axis in range(3):
                if axis != dominant:
                    error[axis] += abs(delta[axis])
                    if steps and error[axis] >= steps:
                        position[axis] += sign[axis]
                        error[axis] -= steps
