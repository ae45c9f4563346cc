# SPDX-License-Identifier: Apache-2.0
"""The thread that takes the latest image through the network and out again. It never raises and never queues."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rclpy.impl.rcutils_logger import RcutilsLogger

from ..geometry import AdaptiveRange, CameraError
from ..inference import ImageError, InferenceError
from ..messages.bridge import ImageDecoder
from ..messages.camera_info import camera_from_info, info_of_depth
from ..messages.cdr import ImageHeader, MessageError, read_compressed_image
from ..messages.images import compressed_to_rgb
from ..messages.outgoing import ros_header
from ..pipeline import Frame, Outputs
from .camera_input import Arrival, CameraInput
from .network_slot import NetworkSlot
from .parameters import Settings
from .publications import Publications
from .statistics import Statistics

_MAX_FAILURES = 10  # of the network in a row, after which the node gives up


class Worker:
    """Runs until `stop`. What it needs is handed in; what goes wrong is counted, logged, and costs one frame."""

    def __init__(
        self,
        source: CameraInput,
        network: NetworkSlot,
        publications: Publications,
        statistics: Statistics,
        logger: RcutilsLogger,
    ):
        self._source, self._network, self._publications = source, network, publications
        self._statistics, self._logger = statistics, logger
        self._relative_range = AdaptiveRange()
        self._running = True
        self._thread = threading.Thread(target=self._run, name="depth worker", daemon=True)
        self.settings: Settings | None = None
        self.decode_image: ImageDecoder | None = None
        self.failure = ""

    def start(self, settings: Settings, decoder: Callable[[], ImageDecoder]) -> None:
        """Begin to work; `decoder` is called on the worker's thread since it may take a second."""
        self.settings, self._choose_decoder = settings, decoder
        self._thread.start()

    def stop(self) -> None:
        """Finish the frame at hand and end."""
        self._running = False
        self._thread.join()

    def _run(self) -> None:
        try:
            self.decode_image = self._choose_decoder()
        except Exception as error:
            self.failure = str(error)
            return
        failures = 0
        while self._running and not self.failure:
            arrival = self._source.mailbox.take(timeout=0.1)
            if arrival is None or self._network.estimator is None or not self._publications.wanted():
                continue
            try:
                self._process(arrival)
                failures = 0
            except (MessageError, ImageError) as error:
                self._report("bad image", f"image on '{self._source.image_topic}' refused: {error}")
            except InferenceError as error:
                failures += 1
                self._report("network", str(error))
                if failures >= _MAX_FAILURES:
                    self.failure = f"the network failed {failures} times in a row: {error}"
            except Exception as error:  # a bug of ours costs a frame, not the robot
                self._report("internal error", f"{type(error).__name__}: {error}")

    def _process(self, arrival: Arrival) -> None:
        """1. decode  2. network  3. calibration  4. outputs, all with the image's own stamp and frame."""
        estimator, settings = self._network.estimator, self.settings
        header, rgb = self._decode(arrival)
        prediction = estimator.predict(rgb)
        height, width = rgb.shape[:2]
        ros = ros_header(header)
        camera, info = None, self._source.info_at(header.stamp_ns)
        problem = ("no camera_info", f"no camera_info on '{self._source.topics['camera_info']}' yet")
        if info is not None:
            try:
                camera = camera_from_info(info, width, height, self._source.rectified)
                info = info_of_depth(ros, info, camera, self._source.rectified)
            except CameraError as error:
                info, problem = (
                    None,
                    ("bad camera_info", f"camera_info on '{self._source.topics['camera_info']}' refused: {error}"),
                )
        outputs = Outputs(Frame(rgb, camera), prediction, settings.valid, settings.color, self._relative_range)
        unserved = self._publications.publish(ros, outputs, info)
        self._statistics.departed(time.monotonic() - arrival.time)
        if info is None:
            without = f"; without it there is no {' and no '.join(sorted(unserved))}" if unserved else ""
            self._report(problem[0], problem[1] + without)

    def _decode(self, arrival: Arrival) -> tuple[ImageHeader, object]:
        if arrival.compressed:
            image = read_compressed_image(arrival.cdr)
            return image.header, compressed_to_rgb(image)
        image, rgb = self.decode_image(arrival.cdr)
        return image.header, rgb

    def _report(self, kind: str, text: str) -> None:
        if self._statistics.problem(kind, text):
            self._logger.warning(text)
