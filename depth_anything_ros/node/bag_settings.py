# SPDX-License-Identifier: Apache-2.0
"""The parameters of the bag player, and what of a bag they choose."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

from ..replay.bag_input import BagInput
from ..stream.topics import OUTPUT_TYPES

_TABLE = (
    ("bag", "", "The bag: a folder, or a file (.mcap, .db3, .bag)"),
    ("pace", "node", "node: the next image when the depth node has dealt with the one before; time: as recorded, times rate"),
    ("rate", 1.0, "How many times as fast as recorded; pace time"),
    ("start", 0.0, "Seconds from the bag's beginning"),
    ("duration", 0.0, "Seconds to play from there; 0: to the end"),
    ("topics", [""], "Topics to play; nothing: all"),
    ("clock", True, "Publish the recorded time on /clock, unless the bag's own /clock is played"),
    ("depth_namespace", "depth_anything", "Namespace of the depth node"),
    ("wait_for_depth", True, "Begin when the depth node is ready; pace node always does"),
    (
        "settle",
        4.0,
        "Seconds from offering the topics to the first message, at least; the last of them without a change of readers",
    ),
    ("patience", 60.0, "Seconds that the depth node may be silent, or take for an image"),
)


class PlayerError(RuntimeError):
    """A bag that cannot be played, or not to its end; the message says why."""


@dataclass(frozen=True)
class PlayerSettings:
    """The parameters, by name; see the table."""

    bag: str
    pace: str
    rate: float
    start: float
    duration: float
    topics: tuple[str, ...]
    clock: bool
    depth_namespace: str
    wait_for_depth: bool
    settle: float
    patience: float

    def __post_init__(self):
        """Refuse what makes no sense.

        Raises:
            PlayerError: and says what would.
        """
        if not self.bag:
            raise PlayerError("bag is empty, expected the path of a bag: -p bag:=PATH")
        if self.pace not in ("node", "time"):
            raise PlayerError(f"pace is '{self.pace}', expected node or time")
        for name in (field.name for field in fields(self) if field.type == "float"):
            value, positive = getattr(self, name), name in ("rate", "patience")
            number = isinstance(value, (int, float)) and math.isfinite(value)
            if not number or value < 0 or (positive and not value):
                raise PlayerError(f"{name} is {value}, expected a number of {'more than' if positive else 'at least'} 0")


def read_settings(node: Node) -> PlayerSettings:
    """Declare the parameters, and read them.

    Raises:
        PlayerError, ParameterException: one has a value that makes no sense.
    """
    for name, default, description in _TABLE:
        numeric = isinstance(default, float)  # 2 for 2.0
        descriptor = ParameterDescriptor(description=description, read_only=True, dynamic_typing=numeric)
        node.declare_parameter(name, default, descriptor)
    values = {name: node.get_parameter(name).value for name, _, _ in _TABLE}
    topics = tuple("/" + name.strip().lstrip("/") for name in values["topics"] if name.strip())
    return PlayerSettings(**values | {"topics": topics, "depth_namespace": values["depth_namespace"].strip("/")})


def chosen_span(bag: BagInput, settings: PlayerSettings) -> tuple[int, int]:
    """Nanoseconds from which on, and before which, messages are played.

    Raises:
        PlayerError: there are none.
    """
    if not any(bag.counts.values()):
        raise PlayerError("; ".join([f"'{bag.path}' holds no messages", *bag.damage]))
    start_ns, end_ns = bag.start_ns + round(settings.start * 1e9), bag.end_ns + 1
    if start_ns >= end_ns:
        length = (bag.end_ns - bag.start_ns) / 1e9
        raise PlayerError(f"start is {settings.start:g}, but '{bag.path}' is only {length:.3f} s long")
    return start_ns, min(start_ns + round(settings.duration * 1e9), end_ns) if settings.duration else end_ns


def chosen_topics(bag: BagInput, settings: PlayerSettings) -> tuple[set[str], set[str]]:
    """(topics to play, topics that the depth node itself publishes and that are left to it).

    Raises:
        PlayerError: nothing is left to play, or the bag has no such topic.
    """
    there = f"its topics are: {', '.join(sorted(bag.topics))}"
    if unknown := sorted(set(settings.topics) - bag.topics.keys()):
        raise PlayerError(f"{', '.join(unknown)}: not in '{bag.path}'; {there}")
    asked = {name for name in settings.topics or bag.topics if bag.counts.get(name)}
    namespace = settings.depth_namespace
    own = {"/diagnostics", *(f"/{name}" for name in OUTPUT_TYPES if not namespace)}
    own = {name for name in asked if name in own or (namespace and name.startswith(f"/{namespace}/"))}
    if not asked - own:
        raise PlayerError(f"nothing to play in '{bag.path}'; {there}")
    return asked - own, own
