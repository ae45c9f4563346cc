# SPDX-License-Identifier: Apache-2.0
"""The arguments of the launch files: one table per file, the rows shared."""

from __future__ import annotations

from dataclasses import dataclass, replace

_YES_OR_NO = ("true", "false", "True", "False")


@dataclass(frozen=True)
class Argument:
    """One launch argument.

    Attributes:
        parameter: the node's parameter that it sets where it is not empty; empty: none, the launch file reads it.
        kind: type of the value.
        choices: all values that are allowed; empty: any.
    """

    name: str
    default: str
    description: str
    parameter: str = ""
    kind: type = str
    choices: tuple[str, ...] = ()

    def parse(self, text: str) -> object:
        """The value of what was written on the command line.

        Raises:
            ValueError: it is not of this kind.
        """
        if self.kind is bool:
            return is_true(text)
        try:
            return self.kind(text)
        except ValueError:
            raise ValueError(
                f"{self.name}:={text} is not a number of the kind that is expected ({self.kind.__name__})"
            ) from None


def is_true(text: str) -> bool:
    """Whether a switch is on."""
    return text.lower() == "true"


def _switch(name: str, default: str, description: str, parameter: str = "") -> Argument:
    return Argument(name, default, description, parameter, bool, _YES_OR_NO if default else ("", *_YES_OR_NO))


_ROWS = (
    Argument("robot", "", "preset of a robot or camera: its topics, frame, rectification and a suitable model"),
    Argument("robot_namespace", "", "namespace of the robot, such as a200_0000: before the preset's topics and the node's own"),
    Argument("image", "", "image topic of the camera (empty: the preset's, else camera/image_raw below robot_namespace)"),
    Argument("camera_info", "", "its camera_info topic (empty: the preset's, else camera_info beside the image topic)"),
    Argument("compressed", "", "compressed image topic, read instead of the raw one (empty: the preset's, else"
             " <image>/compressed, where no raw image is published)"),
    Argument("frame_id", "", "optical frame of all outputs (empty: the preset's, else the image's own)", "camera.frame_id"),
    Argument("optical_parent", "", "frame of the camera's mount, x forward: a static transform from it to the optical frame is"
             " published, for drivers that publish none (empty: none)"),
    Argument("model", "", "network; metres come from v2_metric_indoor and v2_metric_outdoor, from da3_metric and depth_pro by"
             " the focal length, and from demo, which is never for a robot; custom: as checkpoint says (empty: the preset's,"
             " else v2_metric_indoor)", "model",
             choices=("", "v2_metric_indoor", "v2_metric_outdoor", "v1", "v2", "da3_mono", "da3_metric", "depth_pro", "demo",
                      "custom")),
    Argument("encoder", "", "size of the network, such as vits, vitb, vitl (empty: as in params_file, else the smallest)",
             "encoder"),
    Argument("checkpoint", "", "file with weights (empty: as in params_file, else the published ones)", "checkpoint"),
    _switch("allow_noncommercial", "", "true: accept weights that forbid commercial use (empty: as in params_file, else false)",
            "allow_noncommercial"),
    Argument("input_size", "", "size of the network's input, pixels: its short side, for most models a multiple of 14; see"
             " docs/models.md for others (empty: the preset's, else the model's own)", "input_size", int),
    Argument("device", "", "auto, cpu, cuda, cuda:N, mps (empty: as in params_file, else auto)", "device"),
    Argument("base_frame", "", "frame of the robot, z up from the ground, for heights and the scan (empty: as in params_file,"
             " else base_link)", "base_frame"),
    Argument("scale", "", "where metres come from: the network, a range sensor on scale_topic, the camera's height above the"
             " ground, its focal length, a calibration in params_file (empty: as in params_file, else none: the network)",
             "scale.source", choices=("", "none", "sparse", "ground", "focal", "fixed")),
    Argument("scale_topic", "", "PointCloud2, LaserScan or depth Image that scale:=sparse takes (empty: as in params_file)",
             "scale.topic"),
    _switch("stabilizer", "", "true: no jumps of scale from frame to frame (empty: as in params_file, else false)",
            "stabilizer.enabled"),
    Argument("namespace", "depth_anything", "namespace of the node and of its depth/... topics"),
    Argument("params_file", "", "your own YAML, written like config/depth.yaml (its first key is /**:)"),
    _switch("use_sim_time", "", "true: take time from /clock (empty: as params_file says, else false)", "use_sim_time"),
    _switch("autostart", "", "false: leave configure and activate to a lifecycle manager (empty: as in params_file, else true)",
            "autostart"),
    Argument("log_level", "info", "of the depth node", choices=("debug", "info", "warn", "error")),
    _switch("rviz", "false", "true: start RViz with the camera's picture, depth in colours and the cloud"),
    Argument("fixed_frame", "", "RViz's fixed frame (empty: the optical frame; of nav2.launch.py: odom)"),
)  # fmt: skip
_BY_NAME = {row.name: row for row in _ROWS}


