# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 face: the depth node, the camera player, and what they are made of."""

import os

# OpenMP's idle threads spin by default. On a robot whose cores have other work too, every parallel section then waits for a
# descheduled thread: the worst frame took three times as long (docs/benchmarks.md). libgomp reads this when torch is
# imported, so it stands here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
