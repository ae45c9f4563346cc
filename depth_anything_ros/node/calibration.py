# SPDX-License-Identifier: Apache-2.0
"""The service `calibrate`: some seconds of a range sensor, or of the ground, become a file of parameters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future
from std_srvs.srv import Trigger

from ..calibrate import calibration_text, write_calibration
from ..geometry import FitError, check_fit, fit_inverse_depth
from ..models import METRIC
from ..stream.settings import Settings
from .stream import CameraStream

_SECONDS = 3.0  # for which pairs are gathered


class CalibrationService:
    """Answers after some seconds without holding up the thread that spins; what is the matter is in the answer."""

    def __init__(
        self,
        node: LifecycleNode,
        active: Callable[[], bool],
        settings: Callable[[], Settings | None],
        streams: dict[str, CameraStream],
    ):
        self._node, self._active, self._settings, self._streams = node, active, settings, streams
        self._group = ReentrantCallbackGroup()  # an answer that waits would hold up every callback of its group
        self._service = node.create_service(Trigger, "~/calibrate", self._serve, callback_group=self._group)

    async def _serve(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message = await self._calibrate()
            response.success = True
            self._node.get_logger().info(response.message)
        except Exception as error:  # of any kind: who asked waits for an answer
            response.success, response.message = False, f"not calibrated: {error}"
            self._node.get_logger().warning(response.message)
        return response

    async def _calibrate(self) -> str:
        settings = self._settings()
        if settings is None or not self._active():
            raise ValueError("the node is not active")
        if len(self._streams) != 1:
            raise ValueError(f"the node has {len(self._streams)} cameras: calibrate each in a node of its own")
        scale = settings.refine.scale
        if scale.source not in ("sparse", "ground"):
            raise ValueError(
                f"scale.source is {scale.source}: set it to sparse or ground, from which a fixed scale can be made"
            )
        (stream,) = self._streams.values()
        if stream.gathered is not None:
            raise ValueError("a calibration is under way")
        stream.gathered = []
        try:
            await self._pause(_SECONDS)
            gathered = stream.gathered
        finally:
            stream.gathered = None
        if not gathered:
            now = stream.refined.scale
            raise FitError(f"nothing to compare in {_SECONDS:g} s: {now.problem if now and now.problem else 'no images'}")
        networks, kinds, focals, inverse, truth = zip(*gathered)
        if len(set(networks)) > 1 or max(focals) - min(focals) > 1e-3:
            raise FitError("the network or the camera was changed meanwhile")
        fit = fit_inverse_depth(np.concatenate(inverse), np.concatenate(truth), kinds[0] != METRIC, scale.source == "ground")
        check_fit(fit, settings.refine.scale)
        said = f"From {len(gathered)} frames and {'the ground' if scale.source == 'ground' else settings.scale_topic}"
        text = calibration_text(fit, networks[0], settings.network.checkpoint, focals[0], said)
        path = write_calibration(settings.calibration_file, text)
        return f"1 / z = {fit.a:.6g} * inverse + {fit.b:.6g}, {fit.inliers} of {fit.points} points, written to {path}"

    def _pause(self, seconds: float) -> Future:
        done = Future(executor=self._node.executor)

        def end() -> None:
            self._node.destroy_timer(timer)
            done.set_result(None)

        clock = Clock(clock_type=ClockType.STEADY_TIME)
        timer = self._node.create_timer(seconds, end, callback_group=self._group, clock=clock)
        return done
