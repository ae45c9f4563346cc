# SPDX-License-Identifier: Apache-2.0
"""Depth from a bag that is played: the depth node and the player, and an end with the first of them that ends."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from ament_index_python.packages import get_package_prefix
from launch import LaunchContext
from launch.actions import EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch_ros.actions import Node

from .actions import PACKAGE, depth, namespace_of
from .arguments import REPLAY

_SAYS_WHICH_CAMERA = ("robot", "image", "compressed", "params_file")


def replay(values: dict) -> list:
    """The depth node by the bag's time, and the player; when the player ends, everything does."""
    bag = Path(values["bag"]).expanduser().absolute()
    if not values["bag"] or not bag.exists():
        raise FileNotFoundError(f"there is no bag '{values['bag']}': expected bag:=<a folder, .mcap, .db3 or .bag>")
    if not any(values[name] for name in _SAYS_WHICH_CAMERA):
        values = values | camera_of(bag)
    started = depth(values | {"use_sim_time": "true", "autostart": "true"})
    given = {row.name: row.parse(values[row.name]) for row in REPLAY if values[row.name]}
    player = Node(
        package=PACKAGE,
        executable="bag_player",
        name="bag_player",
        parameters=[given | {"bag": str(bag), "depth_namespace": namespace_of(values)}],
        output="screen",
        emulate_tty=True,
    )
    ends = [RegisterEventHandler(OnProcessExit(target_action=each, on_exit=_end)) for each in (player, started[0])]
    return [*ends, *started, player]


def camera_of(bag: Path) -> dict[str, str]:
    """The arguments that name the one camera of a bag, found by the player: the Python of `ros2 launch` need not read bags.

    Raises:
        ValueError: there is none, or there are several.
    """
    player = Path(get_package_prefix(PACKAGE)) / "lib" / PACKAGE / "bag_player"
    asked = subprocess.run([str(player), "--cameras", str(bag)], capture_output=True, text=True)
    if asked.returncode:
        raise ValueError((asked.stderr.strip().splitlines() or [f"{player} cannot say what is in '{bag}'"])[-1])
    cameras = [json.loads(line) for line in asked.stdout.splitlines()]
    if len(cameras) > 1:
        lines = " or ".join(_words(camera) for camera in cameras)
        raise ValueError(f"'{bag}' has several cameras: choose one with {lines}")
    print(f"[replay.launch.py] the camera of the bag: {_words(cameras[0])}", flush=True)
    return {
        "compressed" if cameras[0]["compressed"] else "image": cameras[0]["image"],
        "camera_info": cameras[0]["camera_info"],
    }


def _words(camera: dict) -> str:
    return f"{'compressed' if camera['compressed'] else 'image'}:={camera['image']}"


def _end(event: ProcessExited, context: LaunchContext) -> list:
    """End the launch, with an error if a process has ended with one."""
    if context.is_shutdown:
        return []
    if event.returncode:
        return [OpaqueFunction(function=_fail, args=[event.process_name, event.returncode])]
    return [EmitEvent(event=Shutdown(reason=f"{event.process_name} has ended"))]


def _fail(context: LaunchContext, name: str, code: int) -> None:
    raise RuntimeError(f"{name} has ended with {code}: see what it says above")
