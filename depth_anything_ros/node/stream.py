# SPDX-License-Identifier: Apache-2.0
"""One camera of the node: where its images come from, what they are taken for, and where its depth goes to."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from rclpy.lifecycle import LifecycleNode

from ..geometry import AdaptiveRange, CameraError
from ..messages.cdr import ImageHeader
from ..pipeline import Refined, Refiner
from ..stream.image import PreparedImage, prepare_image
from ..stream.settings import CameraSettings, Settings
from ..stream.topics import needs_of
from .camera_input import Arrival, CameraInput
from .mailbox import Mailbox
from .network_slot import Shape
from .publications import Publications
from .statistics import Statistics

_OPTICAL = re.compile(r"(^|_)optical(_|$)")


@dataclass(frozen=True)
class Job:
    """An image on its way through the worker."""

    stream: CameraStream
    arrival: Arrival
    image: PreparedImage

    @property
    def shape(self) -> Shape:
        """What a network has to be ready for."""
        height, width = self.image.upright.shape[:2]
        return width, height, self.stream.settings.input_size


class CameraStream:
    """Subscriptions, publishers, counts and state of one camera; `name` is empty for the only one."""

    def __init__(self, node: LifecycleNode, name: str, settings: CameraSettings, mailbox: Mailbox[Arrival]):
        self.name, self.settings = name, settings
        self.statistics = Statistics()
        self.source = CameraInput(node, name, settings, mailbox, self.statistics)
        self.publications = Publications(node, name)
        self.relative_range = AdaptiveRange()
        self.refiner, self.refined = Refiner(), Refined(None)
        self.gathered: list | None = None  # while a calibration is under way: (network, kind, focal, inverse, truth) of frames
        self.network_seconds = 0.0  # that the frame at hand spent in the network
        self.silent = self.warned = False  # whether a line about missing images, about the frame has been logged
        self.calibration = self.frame_id = self.focal = ""  # of the last image, in words for diagnostics

    def start(self) -> None:
        """Begin anew, and subscribe."""
        self.statistics.reset()
        self.restart()
        self.silent = self.warned = False
        self.calibration = self.frame_id = self.focal = ""
        self.source.refresh()

    def restart(self) -> None:
        """Forget what earlier frames said, as another network is about to speak."""
        self.relative_range.reset()
        self.refiner.reset()
        self.refined = Refined(None)

    def close(self) -> None:
        """Unsubscribe and take the topics down."""
        self.source.close()
        self.publications.close()

    def prepare(self, arrival: Arrival, header: ImageHeader, rgb: np.ndarray) -> Job:
        """The job of an image (H, W, 3) uint8 RGB.

        Raises:
            CameraError: `rectify` is true, but there is no calibration to do it by.
        """
        topic, info_topic = self.source.image_topic, self.source.topics["camera_info"]
        try:
            image = prepare_image(header, rgb, self.source.infos.at(header.stamp_ns), self.settings, topic, info_topic)
        except CameraError:
            self.calibration = "none"
            raise
        self.frame_id = image.header.frame_id
        return Job(self, arrival, image)

    def wants(self, need: str, settings: Settings) -> bool:
        """Whether somebody listens to an output that needs it."""
        return any(need in needs_of(topic, settings.outputs) for topic in self.publications.wanted())

    @property
    def optical(self) -> bool:
        """Whether the frame of the outputs is optical: by its name, or because the user says so."""
        return bool(self.settings.frame_id) or not self.frame_id or bool(_OPTICAL.search(self.frame_id))
