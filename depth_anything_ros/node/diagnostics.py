# SPDX-License-Identifier: Apache-2.0
"""The state of the node as a diagnostic status that says what is wrong in words."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from ..models import MODELS
from .camera_input import CameraInput
from .network_slot import NetworkSlot
from .parameters import Settings
from .statistics import Statistics

_OK, _WARN, _ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def diagnose(
    name: str,
    state: str,
    settings: Settings | None,
    network: NetworkSlot,
    source: CameraInput | None,
    statistics: Statistics,
    failure: str,
) -> DiagnosticArray:
    """One status named `<node>: depth`; the caller stamps and publishes it."""
    level, message = _judge(state, settings, network, source, statistics, failure)
    values = {"state": state}
    if settings:
        running = network.running
        asked = running.settings.network if running else settings.network
        values |= {
            "model": asked.model,
            "encoder": asked.encoder,
            "input size": str(running.estimator.input_size if running else asked.input_size),
            "device": str(running.estimator.device if running else asked.device),
            "precision": running.estimator.precision if running else asked.precision,
            "checkpoint": asked.checkpoint or "published",
            "licence": MODELS[asked.model].licence(asked.encoder),
            "network": "loading" if network.loading else "ready" if running else "none",
        }
    if source:
        values |= {
            "image topic": source.image_topic,
            "camera_info topic": source.topics["camera_info"],
            "qos mismatch": source.mismatch,
        }
    values |= statistics.report()
    status = DiagnosticStatus(level=level, name=f"{name}: depth", message=message, hardware_id=values.get("image topic", ""))
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticArray(status=[status])


def _judge(state, settings, network, source, statistics, failure):
    if failure:
        return _ERROR, failure
    if network.error:
        return _ERROR, network.error
    if state != "active":
        return _WARN, f"not active ({state})"
    if network.running is None:
        return _WARN, "loading the network"
    if source and source.mismatch:
        return _WARN, source.mismatch
    if source and statistics.silence > settings.no_image_timeout:
        return _WARN, f"no image for {statistics.silence:.0f} s: {source.describe_publishers()}"
    if statistics.troubled:
        return _WARN, statistics.last_problem
    return _OK, "loading another network" if network.loading else "running"
