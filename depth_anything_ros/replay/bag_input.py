# SPDX-License-Identifier: Apache-2.0
"""Reading bags of every kind: rosbag2 in SQLite or MCAP, folder or single file, compressed, cut off; ROS 1 bags.

The input is only ever opened for reading. What cannot be read is said in `damage`; what can be, is read.
"""

from __future__ import annotations

import copy
import re
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import yaml
from rosbags.convert.converter import ConverterError, convert
from rosbags.rosbag2 import Reader

from .messages import BagError, Recorded, Topic, typestore
from .salvage import salvage

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_STORAGES = {".mcap": "mcap", ".db3": "sqlite3"}
_FOREVER = 2**63 - 1
_ZSTD = b"\x28\xb5\x2f\xfd"


class BagInput:
    """A bag. `messages` may be asked again and again.

    Attributes:
        path: of the bag.
        storage: "mcap" or "sqlite3".
        topics: by name.
        counts: messages by topic, as far as the bag says.
        start_ns, end_ns: of the first and the last message, nanoseconds since the epoch; equal without messages.
        files: that it is made of.
        damage: what could not be read, in words; complete after a pass through `messages`.
    """

    def __init__(self, path: Path | str):
        """Look at a bag.

        Raises:
            BagError: there is none, or nothing of it can be read.
        """
        self.path = Path(path).expanduser()
        if not self.path.exists():
            raise BagError(f"there is no bag '{self.path}'")
        self.damage: list[str] = []
        self.topics: dict[str, Topic] = {}
        self.counts: dict[str, int] = {}
        self.start_ns, self.end_ns = _FOREVER, 0
        self._unindexed: set[Path] = set()  # read record by record
        self._from_ns, self._to_ns = 0, _FOREVER
        self._decompressed: dict[Path, tempfile.TemporaryDirectory] = {}  # the last one; goes with us
        self._converted: tempfile.TemporaryDirectory | None = None  # of a ROS 1 bag; goes with us
        folder = self._from_ros1() if self.path.suffix == ".bag" else self.path
        self._files = self._files_of(folder)
        self.files = [self.path] if self._converted else self._files
        self.storage = _STORAGES[_plain(self._files[0]).suffix]
        for file in self._files:
            self._look_at(file)
        self.start_ns = min(self.start_ns, self.end_ns)
        if not self.topics:
            raise BagError("; ".join([f"nothing can be read of '{self.path}'", *self.damage]))

    def share(self, start_ns: int, end_ns: int) -> float:
        """Of the bag's time, what lies from `start_ns` on and before `end_ns`."""
        inside = min(end_ns, self.end_ns + 1) - max(start_ns, self.start_ns)
        return max(0, inside) / (self.end_ns + 1 - self.start_ns)

    def between(self, start_ns: int, end_ns: int) -> BagInput:
        """The same bag, as if nothing else were in it; how many messages there are is estimated."""
        part = copy.copy(self)
        part._from_ns, part._to_ns = start_ns, end_ns
        part.counts = {name: round(self.share(start_ns, end_ns) * count) for name, count in self.counts.items()}
        return part

    def messages(self, start_ns: int = 0, end_ns: int = _FOREVER, topics: Collection[str] | None = None) -> Iterator[Recorded]:
        """The messages recorded from `start_ns` on and before `end_ns`, file by file, by time.

        Args:
            topics: names; None: all.
        """
        start_ns, end_ns = max(start_ns, self._from_ns), min(end_ns, self._to_ns)
        for file in self._files:
            with self._plain_file(file) as path:
                last, at_last = start_ns, Counter()  # messages of that very time are known by their number
                if file not in self._unindexed:
                    try:
                        for recorded in self._intact(path, start_ns, end_ns, topics):
                            yield recorded
                            if recorded.time_ns > last:
                                last, at_last = recorded.time_ns, Counter()
                            at_last[recorded.topic] += 1
                        continue
                    except Exception as error:  # readers, codecs and SQLite have no common kind
                        where = f"second {(last - self.start_ns) / 1e9:.3f} of the bag"
                        self._note(file, f"damaged behind {where} ({_line(error)}): what can still be read is taken")
                for topic, recorded in salvage(path):
                    known = self.topics.get(topic.name)  # None: it was left out when the file was looked at
                    asked = known and known.type == topic.type and (topics is None or topic.name in topics)
                    if not asked or not last <= recorded.time_ns < end_ns:
                        continue
                    if recorded.time_ns == last and at_last[topic.name]:
                        at_last[topic.name] -= 1
                        continue
                    try:
                        yield replace(recorded, cdr=_unzipped(recorded.cdr))
                    except zstd.ZstdError as error:
                        self._note(file, f"a message on '{topic.name}' cannot be decompressed: {_line(error)}")

    def _intact(self, path: Path, start_ns: int, end_ns: int, topics: Collection[str] | None) -> Iterator[Recorded]:
        with Reader(path) as reader:
            asked = [each for each in reader.connections if self._takes(each) and (topics is None or each.topic in topics)]
            for connection, time_ns, data in reader.messages(asked, start_ns, end_ns) if asked else ():
                yield Recorded(connection.topic, time_ns, _unzipped(data))

    def _takes(self, connection) -> bool:
        known = self.topics.get(connection.topic)
        return known is not None and known.type == connection.msgtype and connection.ext.serialization_format == "cdr"

    def _look_at(self, file: Path) -> None:
        """Take in what a file says of its topics and times."""
        with self._plain_file(file) as path:
            problem = ""
            try:
                with Reader(path) as reader:
                    if not reader.message_count or next(reader.messages(), None):  # MCAP need not have indexes of messages
                        self._take_in(file, reader)
                        return
            except KeyError:  # of a kind of definition that rosbags does not know, such as Jazzy's "unknown"
                pass
            except Exception as error:
                problem = _line(error).replace(str(path), file.name)
            self._unindexed.add(file)
            found, end_ns = 0, 0
            for topic, recorded in salvage(path):
                self._count(topic, 1)
                self._span(recorded.time_ns, recorded.time_ns)
                found, end_ns = found + 1, recorded.time_ns
            if problem:
                last = f", the last of second {(end_ns - self.start_ns) / 1e9:.3f} of the bag" if found else ""
                self._note(file, f"cut off or damaged ({problem.rstrip('.')}): {found} messages can be read{last}")

    def _take_in(self, file: Path, reader: Reader) -> None:
        for each in reader.connections:
            topic = Topic(each.topic, each.msgtype, each.msgdef, each.digest, tuple(each.ext.offered_qos_profiles))
            if each.ext.serialization_format == "cdr":
                self._count(topic, each.msgcount)
            if not self._takes(each):
                what = f"{each.msgcount} messages of {each.msgtype} in {each.ext.serialization_format}"
                self._note(file, f"'{each.topic}': {what} are left out")
        if reader.message_count:
            self._span(reader.start_time, reader.end_time - 1)

    def _count(self, topic: Topic, messages: int) -> None:
        if self.topics.setdefault(topic.name, topic).type == topic.type:
            self.counts[topic.name] = self.counts.get(topic.name, 0) + messages

    def _span(self, first_ns: int, last_ns: int) -> None:
        self.start_ns, self.end_ns = min(self.start_ns, first_ns), max(self.end_ns, last_ns)

    def _note(self, file: Path, text: str) -> None:
        line = f"{file.name}: {text}"
        if line not in self.damage:
            self.damage.append(line)

    def _files_of(self, path: Path) -> list[Path]:
        """The storage files of a bag in order."""
        if path.is_file():
            if _plain(path).suffix not in _STORAGES:
                raise BagError(f"'{path}' is no bag: expected a folder, .mcap, .db3 or .bag")
            return [path]
        there = sorted((file for file in path.iterdir() if _plain(file).suffix in _STORAGES), key=_by_number)
        try:
            said = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
            named = [path / Path(name).name for name in said["relative_file_paths"]]
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            if not there:
                raise BagError(f"'{path}' is no bag: there is no .mcap and no .db3 in it") from error
            self.damage.append(f"metadata.yaml cannot be read ({_line(error)}): taking {', '.join(f.name for f in there)}")
            return there
        for files, what in (
            ([file for file in named if not file.exists()], "names what is not there"),
            ([file for file in there if file not in named], "does not name, so that they are left out"),
        ):
            if files:
                self.damage.append(f"metadata.yaml {what}: {', '.join(file.name for file in files)}")
        found = [file for file in named if file.exists()]
        if not found:
            raise BagError(f"'{path}' is no bag: {'; '.join(self.damage) or 'metadata.yaml names no file'}")
        return found

    @contextmanager
    def _plain_file(self, file: Path) -> Iterator[Path]:
        """The file itself; or a temporary one, if it is compressed as a whole, or SQLite was killed while it wrote."""
        if file.suffix != ".zstd":
            left = [file.with_name(file.name + ending) for ending in ("-wal", "-journal")]
            left = [each for each in left if each.exists() and each.stat().st_size] if file.suffix == ".db3" else []
            if not left:
                yield file
                return
            with tempfile.TemporaryDirectory(prefix="depth_bag_") as folder:
                for each in (file, *left):
                    shutil.copy(each, folder)
                try:
                    with closing(sqlite3.connect(Path(folder) / file.name)) as database:  # takes in what lies beside it
                        database.execute("PRAGMA journal_mode=DELETE")
                except sqlite3.Error as error:
                    self._note(file, f"what lies beside it ({left[0].name}) cannot be taken in: {_line(error)}")
                yield Path(folder) / file.name
            return
        folder = self._decompressed.get(file)  # stays for as long as somebody reads it, though we let go of it
        if folder is None:
            folder = tempfile.TemporaryDirectory(prefix="depth_bag_")
            with file.open("rb") as zipped, (Path(folder.name) / _plain(file).name).open("wb") as out:
                try:
                    shutil.copyfileobj(zstd.ZstdFile(zipped), out)
                except OSError:
                    raise
                except Exception as error:  # ZstdError, EOFError
                    self._note(file, f"cannot be decompressed to its end: {_line(error)}")
            self._decompressed.clear()
            self._decompressed[file] = folder
        yield Path(folder.name) / _plain(file).name

    def _from_ros1(self) -> Path:
        """A copy of a ROS 1 bag as a ROS 2 bag; for as long as this object lives."""
        self._converted = tempfile.TemporaryDirectory(prefix="depth_bag_")
        copy = Path(self._converted.name) / self.path.stem
        try:
            convert([self.path], copy, "mcap", 8, None, "none", None, typestore(), (), (), (), ())
        except (ConverterError, AssertionError) as error:
            raise BagError(f"'{self.path}' cannot be read as a ROS 1 bag: {_line(error)}") from error
        if not copy.exists() or not any(copy.iterdir()):
            raise BagError(f"'{self.path}' holds no messages")
        return copy


def _unzipped(data: bytes) -> bytes:
    """A message, which may be compressed: no CDR begins like zstd."""
    return zstd.decompress(data) if data[:4] == _ZSTD else bytes(data)


def _plain(file: Path) -> Path:
    """A file's path without the ending of whole-file compression."""
    return file.with_suffix("") if file.suffix == ".zstd" else file


def _by_number(file: Path) -> tuple[int, str]:
    """bag_2.mcap before bag_10.mcap."""
    number = re.search(r"_(\d+)$", _plain(file).stem)
    return (int(number[1]) if number else 0), file.name


def _line(error: Exception) -> str:
    line = (str(error) or type(error).__name__).splitlines()[0]
    return line if len(line) < 200 else f"{line[:200]} ..."
