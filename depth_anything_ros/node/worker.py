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
from .network_slot import NetworkSlot, Running
from .publications import Publications
from .statistics import Statistics

_MAX_FAILURES = 10  # of the network in a row, after which the node gives up
_PATIENCE = 15.0  # seconds to wait for the frame at hand


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
        self._relative_range, self._estimator = AdaptiveRange(), None
        self._running = True
        self._thread: threading.Thread | None = None
        self._decode_image: ImageDecoder | None = None
        self.failure = ""

    def start(self, choose_decoder: Callable[[], ImageDecoder]) -> None:
        """Begin to work; `choose_decoder` is called on the worker's thread since it may take a second."""
        self._thread = threading.Thread(target=self._run, args=(choose_decoder,), name="depth worker", daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """Finish the frame at hand and end; False if that takes too long (a hung device)."""
        self._running = False
        self._thread.join(_PATIENCE)
        return not self._thread.is_alive()

    def _run(self, choose_decoder: Callable[[], ImageDecoder]) -> None:
        try:
            self._decode_image = choose_decoder()
        except Exception as error:
            self.failure = str(error)
            return
        failures = 0
        while self._running and not self.failure:
            arrival = self._source.mailbox.take(timeout=0.1)
            if arrival is None:
                continue
            try:
                self._handle(arrival)
                failures = 0
            except (MessageError, ImageError) as error:
                self._report("bad image", f"image on '{self._source.image_topic}' refused: {error}")
            except InferenceError as error:
                failures += 1
                self._report("network", str(error))
                if failures >= _MAX_FAILURES:
                    self.failure = f"the network failed {failures} times in a row: {error}"
            except Exception as error:  # a bug of ours costs a frame, not the robot
                if not self._publications.possible:  # an interrupt has shut ROS down under us
                    return
                self._report("internal error", f"{type(error).__name__}: {error}")

    def _handle(self, arrival: Arrival) -> None:
        running = self._network.running
        if running is None:
            self._statistics.skipped("while the network was loading")
        elif not self._publications.wanted():
            self._statistics.skipped("that nobody wanted")
        else:
            self._process(arrival, running)

    def _process(self, arrival: Arrival, running: Running) -> None:
        """1. decode  2. network  3. calibration  4. outputs, all with the image's own stamp and frame."""
        estimator, settings = running.estimator, running.settings
        if estimator is not self._estimator:  # values of another network have another range
            self._estimator = estimator
            self._relative_range.reset()
        header, rgb = self._decode(arrival)
        prediction = estimator.predict(rgb)
        camera, info, problem = self._calibration(header, rgb.shape[1], rgb.shape[0])
        outputs = Outputs(Frame(rgb, camera), prediction, settings.valid, settings.color, self._relative_range)
        unserved = self._publications.publish(ros_header(header), outputs, info)
        self._statistics.departed(time.monotonic() - arrival.time)
        if unserved:
            self._report(problem[0], f"{problem[1]}; without it there is no {' and no '.join(sorted(unserved))}")

    def _calibration(self, header: ImageHeader, width: int, height: int):
        """Camera and CameraInfo of an image, or None twice and what is the matter as (kind, text)."""
        topic, rectified = self._source.topics["camera_info"], self._source.rectified
        info = self._source.info_at(header.stamp_ns)
        if info is None:
            return None, None, ("no camera_info", f"no camera_info on '{topic}' yet")
        try:
            camera = camera_from_info(info, width, height, rectified, header.frame_id)
        except CameraError as error:
            return None, None, ("bad camera_info", f"camera_info on '{topic}' refused: {error}")
        return camera, info_of_depth(ros_header(header), info, camera, rectified), None

    def _decode(self, arrival: Arrival) -> tuple[ImageHeader, object]:
        if arrival.compressed:
            image = read_compressed_image(arrival.cdr)
            return image.header, compressed_to_rgb(image)
        image, rgb = self._decode_image(arrival.cdr)
        return image.header, rgb

    def _report(self, kind: str, text: str) -> None:
        if self._statistics.problem(kind, text):
            self._logger.warning(text)
