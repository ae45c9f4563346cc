# SPDX-License-Identifier: Apache-2.0
"""Where the tests run: this host only, a domain of their own, message fields checked as strictly as Humble does."""

import os
import sys
from pathlib import Path

import pytest

os.environ["ROS_DOMAIN_ID"] = str(100 + os.getpid() % 100)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_LOCALHOST_ONLY"] = "1"
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not take the core from another process
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # several of us share the cores
sys.path.insert(0, str(Path(__file__).parent))

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """Real photos, video and RGB-D pairs that are not part of the repository."""
    if not (DATA / "README.md").is_file():
        pytest.skip(f"the real data is not at {DATA}")
    return DATA


@pytest.fixture(scope="session")
def vits(tmp_path_factory) -> Path:
    """A checkpoint of random ViT-S weights in the published layout."""
    import torch
    from published import random_state_dict

    path = tmp_path_factory.mktemp("weights") / "vits.pth"
    torch.save(random_state_dict("vits"), path)
    return path
