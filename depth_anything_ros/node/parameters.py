# SPDX-License-Identifier: Apache-2.0
"""The depth node's parameters in ROS: declared, and read as settings."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from ..stream.settings import Settings, settings_of
from ..stream.table import CAMERA_TABLE, TABLE, Parameter


def declare(node: Node) -> None:
    """Declare the whole table on a node, with descriptions, ranges and choices."""
    for row in TABLE:
        _declare(node, row.name, row, row.default)
    for row in CAMERA_TABLE:
        _declare(node, f"camera.{row.name}", row, row.default)


def _declare(node: Node, name: str, row: Parameter, default: object) -> None:
    descriptor = ParameterDescriptor(description=row.description, dynamic_typing="true" in row.choices)  # YAML's true is a bool
    if row.choices:
        descriptor.additional_constraints = "one of: " + ", ".join(repr(choice) for choice in row.choices)
    if row.limits and isinstance(row.default, int):
        low, high = (int(limit) for limit in row.limits)
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    elif row.limits:
        descriptor.floating_point_range = [FloatingPointRange(from_value=row.limits[0], to_value=row.limits[1])]
    node.declare_parameter(name, default, descriptor)


def read(node: Node, changes: dict[str, object] | None = None) -> Settings:
    """The settings that the node's parameters stand for, with `changes` on top.

    Raises:
        ValueError: see `settings_of`.
    """
    return settings_of(current(node) | (changes or {}), functools.partial(_of_camera, node))


def _of_camera(node: Node, name: str) -> dict[str, object]:
    """`<name>.*`, or what `camera.*` says where that is not set."""
    values = {row.name: node.get_parameter(f"camera.{row.name}").value for row in CAMERA_TABLE}
    for row in CAMERA_TABLE if name else ():
        if not node.has_parameter(f"{name}.{row.name}"):
            _declare(node, f"{name}.{row.name}", row, values[row.name])
        values[row.name] = node.get_parameter(f"{name}.{row.name}").value
    return values


def current(node: Node) -> dict[str, object]:
    """Name -> value of every parameter of the table."""
    return {row.name: node.get_parameter(row.name).value for row in TABLE}


def fixed_while_active(cameras: Iterable[str]) -> set[str]:
    """Names of the parameters that are only read when the node is configured."""
    groups = {"camera", *cameras} - {""}
    return {row.name for row in TABLE if not row.dynamic} | {f"{group}.{row.name}" for group in groups for row in CAMERA_TABLE}
