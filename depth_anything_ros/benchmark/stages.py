# SPDX-License-Identifier: Apache-2.0
"""The stages of a frame's way, each timed alone, in this process."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import torch

from ..geometry import AdaptiveRange, Camera
from ..inference import DepthEstimator
from ..inference.preprocessing import preprocess
from ..messages.cdr import read_image
from ..messages.images import image_to_rgb
from ..outputs import Outputs, OutputSettings
from ..pipeline import DepthSettings, Frame, Refiner, RefineSettings, Side
from .scene import exact_prediction, picture

_SETTINGS = RefineSettings(DepthSettings(0.05, 20.0, edge_tolerance=0.02))


class Way:
    """One frame on its way, with the node's default settings.

    What follows the network works on exact depth of the pictured room: the random weights of a benchmark say nothing that
    looks like a room, and how long edges take depends on how many there are.
    """

    def __init__(self, estimator: DepthEstimator, width: int, height: int):
        self.estimator, self.rgb = estimator, picture(width, height)
        self.camera = Camera.from_fov(width, height, 70.0)
        self.size = estimator.network_size(width, height)
        self.prediction = exact_prediction(width, height, self.size, estimator.device)
        self.cdr = _serialized(self.rgb)
        self.refiner = Refiner()
        with torch.inference_mode():
            self.batch = preprocess([self.rgb], self.size, estimator.device, estimator.network.model)
            self.refined = self.refiner.refine(Frame(self.rgb, self.camera), self.prediction, _SETTINGS)

    def stages(self) -> dict[str, Callable[[], object]]:
        """Name -> what to time."""
        found: dict[str, Callable[[], object]] = {
            "decode": lambda: image_to_rgb(read_image(self.cdr)),
            "preprocess": lambda: preprocess([self.rgb], self.size, self.estimator.device, self.estimator.network.model),
            "network": lambda: self.estimator.executor.run(self.batch),
            "upsample": lambda: self.prediction.resized(),
            "refine": lambda: self.refiner.refine(Frame(self.rgb, self.camera), self.prediction, _SETTINGS),
            "depth": lambda: self._outputs().depth,
            "colour": lambda: self._outputs().color,
            "cloud": lambda: self._outputs().cloud,
        }
        return found | self._fill()

    def whole(self, rgb: np.ndarray) -> object:
        """Everything from (H, W, 3) uint8 to depth, colour and cloud on the host. The network's answer is not used further."""
        self.estimator.predict(rgb)
        self.refined = self.refiner.refine(Frame(rgb, self.camera), self.prediction, _SETTINGS)
        outputs = self._outputs()
        return outputs.depth, outputs.color, outputs.cloud

    def _outputs(self) -> Outputs:
        frame = Frame(self.rgb, self.camera)
        return Outputs(frame, self.prediction, self.refined, Side(), OutputSettings(), AdaptiveRange())

    def _fill(self) -> dict[str, Callable[[], object]]:
        """Messages of the outputs, where there is ROS; in memory that is there already, as in the node."""
        try:
            from std_msgs.msg import Header

            from ..messages.outgoing import cloud_message, image_message
        except ImportError:
            return {}
        outputs, header = self._outputs(), Header()
        made = [image_message(header, outputs.depth, "32FC1"), image_message(header, outputs.color, "bgr8")]
        made.append(cloud_message(header, outputs.cloud))

        def fill() -> None:
            image_message(header, outputs.depth, "32FC1", made[0])
            image_message(header, outputs.color, "bgr8", made[1])
            cloud_message(header, outputs.cloud, made[2])

        return {"fill": fill}


def _serialized(rgb: np.ndarray) -> bytes:
    """The CDR of a sensor_msgs/Image, so that decoding can be timed without ROS."""
    height, width = rgb.shape[:2]
    head = struct.pack("<iI", 0, 0) + struct.pack("<I", 1) + b"\0" + b"\0" * 3 + struct.pack("<II", height, width)
    head += struct.pack("<I", 5) + b"rgb8\0" + b"\0" + b"\0\0" + struct.pack("<I", 3 * width)
    return b"\0\1\0\0" + head + struct.pack("<I", rgb.size) + rgb.tobytes()
