# SPDX-License-Identifier: Apache-2.0
"""One camera of the node: where its images come from, what they are taken for, and where its depth goes to."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from ..geometry import AdaptiveRange, Camera, CameraError, UncalibratedError, rotate
from ..messages.camera_info import View, info_of_camera, view_of
from ..messages.cdr import ImageHeader
from ..messages.outgoing import ros_header
from ..pipeline import Frame, Refined, Refiner
from .camera_input import Arrival, CameraInput
from .mailbox import Mailbox
from .network_slot import Shape
from .parameters import CameraSettings
from .publications import Publications
from .statistics import Statistics

_OPTICAL = re.compile(r"(^|_)optical(_|$)")


@dataclass(frozen=True)
class Job:
    """An image that is ready for the network.

    Attributes:
        frame: what depth is computed on, and its camera if there is one.
        upright: the same image as the network is to see it.
        header: of everything that comes out.
        info: of the depth image; None without a calibration.
        problem: (kind, text) of what is wrong with the calibration.
    """

    stream: CameraStream
    arrival: Arrival
    frame: Frame
    upright: np.ndarray
    header: Header
    info: CameraInfo | None
    problem: tuple[str, str] | None

    @property
    def shape(self) -> Shape:
        """What a network has to be ready for."""
        height, width = self.upright.shape[:2]
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
        self.calibration = self.frame_id = ""  # of the last image, in words for diagnostics

    def start(self) -> None:
        """Begin anew, and subscribe."""
        self.statistics.reset()
        self.restart()
        self.silent, self.warned, self.calibration, self.frame_id = False, False, "", ""
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
        view, problem = self._view(header, rgb.shape[1], rgb.shape[0])
        if view is None and self.settings.rectify == "true":
            raise CameraError(f"{problem[1]}; without it the image cannot be rectified")
        covered, rectification = None, view.rectification if view else None
        if rectification:
            rgb, covered = rectification.apply(rgb), rectification.coverage()
        out = ros_header(header)
        out.frame_id = self.frame_id = self.settings.frame_id or header.frame_id
        if view:
            view.info.header = out
        frame = Frame(rgb, view.camera if view else None, covered, header.stamp_ns)
        upright = rotate(rgb, self.settings.rotation)
        return Job(self, arrival, frame, upright, out, view.info if view else None, problem)

    @property
    def optical(self) -> bool:
        """Whether the frame of the outputs is optical: by its name, or because the user says so."""
        return bool(self.settings.frame_id) or not self.frame_id or bool(_OPTICAL.search(self.frame_id))

    def _view(self, header: ImageHeader, width: int, height: int) -> tuple[View | None, tuple[str, str] | None]:
        """The view of an image; or None and what is the matter as (kind, text)."""
        topic = self.source.topics["camera_info"]
        info = self.source.info_at(header.stamp_ns)
        if info is None:
            return self._assumed(width, height, ("no camera_info", f"no camera_info on '{topic}' yet"))
        try:
            # Who overrides the frame says that image and calibration belong together.
            frame_id = "" if self.settings.frame_id else header.frame_id
            view = view_of(info, width, height, self.settings.rectify, self.source.rectified, frame_id)
        except UncalibratedError as error:
            return self._assumed(width, height, ("bad camera_info", f"camera_info on '{topic}' refused: {error}"))
        except CameraError as error:
            self.calibration = "none"
            return None, ("bad camera_info", f"camera_info on '{topic}' refused: {error}")
        self.calibration = "camera_info, rectified here" if view.rectification else "camera_info"
        return view, None

    def _assumed(self, width: int, height: int, problem: tuple[str, str]):
        """The view of a camera that nobody has calibrated: `fov_deg`, if the user has given it."""
        if not self.settings.fov_deg:
            self.calibration = "none"
            return None, problem
        self.calibration = f"none: a field of view of {self.settings.fov_deg:g} degrees is assumed"
        camera = Camera.from_fov(width, height, self.settings.fov_deg)
        return View(camera, info_of_camera(Header(), camera)), None
