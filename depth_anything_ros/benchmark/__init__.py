# SPDX-License-Identifier: Apache-2.0
"""What `depth_benchmark` measures: stages, peers, the machine's ceiling, and the way over DDS."""
