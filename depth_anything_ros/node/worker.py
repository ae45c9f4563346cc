# SPDX-License-Identifier: Apache-2.0
"""The thread that takes the latest image of each camera through the network and out again. It never raises and never queues."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from rclpy.impl.rcutils_logger import RcutilsLogger

from ..geometry import CameraError
from ..inference import DepthEstimator, ImageError, InferenceError, Prediction, normalize_exposure
from ..messages.bridge import ImageDecoder
from ..messages.cdr import ImageHeader, MessageError
from ..outputs import Outputs
from ..stream.focal import check_focal, focal_problem, focal_text
from ..stream.image import decode
from ..stream.settings import Settings
from ..stream.topics import explained
from .camera_input import Arrival
from .mailbox import Mailbox
from .network_slot import NetworkSlot, Running
from .stream import CameraStream, Job
from .surroundings import Surroundings

_MAX_FAILURES = 10  # of the network in a row, after which the node gives up
_PLAUSIBLE_AGE = 5.0  # seconds from an image's stamp to its arrival
_PATIENCE = 15.0  # seconds to wait for the frame at hand


class Worker:
    """Runs until `stop`. What it needs is handed in; what goes wrong is counted, logged, and costs one frame."""

    def __init__(
        self,
        streams: dict[str, CameraStream],
        mailbox: Mailbox[Arrival],
        network: NetworkSlot,
        surroundings: Surroundings,
        logger: RcutilsLogger,
    ):
        self._streams, self._mailbox, self._network, self._logger = streams, mailbox, network, logger
        self._surroundings = surroundings
        self._estimator: DepthEstimator | None = None
        self._running = True
        self._thread: threading.Thread | None = None
        self._waiting: dict[str, Job] = {}  # by camera: for the network to be ready for images of their size
        self._seen: set[str] = set()  # cameras whose images' size is known
        self._decode_image: ImageDecoder | None = None
        self._failures = 0  # of the network, in a row
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
        while self._running and not self.failure:
            arrivals = self._mailbox.take(timeout=0.1)
            running = self._network.running
            for name, arrival in arrivals.items():
                job = self._begin(self._streams[name], arrival, running)
                if job:
                    if name in self._waiting:
                        self._streams[name].statistics.skipped("while the network was prepared for their size")
                    self._waiting[name] = job
            self._finish([job for job in list(self._waiting.values()) if self._ready(job, running)], running)

    def _begin(self, stream: CameraStream, arrival: Arrival, running: Running | None) -> Job | None:
        """An image decoded and made fit for the network; None if it is not to be worked on, or is bad."""
        if running is None:
            stream.statistics.skipped("while the network was loading")
            if stream.name not in self._seen:
                with self._guarded(stream):  # what is loading can be got ready for images of this size
                    self._network.ready(stream.name, stream.prepare(arrival, *self._decode(arrival)).shape, None)
                    self._seen.add(stream.name)
        elif stream.gathered is None and not stream.publications.wanted():
            stream.statistics.skipped("that nobody wanted")
        else:
            stream.statistics.spent("wait", time.monotonic() - arrival.time)
            with self._guarded(stream), stream.statistics.timing("decode"):
                header, rgb = self._decode(arrival)
                age = time.time() - header.stamp_ns * 1e-9 - (time.monotonic() - arrival.time)
                if 0 <= age < _PLAUSIBLE_AGE:  # else the stamp is of another clock
                    stream.statistics.spent("receive", age)
                job = stream.prepare(arrival, header, rgb)
                check_focal(running.settings.model, job.image)
                if running.settings.model.says_fov and stream.source.calibration_to_come and not job.image.focal:
                    stream.statistics.skipped("before the first camera_info")
                    return None
                return job
        return None

    def _ready(self, job: Job, running: Running | None) -> bool:
        """Whether a job can go on; if not, it waits, unless a newer image of its camera comes, or its size is impossible."""
        with self._guarded(job.stream):
            if not self._network.ready(job.stream.name, job.shape, running):
                return False
            del self._waiting[job.stream.name]
            return True
        del self._waiting[job.stream.name]
        return False

    def _finish(self, jobs: list[Job], running: Running | None) -> None:
        """Jobs whose images make inputs of one size go through the network together."""
        groups: dict[tuple, list[Job]] = {}
        for job in jobs:
            width, height, input_size = job.shape
            with self._guarded(job.stream):
                size = running.sized(input_size).network_size(width, height)
                alone = job.stream.name if running.settings.deterministic else ""  # others may be there or not
                features = job.stream.wants("features", running.settings)  # are computed in another way
                groups.setdefault((alone, features, input_size, *size), []).append(job)
        for (_, features, input_size, *_), group in groups.items():
            for job, prediction in self._predict(group, running, running.sized(input_size), features):
                with self._guarded(job.stream):
                    self._publish(job, prediction.turned(job.stream.settings.rotation), running.settings)

    def _predict(
        self, jobs: list[Job], running: Running, estimator: DepthEstimator, features: bool
    ) -> list[tuple[Job, Prediction]]:
        """Each job with its prediction; one that the network fails on does not cost the others theirs."""
        if running.estimator is not self._estimator:  # values of another network have another range
            self._estimator = running.estimator
            for stream in self._streams.values():
                stream.restart()
        try:
            images = [job.image.upright for job in jobs]
            if running.settings.normalize_exposure:
                images = [normalize_exposure(image) for image in images]
            times: dict[str, float] = {}
            focals = [job.image.focal for job in jobs]
            confidence = running.settings.confidence
            predictions = estimator.predict_batch(images, focals, confidence, features, times.__setitem__)
            for job in jobs:
                job.stream.statistics.spent("preprocess", times["preprocess"])
                job.stream.network_seconds = times["network"]
            self._failures = 0
            return list(zip(jobs, predictions))
        except Exception as error:
            if len(jobs) > 1:
                return [pair for job in jobs for pair in self._predict([job], running, estimator, features)]
            with self._guarded(jobs[0].stream):
                raise error
        return []

    def _publish(self, job: Job, prediction: Prediction, settings: Settings) -> None:
        """Everything that somebody wants of a frame, all with the image's own stamp and frame."""
        stream, image, wanted = job.stream, job.image, job.stream.publications.wanted()
        frame = image.frame
        side, missing = self._surroundings.side(frame.stamp_ns, image.header.frame_id, settings, wanted)
        with stream.statistics.timing("refine"):
            stream.refined = stream.refiner.refine(frame, prediction, settings.refine, side)
        image = image.with_estimate(prediction)
        stream.calibration, stream.focal = image.calibration, focal_text(settings.model, prediction, image)
        gathered = stream.gathered
        if gathered is not None and stream.refiner.pairs is not None:
            gathered.append((prediction.network, prediction.kind, frame.camera.focal, *stream.refiner.pairs))
        outputs = Outputs(image.frame, prediction, stream.refined, side, settings.outputs, stream.relative_range)
        unserved = stream.publications.publish(wanted, image.header, outputs, image.info, stream.statistics.spent)
        stream.statistics.departed(time.monotonic() - job.arrival.time, stream.network_seconds)
        for need, topics in unserved.items():
            kind, text = explained(need, image.problem, missing)
            self._report(stream, kind, f"{text}; without it there is no {' and no '.join(sorted(topics))}")
        problem = focal_problem(settings.model, prediction, image.problem)
        if problem:
            self._report(stream, *problem)
        scale = stream.refined.scale
        if scale and not scale.valid:
            self._report(stream, "no scale", f"no metres: {scale.problem}")

    def _decode(self, arrival: Arrival) -> tuple[ImageHeader, np.ndarray]:
        return decode(arrival.cdr, arrival.compressed, self._decode_image)

    @contextmanager
    def _guarded(self, stream: CameraStream) -> Iterator[None]:
        """What goes wrong inside costs this camera one frame: it is counted and logged."""
        try:
            yield
        except (MessageError, ImageError) as error:
            self._report(stream, "bad image", f"image on '{stream.source.image_topic}' refused: {error}")
        except CameraError as error:
            self._report(stream, "no view", f"image on '{stream.source.image_topic}' refused: {error}")
        except InferenceError as error:
            self._failures += 1
            self._report(stream, "network", str(error))
            if self._failures >= _MAX_FAILURES:
                self.failure = f"the network failed {self._failures} times in a row: {error}"
        except Exception as error:  # a bug of ours costs a frame, not the robot
            if not stream.publications.possible:  # an interrupt has shut ROS down under us
                self._running = False
                return
            self._report(stream, "internal error", f"{type(error).__name__}: {error}")

    def _report(self, stream: CameraStream, kind: str, text: str) -> None:
        if stream.statistics.problem(kind, text):
            self._logger.warning(f"{stream.name}: {text}" if stream.name else text)
