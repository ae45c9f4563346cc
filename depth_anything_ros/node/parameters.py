# SPDX-License-Identifier: Apache-2.0
"""Every parameter of the depth node in one table: it declares, documents and validates them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from ..geometry import COLORMAPS, ROTATIONS
from ..inference.estimator import PRECISIONS, choose_device, choose_precision
from ..inference.preprocessing import check_input_size
from ..messages.bridge import BRIDGES
from ..messages.camera_info import RECTIFY
from ..models import METRIC, MODELS, check_licence, default_encoder, locate, lookup
from ..pipeline import ColorSettings, DepthSettings

ENCODER_CHOICES = ("", "vits", "vitb", "vitl", "vitg", "tiny")
TRANSPORTS = ("auto", "raw", "compressed")


@dataclass(frozen=True)
class Parameter:
    """One row. `dynamic`: it may change while the node is active; the others are read when the node is configured."""

    name: str
    default: bool | int | float | str | list[str]
    description: str
    choices: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    dynamic: bool = True


TABLE = (
    Parameter("model", "v2_metric_indoor", "Network. Metres: v2_metric_indoor, v2_metric_outdoor, demo (never for a robot). "
              "Unitless inverse depth: v1, v2", tuple(MODELS)),
    Parameter("encoder", "", "Size of the network: vits, vitb, vitl (vitg: model v2 with your own checkpoint). "
              "Empty: the model's smallest, vits", ENCODER_CHOICES),
    Parameter("input_size", 0, "Short side in pixels that images are resized to, a multiple of 14 (demo: 16). "
              "0: the model's own, 518", limits=(0, 4096)),
    Parameter("checkpoint", "", "Path of a .pth or .safetensors file. Empty: the published file, downloaded on first use"),
    Parameter("device", "auto", "auto, cpu, cuda, cuda:N or mps"),
    Parameter("precision", "auto", "Of the encoder; auto: fp16 on CUDA, fp32 elsewhere", ("auto", *PRECISIONS)),
    Parameter("backend", "auto", "What executes the network; auto: torch", ("auto", "torch")),
    Parameter("allow_noncommercial", False, "Accept weights whose licence forbids commercial use (V2 vitb, vitl, vitg)"),
    Parameter("deterministic", False, "Same input, same bytes out, run after run on one machine; may be slower", dynamic=False),
    Parameter("min_depth", 0.05, "Metres; nearer is invalid", limits=(0.0, 1000.0)),
    Parameter("max_depth", 0.0, "Metres; farther is invalid. 0: the model's own maximum. It never rescales depth",
              limits=(0.0, 1000.0)),
    Parameter("image_bridge", "auto", "Converter of raw images; auto: cv_bridge where it is installed and safe, else built-in",
              BRIDGES, dynamic=False),
    Parameter("no_image_timeout", 2.0, "Seconds without an image after which diagnostics warn", limits=(0.1, 3600.0)),
    Parameter("autostart", True, "Configure and activate at start; false: leave that to a lifecycle manager", dynamic=False),
    Parameter("malloc_tuning", True, "Let glibc reuse buffers of image size (mallopt)", dynamic=False),
    Parameter("cameras", [""], "Names of the cameras that this node serves. One empty name: one camera, whose topics have no "
              "prefix; else every topic begins with its camera's name, and <name>.* overrides camera.* for it", dynamic=False),
    Parameter("edges.tolerance", 0.02, "Depth that agrees with no surface beside it to this share is between two surfaces, "
              "and invalid: no points in the air. 0: leave it", limits=(0.0, 1.0)),
    Parameter("color.map", "turbo", "Colour map of depth/color", tuple(COLORMAPS)),
    Parameter("color.min_depth", 0.0, "Metres at the near end of the colour map", limits=(0.0, 1000.0)),
    Parameter("color.max_depth", 10.0, "Metres at the far end of the colour map", limits=(0.01, 1000.0)),
)  # fmt: skip

CAMERA_TABLE = (
    Parameter("image", "", "Image topic. Empty: image (remap it), and with several cameras <name>/image", dynamic=False),
    Parameter("camera_info", "", "Its camera_info topic. Empty: camera_info beside the image topic", dynamic=False),
    Parameter("compressed", "", "Its compressed topic. Empty: <image>/compressed", dynamic=False),
    Parameter(
        "image_transport",
        "auto",
        "Which image topic to read; auto: the raw one, or the compressed one where no raw one is published",
        TRANSPORTS,
        dynamic=False,
    ),
    Parameter(
        "frame_id",
        "",
        "Optical frame of all outputs, where the driver's frame_id is wrong. Empty: the image's own",
        dynamic=False,
    ),
    Parameter(
        "rectify",
        "auto",
        "true: depth is computed on the rectified view; rays: on the image as it is, with true rays for the "
        "cloud; false: the image is rectified already, whatever its D says; auto: false for topics named rect, else true, but "
        "rays for views wider than 120 degrees",
        RECTIFY,
        dynamic=False,
    ),
    Parameter(
        "rotation",
        0,
        "Degrees clockwise by which the image must be turned to stand upright: 0, 90, 180, 270. The network "
        "sees the turned image; outputs stay in the camera's frame",
        limits=(0, 270),
        dynamic=False,
    ),
    Parameter(
        "fov_deg",
        0.0,
        "Horizontal field of view to assume where the camera has no calibration. 0: none, and no cloud",
        limits=(0.0, 170.0),
        dynamic=False,
    ),
)
_GROUPS = {row.name.split(".")[0] for row in TABLE} | {"camera", "qos_overrides"}


class SettingsError(ValueError):
    """Parameters that do not go together; the message says which and what to set instead."""


@dataclass(frozen=True)
class NetworkSettings:
    """What decides which network is loaded: a change of any of these loads another."""

    model: str
    encoder: str
    input_size: int
    checkpoint: str
    device: str
    precision: str


@dataclass(frozen=True)
class CameraSettings:
    """Where a camera's images come from, and how they are to be taken: see `CAMERA_TABLE`."""

    image: str
    camera_info: str
    compressed: str
    image_transport: str
    frame_id: str
    rectify: str
    rotation: int
    fov_deg: float


