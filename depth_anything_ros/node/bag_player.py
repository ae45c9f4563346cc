# SPDX-License-Identifier: Apache-2.0
"""`bag_player`: plays a bag on its own topics, in step with the depth node, so that no image is dropped at any speed.

`bag_player --cameras BAG` only prints the cameras of a bag, as JSON: what replay.launch.py asks.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from itertools import chain

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

from ..messages.cdr import MessageError, read_header
from ..replay.bag_input import BagInput
from ..replay.cameras import COMPRESSED, IMAGE, find_cameras
from ..replay.feed import looked_ahead
from ..replay.messages import BagError, Recorded
from .bag_settings import PlayerError, chosen_span, chosen_topics, read_settings
from .bag_topics import BagTopics, message_class
from .depth_watch import DepthWatch
from .process import use_large_shared_memory

_CLOCK = "/clock"
_TICK_NS = 10_000_000  # of the recorded time, from one message on /clock to the next
_SILENT = 3.0  # seconds without a word from a node that says something each second
_GONE = 5.0  # seconds without a reader and without a word after which the node is gone
_STEADY = 1.0  # seconds without a change of readers
_LAST_COUNT = 3.0  # seconds in which /diagnostics tell of the last image
_ON_ITS_WAY = 0.5  # seconds in which the last message arrives


class BagPlayer(Node):
    """Publishes what was recorded. `play` does it all."""

    def __init__(self, **kwargs):
        super().__init__("bag_player", **kwargs)
        self._settings = read_settings(self)
        self._in_step = self._settings.pace == "node"
        self._bag = BagInput(self._settings.bag)
        self._start_ns, self._end_ns = chosen_span(self._bag, self._settings)
        self._watch = DepthWatch(self, self._settings.depth_namespace)
        topics, left_out = chosen_topics(self._bag, self._settings)
        self._topics = BagTopics(self, self._bag, topics, lossless=self._in_step)
        self._offered_at = time.monotonic()
        self._say_what_is_not_played(left_out)
        self._clock = self._clock_publisher()
        self._told_ns = 0  # the time that /clock said last
        self._cameras: set[str] = set()  # topics of images that the depth node reads
        self._depth_reads: set[str] = set()  # all topics that it reads, as of the report of this number
        self._depth_reads_of = 0
        self._unheard: set[str] = set()  # topics with a message that the depth node may not have looked at
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self)

    def play(self) -> None:
        """Wait for the readers, play, wait for the last depth.

        Raises:
            PlayerError: the depth node does not come, or has failed, or says nothing any more.
        """
        if self._in_step or self._settings.wait_for_depth:
            self._wait_for_depth()
        self._wait_for_readers()
        self._watch.follow(self._cameras)
        begin, topics = time.monotonic(), self._topics
        latched = self._bag.messages(end_ns=self._start_ns, topics=topics.latched)  # said before, and still true
        messages = chain(latched, self._bag.messages(self._start_ns, self._end_ns, topics.publishers))
        if self._in_step:
            for recorded in looked_ahead(messages, self._play_ahead):
                self._play_in_step(recorded)
        else:
            for recorded in messages:
                self._wait_until(begin, recorded.time_ns)
                self._play(recorded)
        self._finish(begin)

    def close(self) -> None:
        """Take the topics down."""
        self._executor.shutdown()
        self.destroy_node()

    def _say_what_is_not_played(self, left_out: set[str]) -> None:
        if left_out:
            self.get_logger().info(f"not played, for the depth node publishes there: {', '.join(sorted(left_out))}")
        if missing := self._topics.missing:
            what = ", ".join(f"'{name}' ({kind})" for name, kind in missing.items())
            self.get_logger().warning(f"not played, for their types are not installed: {what}")

    def _clock_publisher(self):
        kind = message_class("rosgraph_msgs/msg/Clock")
        if not self._settings.clock or kind is None or _CLOCK in self._topics.publishers:
            return None
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
        return self.create_publisher(kind, _CLOCK, qos)

    # -- waiting ------------------------------------------------------------------------------------------------

    def _wait_for_depth(self) -> None:
        """Until the depth node is ready for images and reads one of the bag's topics, at least."""
        reason, since = None, time.monotonic()
        while text := self._not_ready():
            self._spin()
            self._raise_failure()
            if text != reason:
                reason, since = text, time.monotonic()
                self.get_logger().info(f"waiting: {text}")
            loading = self._watch.network == "loading" and self._watch.silence < _GONE  # a download may take its time
            if not loading and time.monotonic() - since > self._settings.patience:
                raise PlayerError(f"waited {self._settings.patience:g} s in vain: {text}")

    def _not_ready(self) -> str:
        """What is missing before images can be played, in words; empty: nothing."""
        watch = self._watch
        if not watch.node_name:
            return f"/diagnostics tell of no depth node in the namespace '{self._settings.depth_namespace}' (depth_namespace)"
        if watch.network == "loading":
            return "the depth node is loading its network"
        if watch.state != "active" or watch.network != "ready":
            return f"the depth node is not ready: {watch.state}, network {watch.network}"
        if not self._read_by_depth():
            images = [name for name in self._topics.publishers if self._bag.topics[name].type in (IMAGE, COMPRESSED)]
            there = ", ".join(sorted(watch.cameras)) or "nothing"
            return f"the depth node reads {there}; image topics of the bag that are played: {', '.join(images) or 'none'}"
        return "" if watch.answers else "the depth node does not answer yet"

    def _read_by_depth(self) -> set[str]:
        """The topics that the depth node takes images from."""
        found = self._watch.cameras.keys() & self._topics.publishers.keys()
        return {name for name in found if self._topics.publishers[name].get_subscription_count()}

    def _wait_for_readers(self) -> None:
        """Until nobody has come or gone, or changed, for a while.

        A reader that we know of may not know of us yet: a lost introduction is repeated by Fast DDS after 3 s.
        """
        settle = self._settings.settle
        matched, since = self._topics.matched(), time.monotonic()
        while time.monotonic() < max(self._offered_at + settle, since + min(settle, _STEADY)):
            self._spin()
            now = self._topics.matched()
            if now != matched:
                matched, since = now, time.monotonic()
        self._cameras = self._read_by_depth()

    def _wait_until(self, begin: float, time_ns: int) -> None:
        """Until it is a message's turn; meanwhile the time is told."""
        rate = self._settings.rate
        while True:
            now_ns = self._start_ns + round((time.monotonic() - begin) * 1e9 * rate)
            if now_ns >= time_ns:
                self._tell(time_ns)
                self._executor.spin_once(timeout_sec=0)
                return
            self._tell(now_ns)
            self._executor.spin_once(timeout_sec=min((time_ns - now_ns) / 1e9 / rate, 0.02))

    def _wait_for_node(self, done: Callable[[], bool], what: str) -> None:
        """Until the depth node has done something.

        Raises:
            PlayerError: it never will.
        """
        watch, begin, patience = self._watch, time.monotonic(), self._settings.patience
        while not done():
            self._spin()
            self._raise_failure()
            waited = time.monotonic() - begin
            gone = min(waited, watch.silence) > _GONE and not self._read_by_depth()
            if gone or waited > patience and watch.silence > _SILENT or watch.silence > patience:
                raise PlayerError(f"the depth node has said nothing for {watch.silence:.0f} s: {what}")
            if waited > patience:
                raise PlayerError(f"waited {waited:.0f} s for the depth node ({watch.state}, network {watch.network}): {what}")

    def _raise_failure(self) -> None:
        if self._watch.failure:
            raise PlayerError(f"the depth node has failed: {self._watch.failure}")

    def _spin(self) -> None:
        self._executor.spin_once(timeout_sec=0.05)

    # -- playing ------------------------------------------------------------------------------------------------

    def _play_ahead(self, recorded: Recorded) -> None:
        """Everything but images that are waited for, and the time, comes before an image that it may belong to."""
        name = recorded.topic
        if name in self._cameras or name == _CLOCK:
            return
        if name in self._unheard:  # a reader of depth 1 would only keep the newer one
            self._let_depth_hear()
        self._topics.publish(recorded)
        if name in self._read_of_depth():
            self._unheard.add(name)

    def _play_in_step(self, recorded: Recorded) -> None:
        name = recorded.topic
        self._tell(recorded.time_ns, at_once=name in self._cameras)
        if name == _CLOCK:
            self._topics.publish(recorded)
        elif name in self._cameras:
            self._let_depth_hear()
            self._play(recorded)
            image = f"image {self._watch.played()[0]}, on '{name}', recorded at {recorded.time_ns / 1e9:.3f} s"
            self._wait_for_node(lambda: self._watch.done(name) or self._send_again(recorded, image), image)

    def _play(self, recorded: Recorded) -> None:
        if recorded.topic in self._cameras:
            stamp_ns = None
            with suppress(MessageError):
                stamp_ns = read_header(recorded.cdr).stamp_ns
            self._watch.expect(recorded.topic, stamp_ns)
        self._topics.publish(recorded)

    def _send_again(self, recorded: Recorded, image: str) -> bool:
        """Send an image that the depth node says it never got, though it has taken all that it was sent; always False."""
        if self._watch.missed(recorded.topic):
            self.get_logger().warning(f"the depth node has not received {image}: sending it again")
            self._topics.publish(recorded)
        return False

    def _let_depth_hear(self) -> None:
        """Until the depth node has looked at all that it was sent: an image must not overtake what belongs to it."""
        if self._unheard:
            self._topics.wait_arrived(self._unheard)
            self._wait_for_node(self._watch.ask().done, f"it does not answer after image {self._watch.played()[0]}")
            self._unheard.clear()

    def _read_of_depth(self) -> set[str]:
        """Everything that the depth node subscribes to; looked up with each of its reports, as it may subscribe late."""
        if self._depth_reads_of != self._watch.reports:
            self._depth_reads_of = self._watch.reports
            namespace, _, name = f"/{self._watch.node_name}".rpartition("/")
            depth = (namespace or "/", name)
            names = self._topics.publishers
            self._depth_reads = {each for each in names if any(reader[:2] == depth for reader in self._topics.readers(each))}
        return self._depth_reads

    def _tell(self, time_ns: int, at_once: bool = False) -> None:
        """Publish the time on /clock if it is due; it never goes back."""
        if self._clock and time_ns >= self._start_ns and time_ns - self._told_ns >= (1 if at_once else _TICK_NS):
            message = self._clock.msg_type()
            message.clock.sec, message.clock.nanosec = divmod(time_ns, 1_000_000_000)
            self._clock.publish(message)
            self._told_ns = time_ns

    def _finish(self, begin: float) -> None:
        """Wait until the last message has arrived, and the last depth is out; say what has come of it."""
        seconds = time.monotonic() - begin
        last = time.monotonic()
        while time.monotonic() - last < (_ON_ITS_WAY if self._watch.settled() else _LAST_COUNT):
            self._spin()
        for line in self._bag.damage:
            self.get_logger().warning(line)
        images, depths = self._watch.played()
        text = f", {images} images of {len(self._cameras)} cameras: {depths} with depth" if self._cameras else ""
        self.get_logger().info(f"played {(self._end_ns - self._start_ns) / 1e9:.1f} s in {seconds:.1f} s{text}")
        if self._in_step and not images:
            raise PlayerError(f"no image on {', '.join(sorted(self._cameras))} was recorded in what was played")


def print_cameras(path: str) -> int:
    """A line of JSON for each camera of a bag; 1 if there is none."""
    try:
        for camera in find_cameras(BagInput(path))[0]:
            print(json.dumps(asdict(camera)))
    except BagError as error:
        print(f"bag_player: {error}", file=sys.stderr)
        return 1
    return 0


def main(args: list[str] | None = None) -> int:
    """Play a bag to its end or until an interrupt; 1 if it cannot be read, or the depth node does not do its part."""
    words = sys.argv[1:] if args is None else args
    if words[:1] == ["--cameras"] and len(words) == 2:
        return print_cameras(words[1])
    use_large_shared_memory()
    rclpy.init(args=args)
    player = None
    try:
        player = BagPlayer()
        player.play()
    except (BagError, PlayerError, ParameterException) as error:
        rclpy.logging.get_logger("bag_player").error(str(error))
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():
            raise  # else an interrupt has shut ROS down under us
    finally:
        if player:
            player.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
