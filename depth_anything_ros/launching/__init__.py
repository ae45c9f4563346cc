# SPDX-License-Identifier: Apache-2.0
"""What the launch files are made of. It imports nothing of the rest: the Python that runs `ros2 launch` need not have torch."""