@dataclass(frozen=True)
class Settings:
    """One consistent set of parameters; `values` holds them as they were set."""

    values: dict[str, object]
    network: NetworkSettings
    depth: DepthSettings
    color: ColorSettings
    deterministic: bool
    image_bridge: str
    cameras: dict[str, CameraSettings]
    no_image_timeout: float
    malloc_tuning: bool


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
    """The node's parameters, with `changes` on top, checked against each other and against this machine.

    Nothing is loaded or downloaded: it takes milliseconds (the first use of CUDA aside).

    Raises:
        ValueError: a value that is not allowed, or does not go with the others (SettingsError, ModelError and its kinds).
    """
    values = current(node) | (changes or {})
    raw = dict(values)
    for row in TABLE:
        if row.choices and values[row.name] not in row.choices:
            raise SettingsError(
                f"{row.name} is '{values[row.name]}', expected one of: {', '.join(c or repr(c) for c in row.choices)}"
            )
    values["encoder"] = values["encoder"] or default_encoder(values["model"])
    network = NetworkSettings(**{f.name: values[f.name] for f in fields(NetworkSettings)})
    row, encoder = lookup(network.model, network.encoder)
    if network.input_size:
        check_input_size(network.input_size, encoder.patch)
    # Whatever the file's name: weights that were tuned from non-commercial ones are under the same licence.
    check_licence(network.model, network.encoder, values["allow_noncommercial"])
    locate(network.model, network.encoder, network.checkpoint, values["allow_noncommercial"], download=False)
    choose_precision(network.precision, choose_device(network.device))

    far = values["max_depth"] or (row.max_depth if row.kind == METRIC else 1000.0)
    if row.kind == METRIC and far > row.max_depth:
        raise SettingsError(
            f"max_depth is {far:g} m, but model '{network.model}' measures up to {row.max_depth:g} m: set it lower, or 0"
        )
    if values["min_depth"] >= far:
        raise SettingsError(f"min_depth {values['min_depth']:g} m is not less than max_depth {far:g} m")
    if values["color.min_depth"] >= values["color.max_depth"]:
        raise SettingsError(
            f"color.min_depth {values['color.min_depth']:g} is not less than color.max_depth {values['color.max_depth']:g}"
        )
    return Settings(
        values=raw,
        cameras=_cameras(node, values["cameras"]),
        network=network,
        depth=DepthSettings(values["min_depth"], far, values["edges.tolerance"]),
        color=ColorSettings(values["color.map"], values["color.min_depth"], values["color.max_depth"]),
        **{name: values[name] for name in ("deterministic", "image_bridge", "no_image_timeout", "malloc_tuning")},
    )


def _cameras(node: Node, names: list[str]) -> dict[str, CameraSettings]:
    """The settings of each camera: `<name>.*`, or what `camera.*` says where that is not set."""
    if not names or len(set(names)) != len(names):
        raise SettingsError(f"cameras is {names}, expected one name or more, each once")
    result = {}
    for name in names:
        if name and (not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) or name in _GROUPS) or not name and len(names) > 1:
            raise SettingsError(
                f"'{name}' in cameras is no camera's name: expected letters, digits and underscores, and none of "
                f"{', '.join(sorted(_GROUPS))}"
            )
        values = {row.name: node.get_parameter(f"camera.{row.name}").value for row in CAMERA_TABLE}
        for row in CAMERA_TABLE if name else ():
            if not node.has_parameter(f"{name}.{row.name}"):
                _declare(node, f"{name}.{row.name}", row, values[row.name])
            values[row.name] = node.get_parameter(f"{name}.{row.name}").value
        values["rectify"] = str(values["rectify"]).lower()
        group = f"{name or 'camera'}."
        for row in CAMERA_TABLE:
            if row.choices and values[row.name] not in row.choices:
                raise SettingsError(f"{group}{row.name} is '{values[row.name]}', expected one of: {', '.join(row.choices)}")
        if values["rotation"] not in ROTATIONS:
            raise SettingsError(f"{group}rotation is {values['rotation']}, expected 0, 90, 180 or 270")
        result[name] = CameraSettings(**values)
    return result


def current(node: Node) -> dict[str, object]:
    """Name -> value of every parameter of the table."""
    return {row.name: node.get_parameter(row.name).value for row in TABLE}


def fixed_while_active(cameras: Iterable[str]) -> set[str]:
    """Names of the parameters that are only read when the node is configured."""
    groups = {"camera", *cameras} - {""}
    return {row.name for row in TABLE if not row.dynamic} | {f"{group}.{row.name}" for group in groups for row in CAMERA_TABLE}
