# SPDX-License-Identifier: Apache-2.0
"""From bag to bag: every image of a recording gets its depth, on one machine or many."""
