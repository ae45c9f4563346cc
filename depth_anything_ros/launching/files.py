# SPDX-License-Identifier: Apache-2.0
"""YAML that launch files read and put together: presets of robots, and Nav2's parameters with a layer for depth."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path

import yaml

TOPICS = ("image", "camera_info", "compressed")
_COSTMAPS = ("local_costmap", "global_costmap")
_INFLATION = "InflationLayer"


def names_of(folder: Path) -> list[str]:
    """The names of the YAML files in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def preset_of(path: Path) -> dict:
    """The node's parameters in a preset."""
    return yaml.safe_load(path.read_text())["/**"]["ros__parameters"]


def fixed_frame_of(path: Path) -> str:
    """The optical frame that depth comes out in, as a preset tells it to RViz."""
    return yaml.safe_load(path.read_text())["depth_rviz"]["ros__parameters"]["fixed_frame"]


def in_namespace(camera: dict, namespace: str) -> dict:
    """A preset's topics below the robot's namespace, if it has one, as parameters of the node."""
    return {f"camera.{name}": namespace + camera[name] for name in TOPICS if camera.get(name)} if namespace else {}


def topics_of(values: dict) -> dict:
    """The topics of the command line as parameters. Those that are not given follow the one that is, whatever files say."""
    if not values["image"] and not values["compressed"]:
        return {"camera.camera_info": values["camera_info"]} if values["camera_info"] else {}
    result = {f"camera.{name}": values[name] for name in TOPICS}
    if values["compressed"]:
        result["camera.image_transport"] = "compressed"
        result["camera.image"] = values["image"] or values["compressed"].removesuffix("/compressed")
    return result


def topics_of_cameras(values: dict) -> dict:
    """The names and topics of several cameras, as parameters.

    Raises:
        ValueError: no names, or one topic for all.
    """
    cameras = [name.strip() for name in values["cameras"].split(",") if name.strip()]
    if not cameras:
        raise ValueError("cameras is empty: expected names such as cameras:=front,left,rear")
    topics = [name for name in (*TOPICS, "frame_id") if values[name]]
    alike = [name for name in topics if "{name}" not in values[name]]
    if alike and len(cameras) > 1:
        raise ValueError(f"{alike[0]}:={values[alike[0]]} is the same for all cameras: write {{name}} where they differ")
    return {"cameras": cameras} | {
        f"{camera}.{name}": values[name].replace("{name}", camera) for camera in cameras for name in topics
    }


def write_layer(parameters: dict) -> str:
    """Parameters of a node in a temporary YAML file under /**; returns its path."""
    return write_yaml({"/**": {"ros__parameters": parameters}})


def write_yaml(tree: dict, path: str = "", comment: str = "") -> str:
    """A YAML file; returns its path (empty: a new temporary file)."""
    if not path:
        descriptor, path = tempfile.mkstemp(prefix="depth_anything_", suffix=".yaml")
        os.close(descriptor)
    path = str(Path(path).expanduser())
    with open(path, "w") as file:
        file.write(f"# {comment}\n" if comment else "")
        yaml.safe_dump(tree, file, sort_keys=False)
    return path


def says_sim_time(path: Path) -> bool:
    """Whether a parameter file sets use_sim_time for all nodes (/**) or for the depth node."""
    tree = yaml.safe_load(path.read_text()) or {}
    return any(
        bool(node.get("ros__parameters", {}).get("use_sim_time"))
        for name, node in tree.items()
        if isinstance(node, dict) and (name == "/**" or name.endswith("depth_node"))
    )


def user_file(name: str, text: str) -> Path:
    """The path of a file that the user names.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(text).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{name} '{path}' does not exist")
    return path


def merge(base: dict, over: dict) -> dict:
    """`base` with what `over` says on top, dictionary by dictionary."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else copy.deepcopy(value)
    return result


