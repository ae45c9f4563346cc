# SPDX-License-Identifier: Apache-2.0
"""What ships: the table of parameters and its YAML, the package's metadata, the storeys, the wheel, the launch file."""

import ast
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from ros import DepthProcess, bench

import depth_anything_ros
from depth_anything_ros.node.process import use_large_shared_memory
from depth_anything_ros.stream.table import CAMERA_TABLE, TABLE

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "depth_anything_ros"


def test_depth_yaml_lists_every_parameter_with_its_default_and_when_it_may_change():
    text = (REPOSITORY / "config" / "depth.yaml").read_text()
    parameters = yaml.safe_load(text)["/**"]["ros__parameters"]
    flat = {}
    for name, value in parameters.items():
        flat |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    table = [*TABLE, *(replace(row, name=f"camera.{row.name}") for row in CAMERA_TABLE)]
    assert flat == {row.name: row.default for row in table}
    lines = text.splitlines()
    for row in table:
        *group, key = row.name.split(".")
        begin = lines.index(f"    {group[0]}:") if group else 0
        indent = " " * (6 if group else 4)
        at = next(i for i, line in enumerate(lines) if i >= begin and line.startswith(f"{indent}{key}:"))
        comment = []
        while lines[at - 1].strip().startswith("#"):
            at -= 1
            comment.insert(0, lines[at].strip("# "))
        said = " ".join(comment)
        assert said.startswith("[run time]" if row.dynamic else "[at configure]"), row.name
        assert row.description in said
        if row.limits:
            assert f"Range {row.limits[0]:g} to {row.limits[1]:g}" in said


def test_the_node_takes_the_yaml_as_it_is(tmp_path):
    arguments = ("--params-file", str(REPOSITORY / "config" / "depth.yaml"), "-p", "model:=demo")
    with DepthProcess(tmp_path, *arguments) as node, bench(listen=()) as it:
        it.wait_ready()
        assert node.alive


def test_versions_agree():
    version = depth_anything_ros.__version__
    assert ElementTree.parse(REPOSITORY / "package.xml").getroot().findtext("version") == version
    assert f"## {version}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_package_xml_names_what_the_code_imports():
    root = ElementTree.parse(REPOSITORY / "package.xml").getroot()
    assert root.get("format") == "3" and root.findtext("export/build_type") == "ament_python"
    declared = {element.text for element in root if element.tag.endswith("depend")}
    assert {"rclpy", "sensor_msgs", "cv_bridge", "sensor_msgs_py", "python3-opencv", "python3-numpy"} <= declared
    imported = {name for file in PACKAGE.rglob("*.py") for name in imports(file)}
    messages = {name for name in imported if name.endswith("_msgs") or name in ("builtin_interfaces", "rcl_interfaces")}
    assert messages <= declared


COMMANDS = ("depth_node", "camera_player", "depth_image", "calibrate", "depth_export", "depth_benchmark")
COMMANDS += ("depth_bag", "depth_eval", "bag_player", "depth_models", "depth_finetune")


def imports(file):
    """Top-level names of everything that a file imports, wherever in it."""
    for item in ast.walk(ast.parse(file.read_text())):
        if isinstance(item, ast.Import):
            yield from (alias.name.split(".")[0] for alias in item.names)
        elif isinstance(item, ast.ImportFrom) and item.level == 0:
            yield item.module.split(".")[0]


def test_the_storeys_without_ros_import_nothing_of_ros():
    script = """
import sys
for name in ("rclpy", "sensor_msgs", "std_msgs", "builtin_interfaces", "rcl_interfaces", "cv_bridge", "sensor_msgs_py"):
    sys.modules[name] = None
import depth_anything_ros.depth_image, depth_anything_ros.pipeline, depth_anything_ros.demo.sources
import numpy as np
estimator = depth_anything_ros.depth_image.DepthEstimator.create("demo", device="cpu", backend="torch")
print(estimator.predict(np.zeros((48, 64, 3), np.uint8)).at_image_size().shape)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "(48, 64)", result.stderr


def test_imports_only_go_down():
    order = ["__version__", "demo", "models", "inference", "command_line", "geometry", "pipeline", "outputs", "calibrate"]
    order += ["messages", "stream", "replay", "training", "node"]
    allowed = {storey: set(order[: i + 1]) for i, storey in enumerate(order)} | {"launching": set()}
    for file in PACKAGE.rglob("*.py"):
        storey = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if storey not in allowed:
            continue
        for item in ast.walk(ast.parse(file.read_text())):
            if isinstance(item, ast.ImportFrom) and item.level > len(file.relative_to(PACKAGE).parts) - 1:
                for target in [item.module.split(".")[0]] if item.module else [name.name for name in item.names]:
                    assert target in allowed[storey], f"{file.name} imports {target}"


def test_the_wheel_holds_everything_that_is_needed_at_run_time(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*command, str(copy_of_repository(tmp_path))], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "depth_anything_ros/demo/demo.safetensors",
        "depth_anything_ros/node/fastdds_32mib.xml",
        "share/ament_index/resource_index/packages/depth_anything_ros",
        "share/depth_anything_ros/package.xml",
        "share/depth_anything_ros/launch/depth.launch.py",
        "share/depth_anything_ros/config/depth.yaml",
        "share/depth_anything_ros/config/robots/realsense.yaml",
        "share/depth_anything_ros/config/nav2/voxel_layer.yaml",
        "share/depth_anything_ros/config/consumers/rtabmap.yaml",
        "share/depth_anything_ros/rviz/depth.rviz",
    ):
        assert any(name.endswith(needed) for name in names), needed
    points = zipfile.ZipFile(wheel).read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert all(command in points for command in COMMANDS)


def copy_of_repository(tmp_path):
    """What git knows of, and the weights, without build leftovers of this machine."""
    import shutil

    target = tmp_path / "source"
    skip = shutil.ignore_patterns(".*", "out", "build", "install", "log", "*.egg-info", "__pycache__", "test")
    return Path(shutil.copytree(REPOSITORY, target, ignore=skip))


def test_the_makefile_and_readme_agree_on_the_two_commands():
    readme, makefile = (REPOSITORY / "README.md").read_text(), (REPOSITORY / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in readme and f"\n{target}:" in makefile


@pytest.mark.parametrize("variable", ["FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"])
def test_a_users_fast_dds_profile_is_left_alone(monkeypatch, variable):
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "/mine.xml")
    before = dict(os.environ)
    use_large_shared_memory()
    assert dict(os.environ) == before


@pytest.mark.parametrize("rclpy_version, variable", [("3.3.16", "FASTRTPS"), ("7.1.6", "FASTRTPS"), ("9.1.2", "FASTDDS")])
def test_the_profile_goes_where_the_distro_looks(monkeypatch, rclpy_version, variable):
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(metadata, "version", lambda name: rclpy_version)
    use_large_shared_memory()
    profile = Path(os.environ[f"{variable}_DEFAULT_PROFILES_FILE"])
    segment = ElementTree.parse(profile).getroot().find(".//{http://www.eprosima.com}segment_size")
    assert int(segment.text) in (16 << 20, 32 << 20)
