# SPDX-License-Identifier: Apache-2.0
"""What can still be read of a storage file that was cut off or damaged: whole messages, and nothing else.

MCAP is read record by record, since its index stands at its end; of a chunk, all messages are taken or none. SQLite is read
row by row in the order of writing, since the index of times may be lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import apsw
import mcap.records
from mcap.exceptions import EndOfFile, McapError
from mcap.stream_reader import StreamReader, breakup_chunk, get_chunk_data_stream
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2.metadata import parse_qos

from .messages import Recorded, Topic

_FORMATS = {"ros2msg": MessageDefinitionFormat.MSG, "ros2idl": MessageDefinitionFormat.IDL}
_NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, "")
_VFS = "depth_anything_salvage"
_MOST_LOST = 200  # rows in a row, after which the rest is taken for lost, too


def salvage(path: Path) -> Iterator[tuple[Topic, Recorded]]:
    """The readable messages of a `.mcap` or `.db3` file, in the order of writing. It never raises."""
    return _of_mcap(path) if path.suffix == ".mcap" else _of_sqlite(path)


def _of_mcap(path: Path) -> Iterator[tuple[Topic, Recorded]]:
    schemas: dict[int, mcap.records.Schema] = {}
    topics: dict[int, Topic] = {}
    with path.open("rb") as file, contextlib.suppress(McapError, ValueError, OSError, MemoryError, KeyError):
        for record in StreamReader(_Exact(file), emit_chunks=True).records:
            for inner in _inside(record) if isinstance(record, mcap.records.Chunk) else [record]:
                if isinstance(inner, mcap.records.Schema):
                    schemas[inner.id] = inner
                elif isinstance(inner, mcap.records.Channel):
                    topics[inner.id] = _topic_of(inner, schemas.get(inner.schema_id))
                elif isinstance(inner, mcap.records.Message) and inner.channel_id in topics:
                    topic = topics[inner.channel_id]
                    yield topic, Recorded(topic.name, inner.log_time, inner.data)


def _inside(chunk: mcap.records.Chunk) -> list:
    """The records of a chunk, messages by time; none if it is damaged."""
    try:
        if get_chunk_data_stream(chunk, validate_crc=True)[1] != chunk.uncompressed_size:
            return []
        records = breakup_chunk(chunk)
    except Exception:  # each codec has its own kinds
        return []
    return sorted(records, key=lambda record: getattr(record, "log_time", 0))


def _topic_of(channel: mcap.records.Channel, schema: mcap.records.Schema | None) -> Topic:
    definition = _NO_DEFINITION
    if schema and schema.encoding in _FORMATS:
        definition = MessageDefinition(_FORMATS[schema.encoding], schema.data.decode())
    qos = parse_qos(channel.metadata.get("offered_qos_profiles", ""))
    return Topic(channel.topic, schema.name if schema else "", definition, "", tuple(qos))


class _Exact:
    """A file whose `read` gives all that was asked for or raises: mcap's own would take half a message for a whole one."""

    def __init__(self, file):
        self._file = file

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise EndOfFile
        return data


class _WholePages(apsw.VFSFile):
    """A database file without the piece of a page that it may end in: SQLite would take what is missing of it for zeros."""

    def xFileSize(self) -> int:
        head = self.xRead(18, 0)
        page = int.from_bytes(head[16:18], "big")
        page = 65536 if page == 1 else page
        return super().xFileSize() // page * page if page else 0


class _WholePagesVfs(apsw.VFS):
    def __init__(self):
        super().__init__(_VFS, base="")

    def xOpen(self, name, flags):
        return _WholePages("", name, flags)


@lru_cache(maxsize=1)
def _registered() -> _WholePagesVfs:
    """One for all databases, for as long as the process lives."""
    return _WholePagesVfs()


def _of_sqlite(path: Path) -> Iterator[tuple[Topic, Recorded]]:
    _registered()
    address, flags = f"{path.resolve().as_uri()}?immutable=1", apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    try:
        database = apsw.Connection(address, flags=flags, vfs=_VFS)
    except (apsw.Error, OSError):
        return
    with contextlib.closing(database):
        try:
            # Without it a file that is shorter than its header says is not read at all.
            database.execute("PRAGMA writable_schema=ON")
            topics = _sqlite_topics(database)
        except (apsw.Error, OSError, UnicodeDecodeError):
            return
        last, lost = 0, 0
        while lost <= _MOST_LOST:
            try:
                for row, topic, time_ns, data in database.execute(
                    "SELECT id, topic_id, timestamp, data FROM messages WHERE id > ? ORDER BY id", (last,)
                ):
                    if row <= last:
                        return
                    last, lost = row, 0
                    if topic in topics and isinstance(data, bytes):
                        yield topics[topic], Recorded(topics[topic].name, time_ns, data)
                return
            except (apsw.Error, OSError):
                last, lost = last + 1, lost + 1


def _sqlite_topics(database: apsw.Connection) -> dict[int, Topic]:
    names = {row[1] for row in database.execute("PRAGMA table_info(topics)")}
    qos = "offered_qos_profiles" if "offered_qos_profiles" in names else "''"
    digest = "type_description_hash" if "type_description_hash" in names else "''"
    definitions = {}
    with contextlib.suppress(apsw.Error):  # a table of newer bags
        for kind, encoding, text in database.execute(
            "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
        ):
            definitions[kind] = MessageDefinition(_FORMATS[encoding], text) if encoding in _FORMATS else _NO_DEFINITION
    return {
        key: Topic(name, kind, definitions.get(kind, _NO_DEFINITION), found or "", tuple(parse_qos(offered)))
        for key, name, kind, found, offered in database.execute(f"SELECT id, name, type, {digest}, {qos} FROM topics")
    }