def with_depth_layer(nav2: dict, fragment: dict, points: str) -> dict:
    """Nav2's parameters with the layer of config/nav2/*_layer.yaml in both costmaps, before the inflation.

    Args:
        nav2: Nav2's parameters, as nav2_bringup lays them out; what they say of the layer already stays.
        fragment: the content of a layer's file; what it says of the local costmap goes for both.
        points: absolute name of the cloud's topic.

    Raises:
        ValueError: `nav2` has no such costmaps.
    """
    layers = _parameters(fragment, "local_costmap")
    result = copy.deepcopy(nav2)
    for costmap in _COSTMAPS:
        parameters = _parameters(result, costmap)
        for name, ours in layers.items():
            theirs = parameters.get(name, {})
            layer = merge(ours, theirs) if theirs.get("plugin") == ours["plugin"] else copy.deepcopy(ours)
            for source in layer["observation_sources"].split():
                layer[source]["topic"] = points
            plugins = [plugin for plugin in parameters.get("plugins", []) if plugin != name]
            inflated = [_INFLATION in str(parameters.get(plugin, {}).get("plugin")) for plugin in plugins]
            plugins.insert(inflated.index(True) if True in inflated else len(plugins), name)
            parameters |= {name: layer, "plugins": plugins}
    return result


def with_collision_source(nav2: dict, fragment: dict, points: str) -> dict:
    """Nav2's parameters with the cloud as a source of the collision monitor, where there is one (Humble starts none)."""
    result = copy.deepcopy(nav2)
    if "collision_monitor" in result:
        monitor, added = (tree["collision_monitor"]["ros__parameters"] for tree in (result, copy.deepcopy(fragment)))
        for name in added["observation_sources"]:
            added[name] = merge(added[name], monitor.get(name, {})) | {"topic": points}
        sources = [name for name in monitor.get("observation_sources", []) if name not in added["observation_sources"]]
        monitor |= added | {"observation_sources": sources + added["observation_sources"]}
    return result


def that_stops_without_depth(nav2: dict, seconds: float) -> dict:
    """Nav2's parameters with costmaps that are out of date when the cloud that marks is older than that.

    Nav2 does not drive on such a costmap. On Humble, whose bringup has no collision monitor, it is the only net.
    """
    result = copy.deepcopy(nav2)
    for costmap in _COSTMAPS:
        layer = _parameters(result, costmap)["depth_layer"]
        for source in layer["observation_sources"].split():
            if layer[source]["marking"]:
                layer[source]["expected_update_rate"] = layer[source].get("expected_update_rate") or seconds
    return result


def without_other_sensors(nav2: dict) -> dict:
    """Nav2's parameters without layers that observe something and without sources of the collision monitor.

    A laser scan that nobody publishes would have the collision monitor stop the robot for good.
    """
    result = copy.deepcopy(nav2)
    for costmap in _COSTMAPS:
        parameters = _parameters(result, costmap)
        observing = [name for name in parameters.get("plugins", []) if "observation_sources" in parameters.get(name, {})]
        parameters["plugins"] = [name for name in parameters.get("plugins", []) if name not in observing]
        for name in observing:
            del parameters[name]
    if "collision_monitor" in result:
        result["collision_monitor"]["ros__parameters"]["observation_sources"] = []
    return result


def without_map(nav2: dict, fragment: dict) -> dict:
    """Nav2's parameters for a robot that has odometry and nothing else: config/nav2/mapless.yaml on top, no static layer."""
    result = merge(nav2, fragment)
    for costmap in _COSTMAPS:
        parameters = _parameters(result, costmap)
        parameters["plugins"] = [
            p for p in parameters.get("plugins", []) if "Static" not in str(parameters.get(p, {}).get("plugin"))
        ]
        parameters.pop("filters", None)  # of masks that a map server would publish
    return result


def _parameters(nav2: dict, costmap: str) -> dict:
    try:
        return nav2[costmap][costmap]["ros__parameters"]
    except (KeyError, TypeError):
        raise ValueError(
            f"no {costmap}/{costmap}/ros__parameters in Nav2's parameters: expected nav2_bringup's layout (nav2_params.yaml)"
        ) from None