def depth_arguments(robots: list[str]) -> tuple[Argument, ...]:
    """Of a launch file that starts one camera's depth; `robots` are the names of the presets."""
    return tuple(replace(row, choices=("", *robots)) if row.name == "robot" else row for row in _ROWS)


def robot_arguments(robot: str, preset: dict) -> tuple[Argument, ...]:
    """Of a robot's own launch file: each description names what its preset sets."""
    camera = preset.get("camera", {})
    rows = []
    for row in _ROWS:
        value = camera.get(row.name, preset.get(row.name))
        if row.name == "robot":
            row = replace(row, default=robot, description="this file's preset", choices=(robot,))
        elif value is not None:
            row = replace(row, description=f"{row.description.split(' (empty:')[0]} (empty: {value}, the preset's)")
        rows.append(row)
    return tuple(rows)


MULTI_CAMERA = (
    Argument("cameras", "", "names of the cameras, separated by commas, such as front,left,rear"),
    Argument("image", "/{name}/image_raw", "image topic of each camera; {name} stands for the camera's name"),
    Argument("camera_info", "", "camera_info topic of each camera (empty: camera_info beside the image topic)"),
    Argument("compressed", "", "compressed topic of each camera (empty: <image>/compressed, where no raw image is published)"),
    Argument("frame_id", "", "optical frame of each camera's outputs (empty: the image's own)"),
    *(_BY_NAME[name] for name in ("model", "encoder", "checkpoint", "allow_noncommercial", "input_size", "device",
                                  "base_frame", "scale", "scale_topic", "stabilizer", "namespace", "params_file",
                                  "use_sim_time", "autostart", "log_level")),
)  # fmt: skip

NAV2 = (
    Argument("layer", "voxel", "costmap layer that takes the cloud: voxel (keeps what is below the camera's view), stvl"
             " (forgets with time; its own package), obstacle (flat)", choices=("voxel", "stvl", "obstacle")),
    Argument("nav2_params", "", "your Nav2 parameters, into which the layer is put (empty: nav2_bringup's own)"),
    _switch("only_depth", "false", "true: the camera is the only obstacle sensor; Nav2's other obstacle sources, such as a"
            " laser scan, are taken out"),
    _switch("mapless", "false", "true: plan in a rolling window of the odom frame, without a map and without localisation"),
    Argument("write_to", "", "file that Nav2's parameters with depth are written to (empty: a temporary one)"),
    _switch("bringup", "true", "true: start Nav2, too (nav2_bringup's navigation_launch.py); false: only write the parameters"
            " for it and start depth under a lifecycle manager"),
)  # fmt: skip

RTABMAP = (
    Argument("odom_topic", "", "odometry of the robot's wheels (empty: odom, below the robot's namespace)"),
    _switch("visual_odometry", "false", "true: RTAB-Map's own odometry from the images, for a robot without; the scale of depth"
            " that is estimated wavers, and this odometry with it"),
    Argument("rtabmap_args", "", "further arguments of the rtabmap node, --delete_db_on_start maps anew (empty: none)"),
    _switch("rtabmap_viz", "true", "true: start RTAB-Map's own window"),
)  # fmt: skip

LASERSCAN = (
    Argument("method", "node", "node: the depth node's own depth/scan, for any camera on a robot with transforms; by other"
             " packages on the topic scan: image: the middle rows of the depth image, for a camera that looks straight ahead"
             " (depthimage_to_laserscan); cloud: a band of heights of the cloud, for any camera on a robot with transforms"
             " (pointcloud_to_laserscan)", choices=("node", "image", "cloud")),
    Argument("scan_frame", "", "frame of the scan, x forward: the camera's mount for image, the robot's base for cloud, which"
             " have to be given (empty: for node, base_frame)"),
)  # fmt: skip

REPLAY = (
    Argument("bag", "", "the bag to play: a folder, .mcap, .db3 or .bag (empty: nothing is started)"),
    Argument("pace", "node", "node: the next image when the depth node has dealt with the one before, so that none is dropped;"
             " time: as it was recorded, times rate", choices=("node", "time")),
    Argument("rate", "1.0", "how many times as fast as recorded, for pace:=time", kind=float),
    Argument("start", "0.0", "seconds from the bag's beginning", kind=float),
    Argument("duration", "0.0", "seconds to play from there; 0.0: to the end", kind=float),
)  # fmt: skip
