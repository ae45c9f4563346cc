# SPDX-License-Identifier: Apache-2.0
"""config/nav2 by Nav2's own rules: an exact scene, seen by a camera, through our cloud, into a costmap."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from costmap import FREE, LETHAL, Costmap
from std_msgs.msg import Header

from depth_anything_ros.geometry import AdaptiveRange, Camera
from depth_anything_ros.inference import Prediction
from depth_anything_ros.messages.outgoing import cloud_message
from depth_anything_ros.models import METRIC
from depth_anything_ros.outputs import Outputs, OutputSettings
from depth_anything_ros.pipeline import DepthSettings, Frame, Refiner, RefineSettings, Side

FOLDER = Path(__file__).resolve().parent.parent / "config" / "nav2"
WIDTH, HEIGHT, FOCAL = 96, 72, 70.0  # 69 degrees wide
BOX = (1.5, 1.9, -0.25, 0.25, 0.2)  # x from, to; y from, to; height. The wall behind it stands at x = 5
LAYERS = ("voxel_layer", "obstacle_layer")


def layer_of(name):
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["local_costmap"]["local_costmap"]["ros__parameters"][
        "depth_layer"
    ]


def pose(x=0.0, height=0.5, down=10.0):
    """Rotation (3, 3) and position of an optical frame: z forward and `down` degrees below the horizon."""
    c, s = np.cos(np.radians(down)), np.sin(np.radians(down))
    right, forward = np.array([0.0, -1, 0]), np.array([c, 0, -s])
    return np.stack([right, np.cross(forward, right), forward], 1), np.array([x, 0, height])


def exact_depth(rotation, position, box=BOX):
    """(H, W) metres along z: floor z = 0, wall x = 5, and a box on the floor; NaN where there is nothing within 20 m."""
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    rays = np.stack([(u - WIDTH / 2) / FOCAL, (v - HEIGHT / 2) / FOCAL, np.ones_like(u, float)], -1) @ rotation.T
    with np.errstate(divide="ignore", invalid="ignore"):
        floor = np.where(rays[..., 2] < 0, -position[2] / rays[..., 2], np.inf)
        wall = (5 - position[0]) / rays[..., 0]
        best = np.minimum(floor, wall)
        if box:
            low, high = np.array([box[0], box[2], 0]), np.array([box[1], box[3], box[4]])
            a, b = (low - position) / rays, (high - position) / rays
            enter, leave = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
            best = np.where((enter < leave) & (enter > 0), np.minimum(best, enter), best)
    return np.where(best < 20, best, np.nan)


def seen(depth, rotation, position):
    """The points that a reader of depth/points gets, in the costmap's frame."""
    camera = Camera(WIDTH, HEIGHT, FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2)
    prediction = Prediction(torch.from_numpy(depth).float(), METRIC, (HEIGHT, WIDTH), align_corners=False)
    frame = Frame(np.zeros((HEIGHT, WIDTH, 3), np.uint8), camera)
    refined = Refiner().refine(frame, prediction, RefineSettings(DepthSettings(0.05, 20)))
    cloud = cloud_message(Header(), Outputs(frame, prediction, refined, Side(), OutputSettings(), AdaptiveRange()).cloud)
    offsets = {field.name: field.offset // 4 for field in cloud.fields}
    values = np.frombuffer(cloud.data, np.float32).reshape(-1, cloud.point_step // 4)
    return np.stack([values[:, offsets[name]] for name in "xyz"], 1) @ rotation.T + position


def look(costmap, box=BOX, scale=1.0, **where):
    rotation, position = pose(**where)
    costmap.update(seen(scale * exact_depth(rotation, position, box), rotation, position), position)
    return costmap


def cells_of_the_box(costmap, box=BOX):
    return costmap.lethal(box[0] - 0.1, box[2] - 0.1, box[3] - box[2] + 0.2, box[1] - box[0] + 0.2)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("height, down", [(0.25, 0.0), (0.5, 10.0), (1.3, 25.0)])
def test_the_floor_stays_free_and_the_box_is_marked(name, height, down):
    costmap = look(Costmap(layer_of(name)), height=height, down=down)
    assert not costmap.warnings
    assert cells_of_the_box(costmap) >= 10  # its front is 0.5 m wide: 10 cells
    assert (costmap.cost == LETHAL).sum() == cells_of_the_box(costmap)  # and nothing else: the wall is too far away


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("scale", [0.9, 1.1])
def test_depth_that_is_wrong_by_a_tenth_does_not_mark_the_floor(name, scale):
    """0.9 lifts the floor by a tenth of the camera's height, 5 cm: below min_obstacle_height."""
    costmap = look(Costmap(layer_of(name)), scale=scale, box=None)
    assert (costmap.cost == FREE).all()
    careless = copy.deepcopy(layer_of(name))
    careless["depth_mark"]["min_obstacle_height"] = 0.0
    assert (look(Costmap(careless), scale=0.9, box=None).cost == LETHAL).any()


@pytest.mark.parametrize("name", LAYERS)
def test_what_was_taken_away_is_cleared(name):
    costmap = look(Costmap(layer_of(name)))
    assert cells_of_the_box(costmap)
    assert (look(costmap, box=None).cost == FREE).all()


@pytest.mark.parametrize("name", LAYERS)
def test_a_source_without_the_floor_could_not_clear(name):
    """Why there are two sources: the marking source's heights cut the floor off, and nothing is left to clear by."""
    one = copy.deepcopy(layer_of(name))
    one["observation_sources"] = "depth_mark"
    one["depth_mark"] |= {"clearing": True, "raytrace_max_range": 3.5, "raytrace_min_range": 0.0}
    costmap = look(Costmap(one))
    before = cells_of_the_box(costmap)
    assert before and cells_of_the_box(look(costmap, box=None, down=40.0)) == before  # the wall is out of view


def test_a_low_box_before_the_wheels_stays_in_the_voxel_layer_only():
    """From x = 1.45 the camera looks over the box: flat rays clear it, rays in three dimensions do not."""
    left = {}
    for name in LAYERS:
        costmap = look(Costmap(layer_of(name)), down=0.0)
        before = cells_of_the_box(costmap)
        rotation, position = pose(x=1.45, down=0.0)
        assert np.array_equal(exact_depth(rotation, position), exact_depth(rotation, position, None), equal_nan=True)
        look(costmap, x=1.45, down=0.0)
        left[name] = cells_of_the_box(costmap) / before
    assert left["voxel_layer"] == 1 and left["obstacle_layer"] < 0.5, left


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_beyond_the_range_or_invalid_marks_and_clears_nothing(name):
    far = (3.6, 4.0, -0.25, 0.25, 0.5)
    assert (look(Costmap(layer_of(name)), box=far).cost == FREE).all()
    costmap = look(Costmap(layer_of(name)))
    before = costmap.cost.copy()
    rotation, position = pose()
    costmap.update(seen(np.full((HEIGHT, WIDTH), np.nan), rotation, position), position)
    assert (costmap.cost == before).all()


def test_a_camera_above_the_voxels_would_not_clear():
    """Why z_resolution is 0.1: at 0.05, as in nav2_bringup, the grid ends at 0.8 m."""
    low = layer_of("voxel_layer") | {"z_resolution": 0.05}
    costmap = look(Costmap(low), height=1.3, down=25.0)
    assert costmap.warnings
    assert cells_of_the_box(look(costmap, box=None, height=1.3, down=25.0)) > 0


# What the plugins declare (obstacle_layer.cpp and voxel_layer.cpp, main; spatio_temporal_voxel_layer.cpp, ros2).
OBSTACLE = {"plugin", "enabled", "max_obstacle_height", "min_obstacle_height", "combination_method", "observation_sources"}
OBSTACLE |= {"footprint_clearing_enabled", "tf_filter_tolerance"}
VOXEL = OBSTACLE | {"publish_voxel_map", "origin_z", "z_resolution", "z_voxels", "unknown_threshold", "mark_threshold"}
SOURCE = {"topic", "sensor_frame", "observation_persistence", "expected_update_rate", "data_type", "min_obstacle_height"}
SOURCE |= {"max_obstacle_height", "inf_is_valid", "marking", "clearing"}
FLAT_SOURCE = SOURCE | {"obstacle_max_range", "obstacle_min_range", "raytrace_max_range", "raytrace_min_range"}
STVL = {"plugin", "enabled", "voxel_size", "voxel_decay", "decay_model", "mark_threshold", "track_unknown_space"}
STVL |= {"update_footprint_enabled", "combination_method", "transform_tolerance", "publish_voxel_map", "mapping_mode"}
STVL |= {"map_save_duration", "observation_sources"}
STVL_SOURCE = SOURCE | {
    "obstacle_range",
    "min_z",
    "max_z",
    "vertical_fov_angle",
    "horizontal_fov_angle",
    "vertical_fov_padding",
}
STVL_SOURCE |= {"decay_acceleration", "filter", "voxel_min_points", "clear_after_reading", "enabled", "model_type"}


@pytest.mark.parametrize(
    "name, keys, source_keys",
    [("obstacle_layer", OBSTACLE, FLAT_SOURCE), ("voxel_layer", VOXEL, FLAT_SOURCE), ("stvl_layer", STVL, STVL_SOURCE)],
)
def test_every_key_is_one_that_the_plugin_reads(name, keys, source_keys):
    layer = layer_of(name)
    sources = layer["observation_sources"].split()
    assert set(layer) - set(sources) <= keys
    for source in sources:
        assert set(layer[source]) <= source_keys and layer[source]["topic"].startswith("/")
        assert layer[source]["max_obstacle_height"] > 0  # whose default would drop everything
    marks, clears = (next(s for s in sources if layer[s][key]) for key in ("marking", "clearing"))
    ranges = ("obstacle_range", "max_z") if name == "stvl_layer" else ("obstacle_max_range", "raytrace_max_range")
    assert layer[marks][ranges[0]] < layer[clears][ranges[1]]
