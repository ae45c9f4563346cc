# SPDX-License-Identifier: Apache-2.0
"""Values of the parameters -> one consistent set of settings, checked against each other and against this machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from ..geometry import ROTATIONS, CloudSettings, ScaleSettings, ScanSettings, StabilizerSettings, TransformTree
from ..inference import candidates
from ..inference.estimator import choose_device
from ..models import Model, check_input_size, input_unit, locate, rows_of
from ..outputs import ColorSettings, OutputSettings
from ..pipeline import DepthSettings, RefineSettings
from .table import CAMERA_TABLE, TABLE
from .transforms import parse_transforms

_FAR = 100.0  # metres: how far a relative network with a scale is believed, unless max_depth says otherwise
_ORDERED = (
    ("color.min_depth", "color.max_depth"),
    ("cloud.min_height", "cloud.max_height"),
    ("scan.min_height", "scan.max_height"),
    ("scan.min_range", "scan.max_range"),
)
RESERVED_NAMES = {row.name.split(".")[0] for row in TABLE} | {"camera", "qos_overrides"}


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
    backend: str
    max_tokens: int
    identity: str = ""  # of weights that describe themselves: the file of a name may be written anew


@dataclass(frozen=True)
class CameraSettings:
    """Where a camera's images come from, and how they are to be taken: see `CAMERA_TABLE`."""

    image: str
    camera_info: str
    compressed: str
    image_transport: str
    frame_id: str
    rectify: str
    input_size: int
    rotation: int
    fov_deg: float


@dataclass(frozen=True)
class Settings:
    """One consistent set of parameters.

    Attributes:
        values: as they were set.
        model: the network's row of the zoo, or what its checkpoint says of itself.
        unit: both sides of the network's input are multiples of it, pixels.
    """

    values: dict[str, object]
    network: NetworkSettings
    model: Model
    unit: int
    refine: RefineSettings
    outputs: OutputSettings
    confidence: bool
    normalize_exposure: bool
    base_frame: str
    transforms: TransformTree
    scale_topic: str
    scale_max_offset: float
    calibration_file: str
    deterministic: bool
    image_bridge: str
    cameras: dict[str, CameraSettings]
    no_image_timeout: float
    malloc_tuning: bool


def settings_of(values: dict[str, object], of_camera: Callable[[str], dict[str, object]]) -> Settings:
    """The settings that parameters stand for.

    Nothing is loaded or downloaded: it takes milliseconds (the first use of CUDA aside).

    Args:
        values: of every parameter of `TABLE`, by name.
        of_camera: gives the values of `CAMERA_TABLE` for the camera of a name.

    Raises:
        ValueError: a value that is not allowed, or does not go with the others (SettingsError, ModelError and its kinds).
    """
    raw, values = values, dict(values)
    for row in TABLE:
        if row.choices and values[row.name] not in row.choices:
            raise SettingsError(
                f"{row.name} is '{values[row.name]}', expected one of: {', '.join(str(c) or repr(c) for c in row.choices)}"
            )
    row, encoder, values["encoder"] = rows_of(values["model"], values["encoder"], values["checkpoint"])
    chosen = {f.name: values[f.name] for f in fields(NetworkSettings) if f.name in values}
    network = NetworkSettings(**chosen, identity=row.identity)
    cameras = _cameras(values["cameras"], of_camera)
    unit = input_unit(row, encoder)
    for input_size in {network.input_size, *(camera.input_size for camera in cameras.values())} - {0}:
        check_input_size(input_size, unit)
    locate(network.model, network.encoder, network.checkpoint, values["allow_noncommercial"], download=False)
    if values["deterministic"]:
        if network.backend not in ("auto", "torch"):
            raise SettingsError(f"deterministic is true, which only torch is, but backend is '{network.backend}'")
        network = replace(network, backend="torch")
    candidates(network.backend, network.precision, choose_device(network.device))

    near, far = _range_of_depth(values, row)
    scale = _group(ScaleSettings, values, "scale", training_focal=row.training_focal)
    _check_scale(scale, values, network, row)
    depth = DepthSettings(
        near,
        far,
        values["edges.tolerance"],
        values["edges.upsampling"],
        values["filter.median"],
        values["filter.bilateral"],
        values["confidence.min"] if values["confidence.enabled"] else 0.0,
    )
    color = ColorSettings(values["color.map"], values["color.min_depth"], values["color.max_depth"])
    cloud, scan = _group(CloudSettings, values, "cloud"), _group(ScanSettings, values, "scan")
    scan = replace(scan, frame=(scan.frame or values["base_frame"]).lstrip("/"))
    return Settings(
        values=raw,
        model=row,
        unit=unit,
        cameras=cameras,
        network=network,
        refine=RefineSettings(depth, scale, _group(StabilizerSettings, values, "stabilizer")),
        outputs=OutputSettings(color, cloud, scan, values["out_of_range"] == "inf", near, far),
        confidence=values["confidence.enabled"],
        transforms=parse_transforms(values["transforms"]),
        base_frame=values["base_frame"].lstrip("/"),
        scale_topic=values["scale.topic"],
        scale_max_offset=values["scale.max_offset"],
        calibration_file=values["scale.calibration_file"],
        **{
            name: values[name]
            for name in (
                "deterministic",
                "image_bridge",
                "no_image_timeout",
                "malloc_tuning",
                "normalize_exposure",
            )
        },
    )


