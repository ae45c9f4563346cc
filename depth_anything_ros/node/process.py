# SPDX-License-Identifier: Apache-2.0
"""What a process needs around its node: shared memory that images fit into, a spin that survives, an end."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

_HERE = Path(__file__).resolve().parent
_PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
_KILTED_RCLPY = 9  # major version since which the first of them is read; before, the second


def use_large_shared_memory() -> None:
    """Give Fast DDS a shared-memory segment that images fit into, unless the user has set a profile. Call before rclpy.init.

    The stock segment is 512 KiB: best-effort readers, such as Nav2's, then lose nearly every image and cloud
    (ros2/rmw_fastrtps#739). Containers often have 64 MB of /dev/shm in all, hence the smaller profile.
    """
    if any(os.environ.get(name) for name in (*_PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")):
        return
    try:
        roomy = shutil.disk_usage("/dev/shm").total > 256 << 20
    except OSError:
        return
    profile = _HERE / ("fastdds_32mib.xml" if roomy else "fastdds_16mib.xml")
    try:
        old = int(metadata.version("rclpy").split(".")[0]) < _KILTED_RCLPY
    except metadata.PackageNotFoundError:
        old = False
    os.environ[_PROFILE_VARIABLES[old]] = str(profile)


def leave(code: int) -> None:
    """End the process. A network that is still being compiled in a thread of its own would abort it at the usual end."""
    if any(thread.daemon and thread.name.startswith("network") for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def spin(executor: SingleThreadedExecutor, logger) -> None:
    """Spin until ROS is shut down, whatever a callback does.

    Humble and Jazzy let an invalid lifecycle request, such as activating twice, come out of the executor as an RCLError.
    """
    while rclpy.ok():
        try:
            executor.spin()
        except ExternalShutdownException:
            return
        except Exception as error:
            logger.error(f"{type(error).__name__}: {error}")


def guarded_transition(body: Callable) -> Callable:
    """A lifecycle callback whose exceptions, which rclpy swallows, are said by `_fail`; `on_error` then cleans up."""

    @functools.wraps(body)
    def guarded(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return body(self, state)
        except Exception as error:
            self._fail(f"{body.__name__} failed: {type(error).__name__}: {error}")
            return TransitionCallbackReturn.ERROR

    return guarded
