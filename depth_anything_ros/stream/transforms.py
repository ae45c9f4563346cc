# SPDX-License-Identifier: Apache-2.0
"""Fixed transforms, as the parameter `transforms` writes them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..geometry import Transform, TransformError, TransformTree


def parse_transforms(lines: Iterable[str]) -> TransformTree:
    """Fixed transforms, each "parent child x y z roll pitch yaw" in metres and radians; empty lines are none.

    Frames are named with or without tf1's leading slash.

    Raises:
        ValueError: a line that says something else, or a circle.
    """
    tree, children = TransformTree(), set()
    for line in lines:
        words = line.split()
        if not words:
            continue
        try:
            parent, child, *numbers = words
            transform = Transform.from_rpy(*map(float, numbers))
            if not np.isfinite(transform.translation).all() or not np.isfinite(transform.rotation).all():
                raise ValueError
            if child.lstrip("/") in children:
                raise TransformError(f"'{child}' has a parent already")
            tree.add(parent.lstrip("/"), child.lstrip("/"), transform)
            children.add(child.lstrip("/"))
        except TransformError as error:
            raise ValueError(f"transforms: '{line}': {error}") from error
        except (TypeError, ValueError):
            raise ValueError(
                f"transforms: '{line}', expected 'parent child x y z roll pitch yaw' in metres and radians"
            ) from None
    return tree
