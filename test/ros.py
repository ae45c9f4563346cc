# SPDX-License-Identifier: Apache-2.0
"""A camera and a listener in the test's own process, and the depth node as a real process beside it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2
from std_msgs.msg import Header
from warm import WarmProcess

OUTPUTS = {
    "depth/image": Image,
    "depth/image_raw": Image,
    "depth/relative": Image,
    "depth/color": Image,
    "depth/points": PointCloud2,
    "depth/camera_info": CameraInfo,
}
ON_REQUEST = {
    "depth/clearing": PointCloud2,
    "depth/obstacles": PointCloud2,
    "depth/ground": PointCloud2,
    "depth/scan": LaserScan,
    "depth/scale": DiagnosticArray,
    "depth/confidence": Image,
    "depth/image/compressedDepth": CompressedImage,
    "depth/image_raw/compressedDepth": CompressedImage,
    "depth/color/compressed": CompressedImage,
}


def qos(reliable=True, depth=10):
    policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=policy)


def stamp_of(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


class DepthProcess:
    """A depth node (or another module of ours) in a process of its own, its output in a file."""

    def __init__(self, folder: Path, *arguments: str, command=("-m", "depth_anything_ros.node.depth_node"), **parameters):
        self.log_file = folder / "node.log"
        line = ["--ros-args"]
        # torch starts at once; another backend compiles for seconds, which test_backends.py looks at.
        for name, value in ({"backend": "torch"} | parameters).items():
            text = str(value).lower() if isinstance(value, bool) else str(value) or '""'
            line += ["-p", f"{name.replace('__', '.')}:={text}"]
        line += arguments
        if command[0] == "-m":
            self.process = WarmProcess(command[1], [*command[2:], *line], self.log_file)
            return
        with self.log_file.open("w") as log:
            line = [sys.executable, *command, *line]
            self.process = subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT, env=os.environ)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> int:
        if self.alive:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop()


class Bench:
    """Publishes as a camera would and collects what the node says."""

    def __init__(self, name="bench", listen=tuple(OUTPUTS), reliable=True, namespace=""):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node(name, namespace=namespace, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.received = defaultdict(list)
        self.arrivals = defaultdict(list)
        self.status = None
        self.cameras = {}
        for topic in listen:
            self.listen(topic, reliable)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos())

    def listen(self, topic, reliable=True):
        def receive(message):
            self.received[topic].append(message)
            self.arrivals[topic].append(time.time_ns())

        return self.node.create_subscription((OUTPUTS | ON_REQUEST)[topic], topic, receive, qos(reliable))

    def _on_diagnostics(self, array):
        for status in array.status:
            if status.name.endswith(": depth"):
                self.status = status

    # -- waiting ------------------------------------------------------------------------------------------------

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def spin_until(self, condition, seconds):
        """Whether it came true."""
        end = time.monotonic() + seconds
        while not (met := condition()) and time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)
        return met

    def wait(self, condition, what, seconds=30.0):
        met = self.spin_until(condition, seconds)
        assert met, f"waited {seconds} s in vain for: {what}; status {self.values} {self.message}"

    @property
    def values(self):
        return {pair.key: pair.value for pair in self.status.values} if self.status else {}

    @property
    def message(self):
        return self.status.message if self.status else ""

    def wait_ready(self):
        self.wait(lambda: self.values.get("network") == "ready" and self.values.get("state") == "active", "network ready")

    # -- the camera ---------------------------------------------------------------------------------------------

    def publisher(self, kind, topic, reliable=True):
        key = (kind, topic, reliable)
        if key not in self.cameras:
            self.cameras[key] = self.node.create_publisher(kind, topic, qos(reliable, 1))
        return self.cameras[key]

    def remove_cameras(self):
        for publisher in self.cameras.values():
            self.node.destroy_publisher(publisher)
        self.cameras.clear()

    def wait_subscribed(self, kind=Image, topic="image", reliable=True):
        """Until the node reads with the reliability that the camera offers."""
        publisher = self.publisher(kind, topic, reliable)
        wanted = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT

        def met():  # by as many readers as there are: one that is being replaced by the wanted one does not count
            readers = self.node.get_subscriptions_info_by_topic(publisher.topic_name)
            offers = [r.qos_profile.reliability for r in readers if r.node_name == "depth_node"]
            return offers == [wanted] and publisher.get_subscription_count() == len(readers)

        self.wait(met, f"a {wanted.name} reader of {topic}")
        self.spin(0.2)

    def wait_reading(self):
        """Until the network is ready and the node reads our reliable camera."""
        self.wait_ready()
        self.wait_subscribed()
        self.wait_subscribed(CameraInfo, "camera_info")

    def send(self, rgb, stamp=None, info=True, reliable=True, frame_id="camera_color_optical_frame", edit=None, edit_info=None):
        """One image with its camera_info; `edit` and `edit_info` may spoil them. Returns the stamp in nanoseconds."""
        stamp = stamp or time.time_ns()
        header = Header(frame_id=frame_id)
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, 10**9)
        height, width = rgb.shape[:2]
        if info:
            message = camera_info(header, width, height)
            if edit_info:
                edit_info(message)
            infos = self.publisher(CameraInfo, "camera_info", reliable)
            infos.publish(message)
            infos.wait_for_all_acked(Duration(seconds=5))  # so that the image, which goes another way, does not overtake it
        image = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
        image.data.frombytes(rgb.tobytes())
        if edit:
            edit(image)
        self.publisher(Image, "image", reliable).publish(image)
        return stamp

    def expect(self, topic, stamp, seconds=10.0):
        """The message with this stamp."""
        found = lambda: next((m for m in self.received[topic] if stamp_of(m) == stamp), None)  # noqa: E731
        self.wait(found, f"{topic} of stamp {stamp}", seconds)
        return found()

    # -- services -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def client(self, kind, name):
        client = self.node.create_client(kind, name)
        try:
            self.wait(client.service_is_ready, name)
            yield client
        finally:
            self.node.destroy_client(client)

    def ask(self, kind, name, request, seconds=30.0, every=3.0):
        """A question that may be asked again: a server that has not met our reader within 0.1 s drops its answer."""
        with self.client(kind, name) as client:
            futures = []
            answer = lambda: next((future.result() for future in futures if future.done()), None)  # noqa: E731
            while not answer():
                assert len(futures) < seconds / every, f"waited {seconds} s in vain for: {name}; status {self.values}"
                futures.append(client.call_async(request))
                self.spin_until(answer, every)
            return answer()

    def set_parameters(self, **values):
        """All at once, or none; returns (successful, reason)."""
        parameters = [Parameter(name.replace("__", "."), value=value).to_parameter_msg() for name, value in values.items()]
        request = SetParametersAtomically.Request(parameters=parameters)
        result = self.ask(SetParametersAtomically, "depth_node/set_parameters_atomically", request).result
        return result.successful, result.reason

    def get_parameter(self, name):
        values = self.ask(GetParameters, "depth_node/get_parameters", GetParameters.Request(names=[name])).values[0]
        return {1: values.bool_value, 2: values.integer_value, 3: values.double_value, 4: values.string_value}[values.type]

    def change_state(self, transition, seconds=30.0):
        request = ChangeState.Request()
        request.transition.id = transition
        with self.client(ChangeState, "depth_node/change_state") as client:
            self.state()  # readers are met in the order in which they were made: now the answer cannot be lost
            future = client.call_async(request)
            self.wait(future.done, f"the answer to transition {transition}", seconds)
            return future.result().success

    def state(self):
        return self.ask(GetState, "depth_node/get_state", GetState.Request()).current_state.label

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@contextlib.contextmanager
def bench(**options):
    it = Bench(**options)
    try:
        yield it
    finally:
        it.close()


def camera_info(header, width, height):
    """Of a camera without distortion whose numbers are all different."""
    info = CameraInfo(header=header, width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    fx, fy, cx, cy = 0.9 * width, 0.92 * width, 0.48 * width, 0.53 * height
    info.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def picture(width=320, height=240, seed=0):
    """Something to look at: smooth shapes, different for each seed."""
    v, u = np.mgrid[0:height, 0:width]
    channels = [127 + 120 * np.sin(u / (17 + seed) + i) * np.cos(v / (23 + seed) + 2 * i) for i in range(3)]
    return np.stack(channels, -1).astype(np.uint8)


def depth_of(message):
    return np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
