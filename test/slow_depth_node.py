# SPDX-License-Identifier: Apache-2.0
"""The depth node with a network that takes SLOW_NETWORK_SECONDS for a frame."""

import os
import time

from depth_anything_ros.inference import DepthEstimator
from depth_anything_ros.node.depth_node import main


def slow(fast):
    """A method that takes its time."""

    def method(self, *arguments):
        end = time.monotonic() + float(os.environ["SLOW_NETWORK_SECONDS"])
        result = fast(self, *arguments)
        time.sleep(max(0.0, end - time.monotonic()))
        return result

    return method


DepthEstimator.predict_batch = slow(DepthEstimator.predict_batch)
DepthEstimator.prepare = slow(DepthEstimator.prepare)  # the first pass is part of loading

if __name__ == "__main__":
    main()
