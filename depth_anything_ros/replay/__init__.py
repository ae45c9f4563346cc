# SPDX-License-Identifier: Apache-2.0
"""From bag to bag: every image of a recording gets its depth, on one machine or many."""

from importlib.util import find_spec

_missing = [name for name in ("rosbags", "mcap") if find_spec(name) is None]
if _missing:
    raise ImportError(f"{' and '.join(_missing)} are not installed: pip install 'rosbags<0.12' 'mcap<2' tqdm matplotlib")


def check_matplotlib(option: str) -> None:
    """Raise a ValueError if an option that draws is asked for in vain."""
    if not find_spec("matplotlib"):
        raise ValueError(f"{option} needs matplotlib: pip install matplotlib")
