# SPDX-License-Identifier: Apache-2.0
"""Which converter turns an Image into RGB: cv_bridge where it is installed and safe, else the built-in one.

A cv_bridge compiled against NumPy 1 (Ubuntu's, for Humble and Jazzy) imports under NumPy 2 and then ends the process with
a segmentation fault at its first conversion; no `try` can catch that, so a child process tries it first.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from .cdr import RawImage, read_image
from .images import image_to_rgb, pixels_of

BRIDGES = ("auto", "cv_bridge", "builtin")
ImageDecoder = Callable[[bytes], "tuple[RawImage, np.ndarray]"]

_PROBE = """
from cv_bridge import CvBridge
from sensor_msgs.msg import Image
message = Image(height=1, width=2, encoding="bgr8", step=6)
message.data.frombytes(bytes([1, 2, 3, 4, 5, 6]))
print("converted", CvBridge().imgmsg_to_cv2(message, "rgb8").tolist() == [[[3, 2, 1], [6, 5, 4]]])
"""


class BridgeError(RuntimeError):
    """cv_bridge was asked for by name but cannot be used here."""


def probe_cv_bridge(timeout: float = 10.0) -> str:
    """Why cv_bridge cannot be used here; empty if it can. Takes about a second: one child process."""
    try:
        result = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"it did not answer within {timeout:g} s"
    if result.returncode < 0:
        return f"it ended a test process with signal {-result.returncode}: built for another NumPy than {np.__version__}"
    if result.returncode > 0:
        return result.stderr.strip().split("\n")[-1]
    return "" if "converted True" in result.stdout else "it converted a test image wrongly"


def choose_decoder(bridge: str) -> tuple[ImageDecoder, str]:
    """The function from a serialised Image to the message and its RGB, and a line for the log that says which and why.

    Raises:
        BridgeError: `bridge` is "cv_bridge" and it does not pass the probe.
    """
    if bridge == "builtin":
        return _decode_builtin, "image conversion: built-in"
    problem = probe_cv_bridge()
    if not problem:
        return _cv_bridge_decoder(), "image conversion: cv_bridge"
    if bridge == "cv_bridge":
        raise BridgeError(f"image_bridge is 'cv_bridge', but {problem}. Set image_bridge to 'auto' or 'builtin'.")
    return _decode_builtin, f"image conversion: built-in (cv_bridge: {problem})"


def _decode_builtin(cdr: bytes) -> tuple[RawImage, np.ndarray]:
    image = read_image(cdr)
    return image, image_to_rgb(image)


def _cv_bridge_decoder() -> ImageDecoder:
    from cv_bridge import CvBridge
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import Image

    bridge = CvBridge()

    def decode(cdr: bytes) -> tuple[RawImage, np.ndarray]:
        image = read_image(cdr)
        pixels = pixels_of(image)  # cv_bridge does not check sizes
        padded = image.step * image.height != pixels.nbytes
        if not padded and not image.is_bigendian:  # it skews rows whose padding is not a whole pixel
            with contextlib.suppress(Exception):  # an encoding that it does not know and the built-in converter does
                return image, np.ascontiguousarray(bridge.imgmsg_to_cv2(deserialize_message(cdr, Image), "rgb8"))
        return image, image_to_rgb(image)

    return decode
