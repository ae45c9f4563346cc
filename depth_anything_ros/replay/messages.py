# SPDX-License-Identifier: Apache-2.0
"""What a bag holds: topics, and serialised messages with the time at which they were recorded."""

from __future__ import annotations

import array
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Qos, QosDurability
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

TF_STATIC = "tf_static"
"""What the names of topics of fixed transforms end in."""


class BagError(ValueError):
    """A bag that cannot be read, or not be written; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Topic:
    """A topic of a bag.

    Attributes:
        type: such as "sensor_msgs/msg/Image".
        definition: of the type, as it was recorded; may be empty.
        digest: RIHS01 hash of the type; may be empty.
        qos: as the publishers offered it.
    """

    name: str
    type: str
    definition: MessageDefinition
    digest: str = ""
    qos: tuple[Qos, ...] = ()

    @property
    def latched(self) -> bool:
        """Whether what was said stays true for those who come later."""
        return self.name.endswith(TF_STATIC) or any(each.durability == QosDurability.TRANSIENT_LOCAL for each in self.qos)


@dataclass(frozen=True)
class Recorded:
    """A serialised message, and the nanoseconds since the epoch at which it was recorded."""

    topic: str
    time_ns: int
    cdr: bytes | memoryview


@lru_cache(maxsize=1)
def typestore():
    """Definitions of the standard messages; they are on every distro the same, where it matters here."""
    return get_typestore(Stores.LATEST)


def type_name(kind: type) -> str:
    """Such as "sensor_msgs/msg/Image", of a class of messages."""
    package, _, _ = kind.__module__.partition(".")
    return f"{package}/msg/{kind.__name__}"


def to_cdr(message: object) -> memoryview:
    """A message, serialised. rclpy leaves in the gaps between fields what the memory held; here they are 0, run after run."""
    return typestore().serialize_cdr(_plain(message), type_name(type(message)))


def _plain(value: object) -> object:
    """A message of rclpy as one of rosbags; arrays are not copied."""
    if hasattr(value, "get_fields_and_field_types"):
        fields = {name: _plain(getattr(value, name)) for name in value.get_fields_and_field_types()}
        return typestore().types[type_name(type(value))](**fields)
    if isinstance(value, array.array):
        return np.frombuffer(value, value.typecode) if len(value) else np.empty(0, value.typecode)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value[0] if isinstance(value, bytes) else value  # an octet, such as the level of a DiagnosticStatus


def described(topic: Topic) -> tuple[str, str]:
    """The (definition, RIHS01 hash) that a bag has to state of a topic's type; what the recording lacks is looked up."""
    known = typestore().fielddefs
    if topic.definition.format == MessageDefinitionFormat.NONE:
        if topic.type not in known:
            return "", topic.digest or _digest(topic.type, MessageDefinition(MessageDefinitionFormat.MSG, ""))
        return typestore().generate_msgdef(topic.type, ros_version=2)[0], topic.digest or typestore().hash_rihs01(topic.type)
    return topic.definition.data, topic.digest or _digest(topic.type, topic.definition)


@lru_cache(maxsize=256)
def _digest(kind: str, definition: MessageDefinition) -> str:
    store = get_typestore(Stores.EMPTY)
    try:
        if definition.format == MessageDefinitionFormat.MSG:
            store.register(get_types_from_msg(definition.data, kind))
        else:
            for part in definition.data.split("=" * 80 + "\n"):
                store.register(get_types_from_idl(part.split("\n", 1)[1] if part.startswith("IDL: ") else part))
        return store.hash_rihs01(kind)
    except Exception:  # a definition that cannot be parsed is kept as it is
        return "RIHS01_" + 64 * "0"
