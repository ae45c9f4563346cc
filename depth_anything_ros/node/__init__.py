# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 face: the depth node, the camera player, and what they are made of."""
