# SPDX-License-Identifier: Apache-2.0
"""ROS messages <-> arrays. Imports message packages, never a node."""
