# SPDX-License-Identifier: Apache-2.0
"""ament_python package; also installable with pip on a machine without ROS: pip install '.[ros]'."""

import re
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NAME = "depth_anything_ros"
HERE = Path(__file__).resolve().parent  # colcon --symlink-install links this file elsewhere
VERSION = re.search(r'__version__ = "(.+)"', (HERE / NAME / "__init__.py").read_text()).group(1)
ROS_WHEELS = [  # ROS 2 Kilted from PyPI, for machines without a ROS distro
    "ros-rclpy[fastrtps]",
    "ros-std-msgs",
    "ros-sensor-msgs",
    "ros-std-srvs",
    "ros-diagnostic-msgs",
    "ros-lifecycle-msgs",
]

OPENVINO = ["openvino>=2024.4", "torch>=2.6"]  # several times as fast on a CPU
ONNX = ["onnxruntime>=1.18", "onnx>=1.16", "onnxscript>=0.5", "torch>=2.6"]

REPLAY = ["rosbags>=0.11,<0.12", "mcap>=1.1,<2", "tqdm", "matplotlib"]  # depth_bag, depth_eval, bag_player
FLEET = ["ray>=2.9"]  # depth_bag --ray

setup(
    name=NAME,
    version=VERSION,
    description="Any robot camera becomes a depth camera: Depth Anything for ROS 2, in metres",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="depth_anything_ros authors",
    maintainer="depth_anything_ros authors",
    maintainer_email="maintainers@depth-anything-ros.example",
    license="Apache-2.0",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["demo/*.safetensors", "node/*.xml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", glob("launch/*.launch.py")),
        *((f"share/{NAME}/{folder}", glob(f"{folder}/*.yaml")) for folder in ("config", *sorted(glob("config/*/")))),
        (f"share/{NAME}/rviz", glob("rviz/*.rviz")),
    ],
    zip_safe=False,
    python_requires=">=3.10",
    install_requires=[
        "setuptools",
        "numpy>=1.21",
        "torch>=2.1",
        "timm>=1.0.22,<2",
        "opencv-python-headless>=4.5",
        "pyyaml",
        "huggingface_hub>=0.25",
        "safetensors>=0.4",
    ],
    extras_require={
        "ros": ROS_WHEELS,
        "openvino": OPENVINO,
        "onnx": ONNX,
        "replay": REPLAY,
        "fleet": [*REPLAY, *FLEET],
        "test": [
            "pytest<8.4",
            "pytest-xdist",
            "transformers>=4.45",
            "ruff",
            *REPLAY,
            *[f'{name}; python_version < "3.14"' for name in FLEET],
            *OPENVINO,
            *ONNX,
        ],  # launch_testing's plugin breaks newer pytest
    },
    entry_points={
        "console_scripts": [
            f"depth_node = {NAME}.node.depth_node:main",
            f"camera_player = {NAME}.node.camera_player:main",
            f"depth_image = {NAME}.depth_image:main",
            f"calibrate = {NAME}.calibrate:main",
            f"depth_bag = {NAME}.depth_bag:main",
            f"depth_eval = {NAME}.depth_eval:main",
            f"bag_player = {NAME}.node.bag_player:main",
            f"depth_models = {NAME}.depth_models:main",
            f"depth_finetune = {NAME}.depth_finetune:main",
            f"depth_export = {NAME}.depth_export:main",
            f"depth_benchmark = {NAME}.depth_benchmark:main",
        ]
    },
)
