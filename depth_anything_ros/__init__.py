# SPDX-License-Identifier: Apache-2.0
"""Any robot camera becomes a depth camera: depth in metres, pictures and point clouds from one image topic."""

__version__ = "0.1.0"
