# SPDX-License-Identifier: Apache-2.0
"""The depth node with a network that takes SLOW_NETWORK_SECONDS for a frame."""

import os
import sys
import time

from depth_anything_ros.inference import DepthEstimator
from depth_anything_ros.node.depth_node import main

fast = DepthEstimator.predict_batch


def slow(self, *arguments):
    end = time.monotonic() + float(os.environ["SLOW_NETWORK_SECONDS"])
    predictions = fast(self, *arguments)
    time.sleep(max(0.0, end - time.monotonic()))
    return predictions


DepthEstimator.predict_batch = slow

if __name__ == "__main__":
    sys.exit(main())
