# SPDX-License-Identifier: Apache-2.0
"""`depth_node`: a camera topic in; depth, colour and cloud topics out.

The spinning thread only receives and keeps house; a worker thread runs the network; a loader thread loads it.
"""

from __future__ import annotations

import contextlib
import functools
import sys

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from ..inference import keep_large_buffers, make_deterministic
from ..messages.bridge import choose_decoder
from ..stream.settings import Settings
from ..stream.table import TABLE
from . import parameters
from .bond import Bond, bond_with_manager
from .calibration import CalibrationService
from .camera_input import Arrival
from .diagnostics import diagnose
from .mailbox import Mailbox
from .network_slot import NetworkSlot
from .process import guarded_transition, leave, spin, use_large_shared_memory
from .stream import CameraStream
from .surroundings import Surroundings
from .worker import Worker

_HOUSEKEEPING_PERIOD = 0.2  # seconds


class DepthNode(LifecycleNode):
    """Lifecycle: configure checks and starts to load, activate subscribes and publishes, deactivate and cleanup undo it."""

    def __init__(self, **kwargs):
        super().__init__("depth_node", **kwargs)
        parameters.declare(self)
        self._state = "unconfigured"
        self._settings: Settings | None = None
        self._network = NetworkSlot(self.get_logger().info)
        self._streams: dict[str, CameraStream] = {}
        self._mailbox: Mailbox[Arrival] = Mailbox()
        self._surroundings: Surroundings | None = None
        self._worker: Worker | None = None
        self._bond: Bond | None = None
        self._failure = ""
        self._parameters_changed = self._restoring = False
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._calibration = CalibrationService(self, lambda: self._state == "active", lambda: self._settings, self._streams)
        self.add_on_set_parameters_callback(self._check_parameters)
        wall = Clock(clock_type=ClockType.STEADY_TIME)  # house is kept while simulated time stands still, too
        self.create_timer(1.0, self._publish_diagnostics, clock=wall)
        self.create_timer(_HOUSEKEEPING_PERIOD, self._keep_house, clock=wall)

    # -- lifecycle ----------------------------------------------------------------------------------------------

    @guarded_transition
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check everything that can be checked at once, announce the topics, start to load the network."""
        try:
            self._settings = parameters.read(self)
            self._surroundings = Surroundings(self, self._settings)
            for name, camera in self._settings.cameras.items():
                self._streams[name] = CameraStream(self, name, camera, self._mailbox)
        except ValueError as error:
            self._release()
            self._fail(f"cannot configure: {error}")
            return TransitionCallbackReturn.FAILURE
        self._failure = ""
        if self._settings.malloc_tuning:
            keep_large_buffers()
        make_deterministic(self._settings.deterministic)
        self._request_network()
        self._state = "inactive"
        return TransitionCallbackReturn.SUCCESS

    @guarded_transition
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start to work; refused if the network could not be loaded."""
        if self._network.running is None and self._network.error:
            hint = "set other parameters, or clean up and configure again"
            self.get_logger().error(f"cannot activate: {self._network.error} ({hint})")
            return TransitionCallbackReturn.FAILURE
        self._failure = ""
        self._mailbox.take(timeout=0)  # what came before is stale
        for stream in self._streams.values():
            stream.start()
            self.get_logger().info(f"reading {stream.source.image_topic} and {stream.source.topics['camera_info']}")
        decoder = functools.partial(self._choose_decoder, self._settings.image_bridge)
        self._worker = Worker(self._streams, self._mailbox, self._network, self._surroundings, self.get_logger())
        self._worker.start(decoder)
        if not self.get_parameter("autostart").value:  # then somebody manages us
            self._bond = bond_with_manager(self)
        self._state = "active"
        return super().on_activate(state)

    @guarded_transition
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Finish the frame at hand and unsubscribe."""
        self._stop_work()
        self._state = "inactive"
        return super().on_deactivate(state)

    @guarded_transition
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the network and the topics."""
        self._release()
        self._state, self._failure = "unconfigured", ""
        return TransitionCallbackReturn.SUCCESS

    @guarded_transition
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop from whichever state."""
        self._release()
        self._state = "finalized"
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an unexpected failure: back to unconfigured, with nothing left running."""
        self._release()
        self._state = "unconfigured"
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Stop the threads; for the end of the process."""
        self._stop_work()
        self._network.clear()

    def _stop_work(self) -> None:
        if self._worker:
            if not self._worker.stop():
                self.get_logger().error("the worker does not answer: a frame hangs in the network")
            self._worker = None
        for stream in self._streams.values():
            stream.source.close()
        if self._surroundings:
            self._surroundings.close()
        if self._bond:
            self._bond.end()
            self._bond = None

    def _release(self) -> None:
        self._stop_work()
        self._network.clear()
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()
        self._settings = self._surroundings = None

    # -- housekeeping, on the spinning thread -------------------------------------------------------------------

    def _keep_house(self) -> None:
        try:
            if self._state == "active":
                for stream in self._streams.values():
                    stream.source.refresh()
                    self._notice_silence(stream)
                self._surroundings.refresh(self._settings)
            if self._settings:
                self._apply_parameters()
                self._network.tell_progress()
                self._notice_failures()
        except Exception as error:
            self._problem("internal error", f"housekeeping failed: {type(error).__name__}: {error}")

    def _problem(self, kind: str, text: str) -> None:
        """Something that concerns all cameras: counted for each, logged once."""
        if any([stream.statistics.problem(kind, text) for stream in self._streams.values()]):
            self.get_logger().error(text)

    def _notice_silence(self, stream: CameraStream) -> None:
        """One line when no images come, one when they come again; and one about a frame that is not optical."""
        silent = stream.statistics.silence > self._settings.no_image_timeout
        name = f"{stream.name}: " if stream.name else ""
        if silent and not stream.silent:
            self.get_logger().warning(f"{name}no images: {stream.source.describe_publishers()}")
        elif stream.silent and not silent:
            self.get_logger().info(f"{name}images from {stream.source.image_topic}")
        stream.silent = silent
        if not stream.optical and not stream.warned:
            stream.warned = True
            self.get_logger().warning(
                f"{name}frame_id '{stream.frame_id}' is not optical by its name; if its x axis points forward, clouds will "
                f"stand upright: set {stream.name or 'camera'}.frame_id to the optical frame"
            )

    def _notice_failures(self) -> None:
        """A network that cannot be had, or that fails again and again, deactivates the node."""
        if self._network.error and self._network.running:
            self._restore_parameters()
            return
        failure = (self._worker.failure if self._worker else "") or self._network.error
        if failure and failure != self._failure:
            self._fail(failure)
            if self._state == "active":
                self.trigger_deactivate()

    def _apply_parameters(self) -> None:
        """Bring what runs in line with the parameters; they were checked when they were set."""
        if not self._parameters_changed:
            return
        self._parameters_changed = False
        try:
            self._settings = parameters.read(self)
        except ValueError as error:  # a file that vanished since: what runs keeps running
            self._problem("parameters", f"parameters not applied: {error}")
            return
        self._request_network()

    def _request_network(self) -> None:
        """Run with the present settings, and say what the user has to know about the weights if they are others."""
        network, before = self._settings.network, self._network.requested
        same = ("model", "encoder", "checkpoint", "identity")
        if before is None or any(getattr(before.network, name) != getattr(network, name) for name in same):
            row = self._settings.model
            self.get_logger().info(f"weights of {network.model}/{network.encoder}: licence {row.licence(network.encoder)}")
            if network.model == "demo":
                self.get_logger().warning("model 'demo' is for demonstrations and tests: never drive a robot by it")
            elif not row.metric and self._settings.refine.scale.source == "none":
                self.get_logger().warning(
                    f"model '{network.model}' has no metres: only depth/relative and depth/color come out"
                )
        if self._network.error:
            self._failure = ""
        self._network.request(self._settings)

    def _restore_parameters(self) -> None:
        """A network that was asked for could not be loaded: the old one runs on, and the parameters say so again."""
        error, good = self._network.error, self._network.running.settings
        self._problem("network change", f"the network was not changed: {error}")
        if parameters.current(self) == self._network.requested.values:  # else something newer has been set
            self._restoring = True
            self.set_parameters_atomically([Parameter(name, value=value) for name, value in good.values.items()])
            self._restoring = False
        self._settings = good
        self._network.request(good)

    def _check_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        """Accept a change only if the whole would be valid."""
        if not self._settings or self._restoring:  # before configure, everything is checked by configure
            return SetParametersResult(successful=True)
        fixed = parameters.fixed_while_active(self._settings.cameras)
        fixed = sorted(p.name for p in changed if p.name in fixed and p.value != self.get_parameter(p.name).value)
        if fixed:
            reason = f"{', '.join(fixed)}: only before the node is configured (clean it up first)"
            return SetParametersResult(successful=False, reason=reason)
        known = {row.name for row in TABLE}
        changes = {parameter.name: parameter.value for parameter in changed if parameter.name in known}
        if not changes:
            return SetParametersResult(successful=True)
        try:
            parameters.read(self, changes)
        except (ValueError, TypeError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._parameters_changed = True
        return SetParametersResult(successful=True)

    def _choose_decoder(self, bridge: str):
        decoder, line = choose_decoder(bridge)
        self.get_logger().info(line)
        return decoder

    def _publish_diagnostics(self) -> None:
        name = self.get_fully_qualified_name().lstrip("/")
        array = diagnose(name, self._state, self._settings, self._network, self._streams.values(), self._failure)
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def _fail(self, text: str) -> None:
        self._failure = text
        self.get_logger().error(text)


def main(args: list[str] | None = None) -> None:
    """Run the node until it is interrupted, and end the process; with 1 if the node could not be configured."""
    leave(_run(args))


def _run(args: list[str] | None) -> int:
    use_large_shared_memory()
    try:
        rclpy.init(args=args)
    except Exception as error:  # of RCLError's many lines, the first names the argument or file that is wrong
        print(f"depth_node: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    node, executor = None, SingleThreadedExecutor()
    try:
        node = DepthNode()
        executor.add_node(node)
        if node.get_parameter("autostart").value:
            for trigger in (node.trigger_configure, node.trigger_activate):
                if trigger() != TransitionCallbackReturn.SUCCESS:
                    return 1
        spin(executor, node.get_logger())
    except ParameterException as error:  # of another type than declared, mostly 10 where 10.0 was meant
        rclpy.logging.get_logger("depth_node").fatal(str(error))
        return 1
    except KeyboardInterrupt:
        pass
    finally:
        if node:
            with contextlib.suppress(KeyboardInterrupt):  # a second one, from somebody in a hurry
                node.close()
        executor.shutdown()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    main()
