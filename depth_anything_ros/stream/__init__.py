# SPDX-License-Identifier: Apache-2.0
"""One camera's stream from serialised images to messages, without a node: common to node and bag tool."""
