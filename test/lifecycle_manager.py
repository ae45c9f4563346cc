# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Nav2's lifecycle_manager: its parameters, its services, its time limits; no bond."""

import sys
import time

import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import ExternalShutdownException


def main():
    rclpy.init()
    node = rclpy.create_node("lifecycle_manager")
    names = node.declare_parameter("node_names", [""]).value
    node.declare_parameter("autostart", False)
    node.declare_parameter("bond_timeout", 4.0)

    def call(kind, name, request, seconds):
        client = node.create_client(kind, name)
        while not client.wait_for_service(2.0):
            print(f"waiting for service {name}", flush=True)
        future = client.call_async(request)
        rclpy.spin_until_future_complete(node, future, timeout_sec=seconds)
        return future.result()

    def change(name, transition, goal):
        request = ChangeState.Request()
        request.transition.id = transition
        begin = time.monotonic()
        good = call(ChangeState, f"{name}/change_state", request, 5.0)
        state = call(GetState, f"{name}/get_state", GetState.Request(), 2.0)
        if not good or not good.success or not state or state.current_state.id != goal:
            took = time.monotonic() - begin
            print(f"Failed to change state for node: {name}: {good}, then {state}, in {took:.2f} s", flush=True)
            sys.exit(1)
        print(f"{name}: transition {transition} took {time.monotonic() - begin:.2f} s", flush=True)

    try:
        if node.get_parameter("autostart").value:
            for transition, goal in (
                (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
                (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
            ):
                for name in names:
                    change(name, transition, goal)
            print("Managed nodes are active", flush=True)
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass


if __name__ == "__main__":
    main()
