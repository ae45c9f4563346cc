# SPDX-License-Identifier: Apache-2.0
"""The node's parameters without a node: from the same files, with the same names, checked in the same way."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from ..stream.settings import Settings, SettingsError, settings_of
from ..stream.table import CAMERA_TABLE, TABLE, Parameter

_OF_NODE = {row.name: row for row in TABLE}
_OF_CAMERA = {row.name: row for row in CAMERA_TABLE}
_ELSEWHERE = ("use_sim_time", "qos_overrides", "start_type_description_service")  # parameters of every node


def preset_file(name: str) -> Path:
    """The file of a robot's preset: a name in config/robots, or a path.

    Raises:
        SettingsError: there is none; the message lists what there is.
    """
    if name.endswith(".yaml"):
        return Path(name).expanduser()
    folder = _share() / "config" / "robots"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise SettingsError(f"no preset '{name}'; there are: {there}")
    return path


def read_file(path: Path, node: str = "depth_node") -> dict[str, object]:
    """The parameters that a ROS parameter file has for the depth node: of `/**`, and of any name that ends in the node's.

    Raises:
        SettingsError: no such file, or no parameters of a ROS node in it.
    """
    try:
        tree = yaml.safe_load(Path(path).expanduser().read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"parameter file '{path}' cannot be read: {str(error).splitlines()[0]}") from error
    found: dict[str, object] = {}
    seen = False
    for name, parameters in _nodes(tree, ""):
        seen = True
        if name.rpartition("/")[2] in ("**", "*", node):
            found |= dict(_flat(parameters, ""))
    if not seen:
        raise SettingsError(f"parameter file '{path}' has no ros__parameters: expected '/**: ros__parameters: ...'")
    return found


def read_assignment(text: str) -> dict[str, object]:
    """The parameter of "name:=value", as after `ros2 run ... --ros-args -p`.

    Raises:
        SettingsError: it is none.
    """
    name, assigns, value = text.partition(":=")
    if not assigns or not name:
        raise SettingsError(f"'{text}' is no parameter: expected name:=value")
    try:
        return {name: yaml.safe_load(value) if value else ""}
    except yaml.YAMLError as error:
        raise SettingsError(f"'{text}': {str(error).splitlines()[0]}") from error


def settings_from(values: dict[str, object], cameras: Iterable[str]) -> tuple[Settings, list[str]]:
    """Settings of parameters that differ from their defaults, for these cameras; and the names that no parameter has.

    Raises:
        SettingsError, ModelError: see `settings_of`; or a value of the wrong type, or out of its range.
    """
    cameras, unknown = list(cameras), []
    full: dict[str, object] = {row.name: row.default for row in TABLE}
    of_camera: dict[str, dict[str, object]] = {name: {} for name in ("camera", *filter(None, cameras))}
    for name, value in values.items():
        group, _, key = name.partition(".")
        if name in _OF_NODE:
            full[name] = _checked(name, value, _OF_NODE[name])
        elif key in _OF_CAMERA and group in of_camera:
            of_camera[group][key] = _checked(name, value, _OF_CAMERA[key])
        elif group not in _ELSEWHERE:
            unknown.append(name)
    full["cameras"] = cameras

    def values_of(camera: str) -> dict[str, object]:
        common = {row.name: row.default for row in CAMERA_TABLE} | of_camera["camera"]
        return common | of_camera.get(camera, {})

    return settings_of(full, values_of), unknown


def _checked(name: str, value: object, row: Parameter) -> object:
    """A value of the parameter's type and within its limits."""
    default = row.default
    if "true" in row.choices:  # YAML's true is a bool
        return value
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default) or isinstance(value, list) and not all(isinstance(each, str) for each in value):
        raise SettingsError(f"{name} is {value!r}, expected a value like {default!r}")
    if row.limits and not row.limits[0] <= value <= row.limits[1]:
        raise SettingsError(f"{name} is {value}, expected {row.limits[0]:g} to {row.limits[1]:g}")
    return value


def _nodes(tree: object, prefix: str) -> Iterable[tuple[str, dict]]:
    """(full name, parameters) of each node in a parameter file, whose namespaces may be nested."""
    for name, inner in tree.items() if isinstance(tree, dict) else ():
        if isinstance(inner, dict) and isinstance(inner.get("ros__parameters"), dict):
            yield f"{prefix}/{str(name).strip('/')}", inner["ros__parameters"]
        elif isinstance(inner, dict):
            yield from _nodes(inner, f"{prefix}/{str(name).strip('/')}")


def _flat(tree: dict, prefix: str) -> Iterable[tuple[str, object]]:
    """(name with dots, value) of nested parameters."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _share() -> Path:
    """Where config/ is: in a clone, beside the package; else in the install space."""
    clone = Path(__file__).resolve().parent.parent.parent
    if (clone / "config" / "robots").is_dir():
        return clone
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory("depth_anything_ros"))
