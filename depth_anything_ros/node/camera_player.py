# SPDX-License-Identifier: Apache-2.0
"""`camera_player`: publishes a camera's topics from procedural scenes, image files, a video, or a webcam.

Topics, relative to the node's namespace: `camera/image_raw`, `camera/image_raw/compressed`, `camera/camera_info`, and for
procedural scenes the exact depth on `camera/true_depth` (32FC1 metres, +Inf: sky).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import cv2
import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from ..demo.sources import Shot, SourceError, open_source, render_scenes
from ..geometry import Camera
from ..inference import keep_large_buffers
from ..messages.camera_info import info_of_camera
from ..messages.compressed import compressed_color_message
from ..messages.outgoing import image_message
from .process import use_large_shared_memory

_PARAMETERS = (
    ("source", "scenes", "scenes, an image, a folder or pattern of images, a video, or a webcam (0, /dev/video0)"),
    ("rate", 10.0, "Frames per second"),
    ("loop", True, "Begin again at the end; false: leave then"),
    ("frame_id", "camera_optical_frame", "Optical frame of the images"),
    ("encoding", "bgr8", "Of the raw images: bgr8, rgb8, bgra8, rgba8 or mono8"),
    ("fov_deg", 60.0, "Horizontal field of view that camera_info states for files and webcams, whose own is not known"),
    ("max_width", 1280, "Wider files are scaled down to this many pixels; 0: never"),
    ("width", 640, "Pixels; procedural scenes"),
    ("height", 480, "Pixels; procedural scenes"),
    ("seed", 0, "Which procedural scenes"),
    ("scenes", 4, "Number of procedural scenes"),
    ("frames", 12, "Frames of each procedural scene; a closed loop"),
    ("wait_for_reader", False, "Begin a second after somebody has subscribed to the image or its compressed twin"),
)


_FROM_RGB = {"rgb8": None, "bgr8": cv2.COLOR_RGB2BGR, "bgra8": cv2.COLOR_RGB2BGRA, "rgba8": cv2.COLOR_RGB2RGBA,
             "mono8": cv2.COLOR_RGB2GRAY}  # fmt: skip


class CameraPlayer(Node):
    """A camera driver whose camera is a file or a generator."""

    def __init__(self, **kwargs):
        super().__init__("camera_player", **kwargs)
        for name, default, description in _PARAMETERS:
            numeric = name == "source" or isinstance(default, float)  # a webcam's number, 30 for 30.0
            descriptor = ParameterDescriptor(description=description, read_only=True, dynamic_typing=numeric)
            self.declare_parameter(name, default, descriptor)
        for name in ("rate", "width", "height", "scenes", "frames"):
            if not self._value(name) > 0:
                raise SourceError(f"{name} is {self._value(name)}, expected more than 0")
        if self._value("encoding") not in _FROM_RGB:
            raise SourceError(f"encoding is '{self._value('encoding')}', expected one of: {', '.join(_FROM_RGB)}")
        self.finished = False
        self._image = self._publisher(Image, "camera/image_raw")
        self._compressed = self._publisher(CompressedImage, "camera/image_raw/compressed")
        self._info = self._publisher(CameraInfo, "camera/camera_info")
        self._truth = self._publisher(Image, "camera/true_depth")
        self._reader_since: float | None = None
        self._rendered: list[Shot] | None = None
        self._shots = self._open()
        self.create_timer(1.0 / self._value("rate"), self._publish_next, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _publisher(self, kind: type, topic: str):
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
        return self.create_publisher(kind, topic, qos, qos_overriding_options=QoSOverridingOptions.with_default_policies())

    def _value(self, name: str):
        return self.get_parameter(name).value

    def _open(self) -> Iterator[Shot]:
        """The source from its beginning; scenes are rendered once."""
        if self._value("source") != "scenes":
            return open_source(str(self._value("source")), self._value("max_width"))
        if self._rendered is None:
            names = ("seed", "scenes", "frames", "width", "height")
            self._rendered = render_scenes(*(self._value(name) for name in names), progress=self._log_progress)
        return iter(self._rendered)

    def _log_progress(self, done: int, total: int) -> None:
        if not self.context.ok():
            raise ExternalShutdownException
        if done == 1:
            self.get_logger().info(f"rendering {total} frames")
        if done == total or done % max(1, total // 4) == 0:
            self.get_logger().info(f"rendered {done} of {total} frames")

    def _publish_next(self) -> None:
        if not self._may_begin():
            return
        shot = next(self._shots, None)
        if shot is None and self._value("loop"):
            self._shots = self._open()
            shot = next(self._shots, None)
        if shot is None:
            self.finished = True
            return
        self._publish(shot)

    def _may_begin(self) -> bool:
        """Whether the first reader, if one is waited for, has had a second to settle."""
        readers = self._image.get_subscription_count() + self._compressed.get_subscription_count()
        if readers and self._reader_since is None:
            self._reader_since = time.monotonic()
        return not self._value("wait_for_reader") or (
            self._reader_since is not None and time.monotonic() - self._reader_since > 1.0
        )

    def _publish(self, shot: Shot) -> None:
        height, width = shot.rgb.shape[:2]
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._value("frame_id"))
        if shot.focal:
            camera = Camera(width, height, shot.focal, shot.focal, (width - 1) / 2, (height - 1) / 2)
        else:
            camera = Camera.from_fov(width, height, float(self._value("fov_deg")))
        self._info.publish(info_of_camera(header, camera))
        if self._compressed.get_subscription_count():
            bgr = cv2.cvtColor(shot.rgb, cv2.COLOR_RGB2BGR)
            self._compressed.publish(compressed_color_message(header, bgr, quality=95))
        if shot.depth is not None and self._truth.get_subscription_count():
            self._truth.publish(image_message(header, shot.depth, "32FC1"))
        if self._image.get_subscription_count():
            code = _FROM_RGB[self._value("encoding")]
            pixels = shot.rgb if code is None else cv2.cvtColor(shot.rgb, code)
            self._image.publish(image_message(header, pixels, self._value("encoding")))


def main(args: list[str] | None = None) -> int:
    """Play until the end of the source or an interrupt; 1 if the source cannot be opened."""
    use_large_shared_memory()
    keep_large_buffers()
    rclpy.init(args=args)
    executor, player = SingleThreadedExecutor(), None
    try:
        player = CameraPlayer()
        executor.add_node(player)
        while not player.finished:
            executor.spin_once()
        time.sleep(0.5)  # the last image is still on its way
    except (SourceError, ParameterException) as error:
        rclpy.logging.get_logger("camera_player").error(str(error))
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        executor.shutdown()
        if player:
            player.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