def _group(kind: type, values: dict[str, object], group: str, **more):
    """A dataclass of settings filled from the parameters `group.<field>`."""
    found = {f.name: values[f"{group}.{f.name}"] for f in fields(kind) if f"{group}.{f.name}" in values}
    return kind(**found, **more)


def _range_of_depth(values: dict[str, object], model: Model) -> tuple[float, float]:
    """The nearest and farthest valid metres; and all other ranges checked."""
    far = values["max_depth"] or model.max_depth or _FAR
    if model.max_depth and far > model.max_depth and values["scale.source"] == "none":
        raise SettingsError(
            f"max_depth is {far:g} m, but model '{values['model']}' measures up to {model.max_depth:g} m: set it lower, or 0"
        )
    if values["min_depth"] >= far:
        raise SettingsError(f"min_depth {values['min_depth']:g} m is not less than max_depth {far:g} m")
    for low, high in _ORDERED:
        none = (low, high) == ("cloud.min_height", "cloud.max_height") and not values[low] and not values[high]
        if values[low] >= values[high] and not none:
            raise SettingsError(f"{low} {values[low]:g} is not less than {high} {values[high]:g}")
    return values["min_depth"], far


def _check_scale(scale: ScaleSettings, values: dict[str, object], network: NetworkSettings, model: Model) -> None:
    """Refuse a source of metres that lacks what it needs."""
    if scale.source == "fixed" and not scale.network:
        mine = f"{network.model}/{network.encoder}/{network.input_size or model.input_size}"
        raise SettingsError(
            "scale.source is fixed, but scale.network is empty: say which network scale.a and scale.b were measured with, such "
            f"as '{mine}' if it was this one; the service calibrate writes all of them"
        )
    if scale.source == "sparse" and not values["scale.topic"]:
        raise SettingsError(
            "scale.source is sparse, but scale.topic is empty: name a PointCloud2, LaserScan or depth Image topic"
        )
    if scale.source == "focal" and not scale.training_focal:
        raise SettingsError(
            f"scale.source is focal, but it is not known what cameras model '{network.model}' learned on; it serves "
            "v2_metric_indoor and v2_metric_outdoor"
        )


def _cameras(names: list[str], of_camera: Callable[[str], dict[str, object]]) -> dict[str, CameraSettings]:
    """The settings of each camera."""
    if not names or len(set(names)) != len(names):
        raise SettingsError(f"cameras is {names}, expected one name or more, each once")
    result = {}
    for name in names:
        if name and (not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) or name in RESERVED_NAMES) or not name and len(names) > 1:
            raise SettingsError(
                f"'{name}' in cameras is no camera's name: expected letters, digits and underscores, and none of "
                f"{', '.join(sorted(RESERVED_NAMES))}"
            )
        values = of_camera(name)
        values["rectify"] = str(values["rectify"]).lower()
        group = f"{name or 'camera'}."
        for row in CAMERA_TABLE:
            if row.choices and values[row.name] not in row.choices:
                raise SettingsError(f"{group}{row.name} is '{values[row.name]}', expected one of: {', '.join(row.choices)}")
        if values["rotation"] not in ROTATIONS:
            raise SettingsError(f"{group}rotation is {values['rotation']}, expected 0, 90, 180 or 270")
        result[name] = CameraSettings(**values)
    return result
