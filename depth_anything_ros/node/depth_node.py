# SPDX-License-Identifier: Apache-2.0
"""`depth_node`: a camera topic in; depth, colour and cloud topics out.

The spinning thread only receives and keeps house; a worker thread runs the network; a loader thread loads it.
"""

from __future__ import annotations

import sys

import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from ..messages.bridge import choose_decoder
from ..models import METRIC, MODELS
from . import parameters
from .camera_input import CameraInput
from .diagnostics import diagnose
from .network_slot import NetworkSlot
from .parameters import Settings
from .process import keep_large_buffers, use_large_shared_memory
from .publications import Publications
from .statistics import Statistics
from .worker import Worker

_HOUSEKEEPING_PERIOD = 0.2  # seconds


class DepthNode(LifecycleNode):
    """Lifecycle: configure checks and starts to load, activate subscribes and publishes, deactivate and cleanup undo it."""

    def __init__(self, **kwargs):
        super().__init__("depth_node", **kwargs)
        parameters.declare(self)
        self._state = "unconfigured"
        self._settings: Settings | None = None
        self._statistics = Statistics()
        self._network = NetworkSlot(self.get_logger().info)
        self._source: CameraInput | None = None
        self._publications: Publications | None = None
        self._worker: Worker | None = None
        self._failure = ""
        self._parameters_changed = False
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.add_on_set_parameters_callback(self._check_parameters)
        self.create_timer(1.0, self._publish_diagnostics)
        self.create_timer(_HOUSEKEEPING_PERIOD, self._keep_house)

    # -- lifecycle ----------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check everything that can be checked at once, announce the topics, start to load the network."""
        try:
            self._settings = parameters.read(self)
        except ValueError as error:
            self._fail(f"cannot configure: {error}")
            return TransitionCallbackReturn.FAILURE
        self._failure = ""
        settings, network = self._settings, self._settings.network
        if settings.malloc_tuning:
            keep_large_buffers()
        make_deterministic(settings.deterministic)
        self._publications = Publications(self)
        self._network.request(network)
        self.get_logger().info(f"weights of {network.model}/{network.encoder}: licence {settings.licence}")
        if network.model == "demo":
            self.get_logger().warning("model 'demo' is for demonstrations and tests: never drive a robot by it")
        elif MODELS[network.model].kind != METRIC:
            self.get_logger().warning(
                f"model '{network.model}' has no metres: only depth/relative and depth/color are published"
            )
        self._state = "inactive"
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start to work; refused if the network could not be loaded."""
        if self._network.error:
            self._fail(f"cannot activate: {self._network.error}")
            return TransitionCallbackReturn.FAILURE
        self._failure = ""
        self._statistics.reset()
        self._source = CameraInput(self, self._settings.image_transport, self._statistics)
        self._source.refresh()
        self._worker = Worker(self._source, self._network, self._publications, self._statistics, self.get_logger())
        self._worker.start(self._settings, self._choose_decoder)
        self._state = "active"
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Finish the frame at hand and unsubscribe."""
        self._stop_work()
        self._state = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the network and the topics."""
        self._release()
        self._state, self._failure = "unconfigured", ""
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop from whichever state."""
        self._release()
        self._state = "finalized"
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Stop the threads; for the end of the process."""
        self._stop_work()
        self._network.clear()

    def _stop_work(self) -> None:
        if self._worker:
            self._worker.stop()
            self._worker = None
        if self._source:
            self._source.close()
            self._source = None

    def _release(self) -> None:
        self._stop_work()
        self._network.clear()
        if self._publications:
            self._publications.close()
            self._publications = None
        self._settings = None

    # -- housekeeping, on the spinning thread -------------------------------------------------------------------

    def _keep_house(self) -> None:
        if self._source:
            self._source.refresh()
        if self._settings and self._network.error and self._network.loaded:
            self._revert_network_parameters()
        if self._settings and self._parameters_changed:
            self._apply_parameters()
        failure = (self._worker.failure if self._worker else "") or (self._network.error if not self._network.estimator else "")
        if failure and not self._failure:
            self._fail(failure)
            if self._state == "active":
                self.trigger_deactivate()

    def _apply_parameters(self) -> None:
        """Bring what runs in line with the parameters; they were checked when they were set."""
        self._parameters_changed = False
        try:
            self._settings = parameters.read(self)
        except ValueError as error:  # a file that vanished since: what runs keeps running
            self.get_logger().error(f"parameters not applied: {error}")
            return
        self._network.request(self._settings.network)
        if self._worker:
            self._worker.settings = self._settings

    def _revert_network_parameters(self) -> None:
        """A network that was asked for could not be loaded: the old one runs on, and the parameters say so again."""
        error, loaded = self._network.error, self._network.loaded
        self._statistics.problem("network change", error)
        self.get_logger().error(f"the network was not changed: {error}")
        self._network.error = ""
        self._network.requested = loaded
        self.set_parameters([Parameter(name, value=getattr(loaded, name)) for name in loaded.__dataclass_fields__])

    def _check_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        """Accept a change only if the whole would be valid."""
        changes = {parameter.name: parameter.value for parameter in changed}
        fixed = parameters.fixed_while_active() & changes.keys()
        if fixed and self._settings:
            return SetParametersResult(
                successful=False, reason=f"{', '.join(sorted(fixed))}: only before the node is configured"
            )
        if not self._settings:  # everything is checked again, and together, by configure
            return SetParametersResult(successful=True)
        try:
            parameters.read(self, {name: value for name, value in changes.items() if self.has_parameter(name)})
        except (ValueError, TypeError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._parameters_changed = True
        return SetParametersResult(successful=True)

    def _choose_decoder(self):
        decoder, line = choose_decoder(self._settings.image_bridge)
        self.get_logger().info(line)
        return decoder

    def _publish_diagnostics(self) -> None:
        array = diagnose(
            self.get_name(), self._state, self._settings, self._network, self._source, self._statistics, self._failure
        )
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def _fail(self, text: str) -> None:
        self._failure = text
        self.get_logger().error(text)


def make_deterministic(on: bool) -> None:
    """One order of every sum: deterministic kernels and one CPU thread."""
    if on:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        torch.set_num_threads(1)


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; 1 if it could not be configured."""
    use_large_shared_memory()
    rclpy.init(args=args)
    node = DepthNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if node.get_parameter("autostart").value:
            for trigger in (node.trigger_configure, node.trigger_activate):
                if trigger() != TransitionCallbackReturn.SUCCESS:
                    return 1
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
