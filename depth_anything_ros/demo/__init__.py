# SPDX-License-Identifier: Apache-2.0
"""Procedural scenes with exact depth, and the embedded model trained on them. For demonstrations and tests only."""
