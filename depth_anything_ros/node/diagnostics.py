# SPDX-License-Identifier: Apache-2.0
"""The state of the node as a diagnostic status for each camera that says what is wrong in words."""

from __future__ import annotations

from collections.abc import Collection

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from ..stream.focal import KINDS
from ..stream.settings import Settings
from .network_slot import NetworkSlot
from .stream import CameraStream

_OK, _WARN, _ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def diagnose(
    name: str,
    state: str,
    settings: Settings | None,
    network: NetworkSlot,
    streams: Collection[CameraStream],
    failure: str,
) -> DiagnosticArray:
    """One status named `<node>: depth`, with several cameras `<node>: depth <camera>`; the caller stamps and publishes it."""
    common = {"state": state}
    if settings:
        running = network.running
        asked = running.settings.network if running else settings.network
        common |= {
            "model": asked.model,
            "encoder": asked.encoder,
            "input size": str(running.estimator.input_size if running else asked.input_size),
            "device": str(running.estimator.device if running else asked.device),
            "backend": running.estimator.executor.backend.name if running else asked.backend,
            "precision": running.estimator.executor.backend.precision if running else asked.precision,
            "backends refused": "; ".join(running.estimator.executor.refused) if running else "",
            "checkpoint": asked.checkpoint or "published",
            "kind": KINDS[(running.settings if running else settings).model.kind],
            "licence": (running.settings if running else settings).model.licence(asked.encoder),
            "network": "loading" if network.loading else "ready" if running else "none",
        }
    array = DiagnosticArray()
    for stream in streams or (None,):
        level, message = _judge_node(state, network, failure) or _judge_camera(stream, settings, network)
        values = common | (_describe(stream, settings) if stream else {})
        title = f"{name}: depth {stream.name if stream else ''}".rstrip()
        status = DiagnosticStatus(level=level, name=title, message=message, hardware_id=values.get("image topic", ""))
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        array.status.append(status)
    return array


def _describe(stream: CameraStream, settings: Settings) -> dict[str, str]:
    scale = stream.refined.scale
    return {
        "image topic": stream.source.image_topic,
        "camera_info topic": stream.source.topics["camera_info"],
        "calibration": stream.calibration,
        "focal length": stream.focal,
        "frame_id": stream.frame_id + ("" if stream.optical else " (not optical by its name)"),
        **({f"scale {key}": value for key, value in scale.report().items()} if scale else {}),
        **({"scale problem": scale.problem} if scale and scale.problem else {}),
        "stabilizer": stream.refined.steadiness or ("waiting for metres" if settings.refine.stabilizer.enabled else "off"),
        "qos mismatch": stream.source.mismatch,
        **stream.statistics.report(),
    }


def _judge_node(state: str, network: NetworkSlot, failure: str) -> tuple[bytes, str] | None:
    """What is wrong with the node as a whole."""
    if failure:
        return _ERROR, failure
    if network.error:
        return _ERROR, network.error
    if state != "active":
        return _WARN, f"not active ({state})"
    if network.running is None:
        return _WARN, "loading the network"
    return None


def _judge_camera(stream: CameraStream, settings: Settings, network: NetworkSlot) -> tuple[bytes, str]:
    statistics = stream.statistics
    if stream.source.mismatch:
        return _WARN, stream.source.mismatch
    if statistics.silence > settings.no_image_timeout:
        return _WARN, f"no image for {statistics.silence:.0f} s: {stream.source.describe_publishers()}"
    if statistics.troubled:
        return _WARN, statistics.last_problem
    return _OK, "loading another network" if network.loading else "running"
