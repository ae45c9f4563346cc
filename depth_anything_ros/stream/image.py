# SPDX-License-Identifier: Apache-2.0
"""An image made fit for the network, with the calibration that is true of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from ..geometry import Camera, CameraError, UncalibratedError, rotate
from ..inference import Focal, Prediction
from ..messages.bridge import ImageDecoder
from ..messages.camera_info import View, info_of_camera, view_of
from ..messages.cdr import ImageHeader, read_compressed_image
from ..messages.images import compressed_to_rgb
from ..messages.outgoing import ros_header
from ..pipeline import Frame
from .settings import CameraSettings

_CONTRADICTED = "none: the camera_info that comes is not of these images"


@dataclass(frozen=True)
class PreparedImage:
    """An image that is ready for the network.

    Attributes:
        frame: what depth is computed on, and its camera if there is one.
        upright: the same image as the network is to see it.
        header: of everything that comes out.
        info: of the depth image; None without a calibration.
        calibration: where it is from, in words.
        problem: (kind, text) of what is wrong with the calibration; None: nothing.
        focal: (fx, fy) in pixels of `upright`; None without a calibration.
    """

    frame: Frame
    upright: np.ndarray
    header: Header
    info: CameraInfo | None
    calibration: str
    problem: tuple[str, str] | None
    focal: Focal | None

    @property
    def calibrated(self) -> bool:
        """Whether its camera is that of a camera_info."""
        return self.calibration.startswith("camera_info")

    @property
    def contradicted(self) -> bool:
        """Whether there is a calibration, but of another image or size, or one that no camera can have."""
        return self.calibration == _CONTRADICTED

    def with_estimate(self, prediction: Prediction) -> PreparedImage:
        """The same, with the network's estimate of the camera where it had to make one; `prediction`: in the camera's view.

        Refining has no use for it: its memory belongs to a calibration, and this one is another in every frame.
        """
        if not prediction.estimated:
            return self
        (height, width), (fx, fy) = prediction.image_size, prediction.focal
        camera = Camera(width, height, fx, fy, (width - 1) / 2, (height - 1) / 2)
        words = f"none: a field of view of {math.degrees(2 * math.atan(width / 2 / fx)):.1f} degrees is the network's estimate"
        frame, info = replace(self.frame, camera=camera), info_of_camera(self.header, camera)
        return replace(self, frame=frame, info=info, calibration=words)


def decode(cdr: bytes, compressed: bool, of_raw: ImageDecoder) -> tuple[ImageHeader, np.ndarray]:
    """The header and the pixels (H, W, 3) uint8 RGB of a serialised image, raw or compressed.

    Raises:
        MessageError: it cannot be read.
    """
    if compressed:
        image = read_compressed_image(cdr)
        return image.header, compressed_to_rgb(image)
    image, rgb = of_raw(cdr)
    return image.header, rgb


def prepare_image(
    header: ImageHeader,
    rgb: np.ndarray,
    info: CameraInfo | None,
    settings: CameraSettings,
    image_topic: str,
    info_topic: str,
) -> PreparedImage:
    """An image (H, W, 3) uint8 RGB with its view by the camera_info that belongs to it.

    Raises:
        CameraError: `rectify` is true, but there is no calibration to do it by.
    """
    view, calibration, problem = _view(header, rgb.shape[1], rgb.shape[0], info, settings, image_topic, info_topic)
    if view is None and settings.rectify == "true":
        raise CameraError(f"{problem[1]}; without it the image cannot be rectified")
    covered, rectification = None, view.rectification if view else None
    if rectification:
        rgb, covered = rectification.apply(rgb), rectification.coverage()
    out = ros_header(header)
    out.frame_id = settings.frame_id or header.frame_id
    if view:
        view.info.header = out
    camera, focal = view.camera if view else None, None
    if camera:
        focal = (camera.fx, camera.fy)[:: 1 if settings.rotation % 180 == 0 else -1]
    frame = Frame(rgb, camera, covered, header.stamp_ns)
    return PreparedImage(frame, rotate(rgb, settings.rotation), out, view.info if view else None, calibration, problem, focal)


def is_rectified(image_topic: str) -> bool:
    """Whether images are rectified, by image_pipeline's convention: `rect` in the topic's last two names."""
    names = image_topic.removesuffix("/compressed").removesuffix("/compressedDepth").split("/")[-2:]
    return any("rect" in name.split("_") for name in names)


def complete_topics(topics: dict[str, str], known: set[str]) -> dict[str, str]:
    """Names of `image`, `compressed` and `camera_info`: those not `known` follow the others by image_transport's convention."""
    topics = dict(topics)
    if "compressed" in known and "image" not in known:
        topics["image"] = topics["compressed"].removesuffix("/compressed")
    if "compressed" not in known:
        topics["compressed"] = topics["image"] + "/compressed"
    if "camera_info" not in known:
        topics["camera_info"] = topics["image"].rsplit("/", 1)[0] + "/camera_info"
    return topics


def _view(
    header: ImageHeader,
    width: int,
    height: int,
    info: CameraInfo | None,
    settings: CameraSettings,
    image_topic: str,
    info_topic: str,
) -> tuple[View | None, str, tuple[str, str] | None]:
    """The view of an image, or None; where it is from; and what is the matter, as (kind, text)."""
    if info is None:
        return _assumed(width, height, settings, ("no camera_info", f"no camera_info on '{info_topic}' yet"))
    try:
        # Who overrides the frame says that image and calibration belong together.
        frame_id = "" if settings.frame_id else header.frame_id
        view = view_of(info, width, height, settings.rectify, is_rectified(image_topic), frame_id)
    except CameraError as error:
        text = f"camera_info on '{info_topic}' refused: {error}"
        if isinstance(error, UncalibratedError):
            return _assumed(width, height, settings, ("bad camera_info", text))
        return None, _CONTRADICTED, ("bad camera_info", text)
    return view, "camera_info, rectified here" if view.rectification else "camera_info", None


def _assumed(width: int, height: int, settings: CameraSettings, problem: tuple[str, str]):
    """The view of a camera that nobody has calibrated: `fov_deg`, if the user has given it."""
    if not settings.fov_deg:
        return None, "none", problem
    camera = Camera.from_fov(width, height, settings.fov_deg)
    return (
        View(camera, info_of_camera(Header(), camera)),
        f"none: a field of view of {settings.fov_deg:g} degrees is assumed",
        None,
    )
