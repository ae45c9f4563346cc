# SPDX-License-Identifier: Apache-2.0
"""Writing a bag in parts, so that nothing is lost when the writing ends before its time.

A part is a file of the bag to be. While one is written it is worth nothing; once it is finished it is never touched again,
and what is needed to go on behind it is there, too. All of it lies in a folder beside the output, `<output>.partial`, until the
last part is finished and the bag gets its name. The bag itself says what it was made of, so that nobody makes it twice.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import queue
import shutil
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import yaml
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode

from .messages import BagError, Recorded, Topic, described
from .room import Room

_VERSION = 8  # of metadata.yaml: the newest that all distros from Humble on read
_INFORMATION, _MADE_OF = "rosbag2_bagfile_information", "depth_bag"
_LOCK = ".state/lock"
_WAITING = 128 << 20  # bytes that may wait to be written


@dataclass
class Progress:
    """How far the work has come at the end of a part.

    Attributes:
        done: messages of the input that were dealt with.
        images, with_depth: images that were to get depth, and that got all of it that was asked for.
        problems: what was the matter -> [number of images, the first in words].
        ended: whether it was the last.
    """

    done: int = 0
    images: int = 0
    with_depth: int = 0
    problems: dict[str, list] = field(default_factory=dict)
    ended: bool = False


class PartialBag:
    """A bag that is being made. Use it in a `with`: nobody else can write it meanwhile.

    Attributes:
        progress: at the end of the last finished part.
        memory: what the refiners remembered then; empty at the beginning.
    """

    def __init__(self, output: Path, fingerprint: str, storage: str, compressed: bool, resume: bool):
        """Begin, or go on.

        Raises:
            BagError: the output is there already, or work on it that must not be gone on with.
        """
        self.output, self.folder = output, output.with_name(f"{output.name}.partial")
        self._state = self.folder / ".state"
        self._storage, self._compressed, self._fingerprint = storage, compressed, fingerprint
        check_free(output, resume)
        self.progress, self.memory, self._count = Progress(), b"", 0
        self._writer: Writer | None = None

    def __enter__(self) -> PartialBag:
        with self._clear_errors():
            self._state.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.folder)
        try:
            self._take_up()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *exception) -> None:
        self._lock.close()
        if not self._count:  # nothing is finished that could be gone on with
            shutil.rmtree(self.folder, ignore_errors=True)

    def _take_up(self) -> None:
        plan = self._state / "plan"
        if plan.exists() and plan.read_text() != self._fingerprint:
            raise BagError(
                f"'{self.folder}' was begun with another input, other parameters or another version: "
                "use the same as then, or delete it to begin anew"
            )
        with self._clear_errors():
            _write_whole(plan, self._fingerprint.encode())
        while self._said(self._count).exists():
            self.progress = Progress(**json.loads(self._said(self._count).read_text())["progress"])
            self.memory = (self._state / f"{self._count}.memory").read_bytes()
            self._count += 1
        if self._part(self._count).is_dir():  # what was being written when it ended
            shutil.rmtree(self._part(self._count))

    def _part(self, number: int) -> Path:
        return self.folder / f"{self.output.name}_{number}"

    def _said(self, number: int) -> Path:
        """What is known of a part; there as soon as the part is finished."""
        return self._state / f"{number}.json"

    def open_part(self, topics: Iterable[Topic]) -> None:
        """Begin a part that has these topics."""
        with self._clear_errors():
            self._writer = Writer(
                self._part(self._count), version=_VERSION, storage_plugin=StoragePlugin[self._storage.upper()]
            )
            if self._compressed:
                mode = CompressionMode.STORAGE if self._storage == "mcap" else CompressionMode.MESSAGE
                self._writer.set_compression(mode, CompressionFormat.ZSTD)
            self._writer.open()
            self._connections = {}
            for topic in topics:
                definition, digest = described(topic)
                self._connections[topic.name] = self._writer.add_connection(
                    topic.name, topic.type, msgdef=definition, rihs01=digest, offered_qos_profiles=topic.qos
                )

    def write(self, recorded: Recorded) -> None:
        """One message."""
        with self._clear_errors():
            self._writer.write(self._connections[recorded.topic], recorded.time_ns, recorded.cdr)

    def close_part(self, progress: Progress, memory: bytes) -> None:
        """Finish the part: from now on it is safe."""
        with self._clear_errors():
            writer, self._writer = self._writer, None
            writer.close()
            part = self._part(self._count)
            said = yaml.safe_load((part / "metadata.yaml").read_text())[_INFORMATION]
            with (part / said["relative_file_paths"][0]).open("rb") as written:
                os.fsync(written.fileno())
            _write_whole(self._state / f"{self._count}.memory", memory)
            state = {"progress": asdict(progress), "metadata": said}
            _write_whole(self._said(self._count), json.dumps(state).encode())
        self.progress, self.memory, self._count = progress, memory, self._count + 1

    def abandon(self) -> None:
        """Let go of a part that is not finished; on the thread that opened it, as SQLite wants it."""
        if self._writer:
            with suppress(Exception):
                self._writer.abort()

    def finish(self) -> None:
        """Make the parts one bag, and give it its name.

        Raises:
            BagError: there is no message in any of them.
        """
        whole = self.folder / self.output.name
        with self._clear_errors():
            whole.mkdir(exist_ok=True)
            information = [json.loads(self._said(number).read_text())["metadata"] for number in range(self._count)]
            if not any(said["message_count"] for said in information):
                self._count = 0
                why = "; ".join(f"{what}: {first}" for what, (_, first) in sorted(self.progress.problems.items()))
                raise BagError(f"nothing was made, so there is no '{self.output}'" + (f": {why}" if why else ""))
            for number, said in enumerate(information):
                (name,) = said["relative_file_paths"]
                part = self._part(number) / name
                if said["message_count"] and part.exists():  # else it was moved by a run that ended here
                    part.rename(whole / name)
            made_of = json.dumps({"fingerprint": self._fingerprint} | asdict(self.progress))
            merged = _merged([said for said in information if said["message_count"]]) | {"custom_data": {_MADE_OF: made_of}}
            _write_whole(whole / "metadata.yaml", yaml.safe_dump({_INFORMATION: merged}, sort_keys=False).encode())
            whole.rename(self.output)
            shutil.rmtree(self.folder)

    @contextmanager
    def _clear_errors(self):
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "full" in str(error)
            what = "the disk is full" if full else str(error)
            raise BagError(
                f"cannot write '{self.folder}': {what}. The input is as it was, and finished parts are kept: "
                f"{'make room, then ' if full else ''}go on with --resume"
            ) from error


def _locked(folder: Path) -> IO:
    """The open lock of a folder that a bag is made in; raises a BagError if another process has it."""
    lock = (folder / _LOCK).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise BagError(f"'{folder}' is being written by another process") from error
    return lock


def check_free(output: Path, resume: bool) -> None:
    """Raise a BagError if the output is there already, or work on it that is not to be gone on with."""
    if output.exists() or output.is_symlink():
        raise BagError(f"'{output}' exists already: choose another name for the output")
    folder = output.with_name(f"{output.name}.partial")
    if folder.exists() and not resume:
        if (folder / _LOCK).exists():
            _locked(folder).close()
        raise BagError(f"'{folder}' is what an interrupted run has left: go on with --resume, or delete it to begin anew")


def finished(output: Path, fingerprint: str) -> Progress | None:
    """What came of a bag that is finished and was made by the same plan; None: there is none. Leftovers of its making go."""
    try:
        information = yaml.safe_load((output / "metadata.yaml").read_text())[_INFORMATION]
        said = json.loads(information["custom_data"][_MADE_OF])
        if said.pop("fingerprint") != fingerprint:
            return None
        progress = Progress(**said)
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError):
        return None
    shutil.rmtree(output.with_name(f"{output.name}.partial"), ignore_errors=True)
    return progress


class Behind:
    """Hands work to a `PartialBag` on a thread of its own. Use it in a `with`; errors come out of the next call."""

    def __init__(self, bag: PartialBag):
        self._bag = bag
        self._queue: queue.Queue = queue.Queue()
        self._room = Room(_WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def __enter__(self) -> Behind:
        self._thread.start()
        return self

    def __exit__(self, kind, *exception) -> None:
        if kind is not None:
            self._error = self._error or RuntimeError("given up")
        self._queue.put(None)
        self._thread.join()
        if kind is None and self._error:
            raise self._error

    def write(self, recorded: Recorded) -> None:
        """Write a message."""
        self._room.take(len(recorded.cdr))
        self.do("write", recorded)

    def do(self, action: str, *arguments) -> None:
        """Call a method of the bag, in its turn."""
        if self._error:
            raise self._error
        self._queue.put((action, arguments))

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            action, arguments = work
            try:
                if not self._error:
                    getattr(self._bag, action)(*arguments)
            except BaseException as error:
                self._error = error
            if action == "write":
                self._room.give(len(arguments[0].cdr))
        self._bag.abandon()


def _merged(parts: list[dict]) -> dict:
    """The metadata of a bag whose files have these."""
    files = [file for part in parts for file in part["files"] if file["message_count"]]
    begin = min((file["starting_time"]["nanoseconds_since_epoch"] for file in files), default=0)
    ends = [file["starting_time"]["nanoseconds_since_epoch"] + file["duration"]["nanoseconds"] for file in files]
    topics: dict[str, dict] = {}
    for part in parts:
        for topic in part["topics_with_message_count"]:
            known = topics.setdefault(topic["topic_metadata"]["name"], {**topic, "message_count": 0})
            known["message_count"] += topic["message_count"]
    return parts[0] | {
        "relative_file_paths": [name for part in parts for name in part["relative_file_paths"]],
        "duration": {"nanoseconds": max(ends, default=begin) - begin},
        "starting_time": {"nanoseconds_since_epoch": begin},
        "message_count": sum(part["message_count"] for part in parts),
        "topics_with_message_count": list(topics.values()),
        "files": [file for part in parts for file in part["files"]],
    }


def _write_whole(path: Path, data: bytes) -> None:
    """A file that is there as a whole or not at all."""
    scratch = path.with_name(f"{path.name}.writing")
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.rename(path)
