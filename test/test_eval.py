# SPDX-License-Identifier: Apache-2.0
"""`depth_eval`: figures against formulas, a naive implementation in this file, walls at known places, and real RGB-D."""

import json
import math
import statistics
import subprocess
import sys

import cv2
import numpy as np
import pytest
from bags import FRAME, START, STORE, cloud_of, header_of, image_of, with_compressed_depth, write_bag
from rclpy.serialization import serialize_message
from ros import camera_info
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import CameraInfo, LaserScan

from depth_anything_ros import depth_eval
from depth_anything_ros.geometry import Camera
from depth_anything_ros.replay.evaluation import Evaluation, truth_image

WIDTH, HEIGHT = 96, 72
OURS, SENSOR = "/depth_anything/depth/image", "/camera/depth/image_rect_raw"
OPTICAL = f"{-math.pi / 2} 0 {-math.pi / 2}"  # roll, pitch, yaw of an optical frame in one with x forward and z up


def millimetres(seed=0):
    """A scene of its own for each seed: (H, W) uint16, a third of it beyond 4 m."""
    return np.random.default_rng(seed).integers(500, 6000, (HEIGHT, WIDTH)).astype(np.uint16)


def depth_messages(depth, stamp, topic=OURS, frame_id=FRAME, encoding="32FC1", late=50_000_000, size=None):
    """An image of depth and its calibration, recorded `late` after their stamp."""
    height, width = depth.shape
    info = camera_info(header_of(stamp, frame_id), width, height)
    yield topic.rsplit("/", 1)[0] + "/camera_info", stamp + late, info
    yield topic, stamp + late, image_of(depth, stamp, encoding, frame_id)


def pairs(pixels, count=1, interval=100_000_000, truth=millimetres, offset=0):
    """Our depth by `pixels(k, truth in metres)` beside a sensor's 16UC1."""
    for k in range(count):
        stamp, scene = START + k * interval, truth(k)
        yield from depth_messages(scene, stamp + offset, SENSOR, encoding="16UC1", late=5_000_000)
        yield from depth_messages(np.float32(pixels(k, scene / 1000.0)), stamp)


def run(tmp_path, messages, *options, name="bag"):
    """The JSON of a bag of these messages; strict, that is without NaN."""
    bag, file = write_bag(tmp_path / name, messages), tmp_path / f"{name}.json"
    assert depth_eval.main([str(bag), "--json", str(file), *options]) == 0
    return json.loads(file.read_text(), parse_constant=pytest.fail)


def refused(capsys, *arguments):
    """What a person is told."""
    assert depth_eval.main(list(map(str, arguments))) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("factor", [1.1, 0.9, 1.3, 2.0])
def test_a_wrong_scale_is_told_from_a_wrong_shape(tmp_path, factor):
    found = run(tmp_path, pairs(lambda k, truth: factor * truth, 3))
    truth = np.concatenate([millimetres(k).ravel() for k in range(3)]) / 1000.0
    assert found["pixels"] == truth.size and found["frames"] == 3 and found["compared"] == ["pixel by pixel"]
    off = abs(factor - 1)
    expected = {
        "abs_rel": off,
        "sq_rel": off**2 * truth.mean(),
        "rmse": off * math.sqrt((truth**2).mean()),
        "log_rmse": abs(math.log(factor)),
        "delta1": float(max(factor, 1 / factor) < 1.25),
        "delta2": float(max(factor, 1 / factor) < 1.5625),
        "delta3": float(max(factor, 1 / factor) < 1.953125),
    }
    assert found["errors"] == pytest.approx(expected, rel=1e-6)
    assert found["bias"] == pytest.approx(math.log(factor), rel=1e-5) and found["scale"] == pytest.approx(1 / factor, rel=1e-6)
    for name in ("scaled", "shape"):
        perfect = {"abs_rel": 0, "sq_rel": 0, "rmse": 0, "log_rmse": 0, "delta1": 1, "delta2": 1, "delta3": 1}
        assert found[name] == pytest.approx(perfect, abs=1e-5)
    assert found["per_frame"]["ratio"] == pytest.approx([factor] * 3, rel=1e-6)
    assert found["drift"]["slope_per_minute"] == pytest.approx(0, abs=1e-4) and found["flicker"] < 1e-6


def test_a_recording_of_compressed_depth_alone_is_found_and_gives_the_same(tmp_path):
    raw = run(tmp_path, pairs(lambda k, truth: 1.1 * truth, 2), name="raw")
    found = run(tmp_path, with_compressed_depth(pairs(lambda k, truth: 1.1 * truth, 2), SENSOR), name="compressed")
    assert found["truth"] == f"{SENSOR}/compressedDepth" and raw["truth"] == SENSOR
    assert found["pixels"] == raw["pixels"] and found["errors"] == raw["errors"] and found["per_frame"] == raw["per_frame"]
    again = with_compressed_depth(pairs(lambda k, truth: truth, 2), SENSOR)
    both = run(tmp_path, [*pairs(lambda k, truth: truth, 2), *again], name="both")
    assert both["truth"] == SENSOR


def test_a_wrong_shape_stays_when_the_scale_is_right(tmp_path):
    """Control of the above: the right half 1.4 times too far, which no scale undoes."""
    bent = np.where(np.arange(WIDTH) < WIDTH // 2 + 1, 1.0, 1.4)
    found = run(tmp_path, pairs(lambda k, truth: truth * bent, 2))
    share = (bent == 1.4).mean()
    assert found["scale"] == pytest.approx(1, abs=1e-6)
    assert found["scaled"]["abs_rel"] == pytest.approx(0.4 * share, rel=1e-5) == found["shape"]["abs_rel"]
    assert found["scaled"]["delta1"] == pytest.approx(1 - share)


def test_drift_and_flicker_of_the_scale(tmp_path):
    interval, count = 2_000_000_000, 16
    minutes = np.arange(count) * interval / 60e9
    ratios = 1.05 + 0.3 * minutes
    found = run(tmp_path, pairs(lambda k, truth: truth * ratios[k], count, interval))
    assert found["drift"]["slope_per_minute"] == pytest.approx(0.3, rel=1e-5)
    assert found["drift"]["median"] == pytest.approx(np.median(ratios), rel=1e-6)
    assert found["drift"]["std"] == pytest.approx(ratios.std(), rel=1e-5)
    assert found["flicker"] == pytest.approx(np.median(np.diff(np.log(ratios))), rel=1e-5)
    up_and_down = run(tmp_path, pairs(lambda k, truth: truth * (1 + 0.1 * (k % 2)), 4, truth=lambda k: millimetres()), name="b")
    assert up_and_down["flicker"] == pytest.approx(math.log(1.1), rel=1e-6) == up_and_down["change"]  # the scene stands still


@pytest.mark.parametrize("invalid", [math.nan, 0.0, -1.0, math.inf])
def test_coverage_is_the_share_of_truth_that_has_depth(tmp_path, invalid):
    def half(k, truth):
        return np.where(np.arange(WIDTH) % 2, truth, invalid)

    def with_holes(k):
        return np.where(np.arange(WIDTH) < 10, 0, millimetres(k)).astype(np.uint16)  # 0: the sensor does not know, either

    found = run(tmp_path, pairs(half, 2))
    assert found["coverage"] == 0.5 == found["per_frame"]["coverage"][1] and found["pixels"] == WIDTH * HEIGHT
    assert found["errors"]["abs_rel"] < 1e-6
    holes = run(tmp_path, pairs(lambda k, truth: truth, 2, truth=with_holes), name="holes")
    assert holes["coverage"] == 1.0 and holes["per_frame"]["coverage"] == [1.0, 1.0]


def test_bounds_and_bins_of_distance(tmp_path):
    found = run(tmp_path, pairs(lambda k, truth: np.where(truth < 2, 1.1, 1.2) * truth), "--max-depth", "4")
    truth = millimetres() / 1000.0
    counts = {1: (truth < 1).sum(), 2: ((truth >= 1) & (truth < 2)).sum(), 4: ((truth >= 2) & (truth <= 4)).sum()}
    bins = {each["to"]: each for each in found["by_distance"]}
    exactly_four = (np.float32(truth) == 4).sum()
    assert [bins[to]["pixels"] for to in (1, 2)] == [counts[1], counts[2]]
    assert bins[4]["pixels"] == counts[4] - exactly_four and bins[16]["pixels"] == 0 and bins[16]["abs_rel"] is None
    assert bins[2]["abs_rel"] == pytest.approx(0.1, rel=1e-5) and bins[4]["ratio"] == pytest.approx(1.2, rel=1e-6)
    assert found["pixels"] == sum(counts.values()) < truth.size


def naive(depths, truths):
    """Eigen et al., Table 1, one pixel after the other."""
    n, rows = len(depths), list(zip(map(float, depths), map(float, truths)))
    worst = [max(d / t, t / d) for d, t in rows]
    return {
        "abs_rel": sum(abs(d - t) / t for d, t in rows) / n,
        "sq_rel": sum((d - t) ** 2 / t for d, t in rows) / n,
        "rmse": math.sqrt(sum((d - t) ** 2 for d, t in rows) / n),
        "log_rmse": math.sqrt(sum((math.log(d) - math.log(t)) ** 2 for d, t in rows) / n),
    } | {f"delta{k}": sum(each < 1.25**k for each in worst) / n for k in (1, 2, 3)}


def test_random_frames_against_a_naive_implementation():
    rng, evaluation = np.random.default_rng(7), Evaluation(0.5, 20.0)
    depths, truths, shapes = [], [], []
    for k in range(5):
        truth = rng.uniform(0.2, 25, (30, 40))
        depth = truth * np.exp(0.2 * k - 0.3 + 0.4 * rng.standard_normal(truth.shape))
        truth[rng.random(truth.shape) < 0.1 * k], depth[rng.random(truth.shape) < 0.2] = 0, np.nan
        evaluation.add(START + k, float(k), depth, truth)
        good = (truth >= 0.5) & (truth <= 20) & np.isfinite(depth)
        d, t = depth[good], truth[good]
        median = statistics.median(d / t)
        assert evaluation.scores[k].ratio == pytest.approx(median)
        assert vars(evaluation.scores[k].errors) == pytest.approx(naive(d, t))
        assert vars(evaluation.scores[k].shape) == pytest.approx(naive(d / median, t))
        depths, truths, shapes = [*depths, *d], [*truths, *t], [*shapes, *(d / median)]
    found, bias = evaluation.summary(), statistics.median(np.log(np.array(depths) / truths))
    assert vars(found.errors) == pytest.approx(naive(depths, truths))
    assert vars(found.shape) == pytest.approx(naive(shapes, truths))
    assert found.bias == pytest.approx(bias, abs=2e-4)  # the width of the histogram's bins
    scaled = naive(np.array(depths) * math.exp(-bias), truths)
    assert vars(found.scaled) == pytest.approx(scaled, rel=2e-3)
    assert vars(found.errors) != pytest.approx(scaled, rel=2e-2)  # control: the scale matters here
    assert found.pixels == len(depths) == sum(each[2] for each in found.by_distance)


@pytest.mark.parametrize("lens", [("", ()), ("plumb_bob", (-0.2, 0.05, 0.001, -0.002, 0.0))])
def test_points_fall_on_the_nearest_pixel_and_the_nearest_stays(lens):
    camera = Camera(40, 30, 35.0, 36.0, 19.0, 15.5, *lens)
    points = np.random.default_rng(1).uniform((-3, -3, -1), (3, 3, 8), (4000, 3))
    expected = np.full((30, 40), np.nan)
    for point, (u, v) in zip(points, camera.project(points)):
        if math.isfinite(u) and 0 <= round(u) < 40 and 0 <= round(v) < 30:
            expected[round(v), round(u)] = np.fmin(expected[round(v), round(u)], point[2])
    found = truth_image(points, camera)
    np.testing.assert_array_equal(found, expected)
    assert np.isfinite(found).sum() > 300


def scan_of_wall(stamp, distance):
    """A wall `distance` before a laser scanner, x forward."""
    angles = np.linspace(-0.5, 0.5, 201)
    scan = LaserScan(header=header_of(stamp, "laser"), angle_min=-0.5, angle_max=0.5, angle_increment=0.005)
    scan.range_min, scan.range_max = 0.1, 30.0
    scan.ranges = (distance / np.cos(angles)).astype(np.float32).tolist()
    return scan


def depth_at_row_of_scan(drop, distance):
    """What a camera `distance` from the wall says where a scan `drop` below it meets the wall; elsewhere nonsense."""
    k = camera_info(header_of(0), WIDTH, HEIGHT).k
    depth = np.full((HEIGHT, WIDTH), 9.0, np.float32)
    depth[round(k[5] + k[4] * drop / distance)] = distance
    return depth


def scan_messages(count=3):
    for k in range(count):
        stamp = START + k * 100_000_000
        yield "/scan", stamp + 30_000_000, scan_of_wall(stamp + 20_000_000, 3.0)
        yield from depth_messages(depth_at_row_of_scan(0.2, 2.9), stamp)


def test_a_laser_scan_of_a_wall_in_another_frame(tmp_path, capsys):
    """The camera is 0.1 m before and 0.2 m above the scanner, whose wall is 3 m away: 2.9 m from the camera."""
    found = run(tmp_path, scan_messages(), "--transform", f"laser {FRAME} 0.1 0 0.2 {OPTICAL}")
    assert found["truth"] == "/scan" and found["compared"] == ["its points projected"]
    assert found["frames"] == 3 and found["pixels"] > 3 * 80 and found["coverage"] == 1
    assert found["errors"]["abs_rel"] < 1e-5
    wrong = run(tmp_path, scan_messages(), "--transform", f"laser {FRAME} 0.1 0 0.3 {OPTICAL}", name="too_high")
    assert wrong["errors"]["abs_rel"] > 1  # another row, where depth is nonsense
    closer = run(tmp_path, scan_messages(), "--transform", f"laser {FRAME} 0.104 0 0.2 {OPTICAL}", name="closer")
    assert closer["errors"]["abs_rel"] == pytest.approx(0.004 / 2.896, rel=1e-3)
    capsys.readouterr()
    assert "there is no tf in the bag" in refused(capsys, tmp_path / "bag")


def test_transforms_come_from_the_bag_also_from_before_start(tmp_path):
    types, bag = STORE.types, tmp_path / "bag"
    stamp = types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
    half = types["geometry_msgs/msg/Quaternion"](x=-0.5, y=0.5, z=-0.5, w=0.5)  # OPTICAL
    pose = types["geometry_msgs/msg/Transform"](types["geometry_msgs/msg/Vector3"](x=0.1, y=0.0, z=0.2), half)
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="laser")
    message = types["tf2_msgs/msg/TFMessage"]([types["geometry_msgs/msg/TransformStamped"](header, FRAME, pose)])
    with Writer(bag, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        tf = writer.add_connection("/tf_static", "tf2_msgs/msg/TFMessage", typestore=STORE)
        writer.write(tf, START - 30_000_000_000, STORE.serialize_cdr(message, "tf2_msgs/msg/TFMessage"))
        known = {}
        for topic, time_ns, each in scan_messages():
            kind = f"sensor_msgs/msg/{type(each).__name__}"
            known[topic] = known.get(topic) or writer.add_connection(topic, kind, typestore=STORE)
            writer.write(known[topic], time_ns, bytes(serialize_message(each)))
    file = tmp_path / "found.json"
    assert depth_eval.main([str(bag), "--json", str(file), "--start", "30.1"]) == 0
    found = json.loads(file.read_text())
    assert found["frames"] == 2 and found["errors"]["abs_rel"] < 1e-5


def test_a_cloud_from_above_and_what_hides_behind(tmp_path):
    """A lidar 0.2 m above the camera, a wall at 3 m, and points 2 m behind the wall on the same rays of the camera."""
    forward = f"lidar {FRAME} 0 0 -0.2 {OPTICAL}"
    k = camera_info(header_of(0), WIDTH, HEIGHT).k
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(0, HEIGHT, 4))
    right, down = (u.ravel() - k[2]) / k[0], (v.ravel() - k[5]) / k[4]
    near, far = (np.stack([np.full_like(right, z), -right * z, -down * z - 0.2], 1) for z in (3.0, 5.0))

    def messages(first, second):
        yield "/lidar/points", START + 10_000_000, cloud_of([*first, *second, [np.nan] * 3], "lidar")
        yield from depth_messages(np.full((HEIGHT, WIDTH), 3.0, np.float32), START)

    for name, order in (("far_last", (near, far)), ("far_first", (far, near))):
        found = run(tmp_path, messages(*order), "--transform", forward, name=name)
        assert found["pixels"] == u.size and found["errors"]["abs_rel"] < 1e-6, name
    assert run(tmp_path, messages(far, far), "--transform", forward, name="only_far")["errors"]["abs_rel"] > 0.39  # control


def test_depth_on_a_lens_that_distorts(tmp_path):
    """Depth was computed on the image as it is (`rectify: rays`): K and D hold for its pixels; P is of another view."""
    lens = np.array([-0.3, 0.1, 0.001, -0.002, 0.0])
    k = np.array(camera_info(header_of(START), WIDTH, HEIGHT).k).reshape(3, 3)
    z = np.random.default_rng(3).uniform(2, 5, 1500)
    points = (np.random.default_rng(4).uniform((-0.45, -0.35), (0.45, 0.35), (1500, 2)) * z[:, None]).T
    points = np.float32(np.stack([*points, z], 1))
    pixels, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), k, lens)
    depth = np.full((HEIGHT, WIDTH), np.nan, np.float32)
    for (u, v), distance in zip(np.rint(pixels[:, 0]).astype(int), points[:, 2]):
        if 0 <= u < WIDTH and 0 <= v < HEIGHT:
            depth[v, u] = np.fmin(depth[v, u], distance)

    def messages(distorted):
        yield "/lidar/points", START, cloud_of(points, FRAME)
        for topic, time_ns, message in depth_messages(depth, START):
            if isinstance(message, CameraInfo) and distorted:
                message.d = lens.tolist()
            yield topic, time_ns, message

    found, ideal = run(tmp_path, messages(True)), run(tmp_path, messages(False), name="ideal")
    assert found["coverage"] == 1 and found["errors"]["abs_rel"] < 1e-6 and found["pixels"] == np.isfinite(depth).sum()
    assert ideal["coverage"] < 0.9 and ideal["errors"]["abs_rel"] > 0.01  # control: the lens matters


def test_the_nearest_stamp_is_the_pair_and_none_too_far(tmp_path, capsys):
    def messages():
        for k in range(3):
            stamp = START + k * 100_000_000
            yield from depth_messages(np.full((HEIGHT, WIDTH), 9000, np.uint16), stamp - 30_000_000, SENSOR, encoding="16UC1")
            yield from depth_messages(np.full((HEIGHT, WIDTH), 2.0, np.float32), stamp)
            yield from depth_messages(np.full((HEIGHT, WIDTH), 2000, np.uint16), stamp + 20_000_000, SENSOR, encoding="16UC1")

    assert run(tmp_path, messages())["errors"]["abs_rel"] < 1e-6
    capsys.readouterr()
    said = refused(capsys, tmp_path / "bag", "--max-offset", 0.01)
    assert "nothing to compare: 3 depth images" in said and "within 0.01 s (the nearest is 0.020 s away)" in said


def test_start_end_and_every(tmp_path):
    found = run(tmp_path, pairs(lambda k, truth: truth * (1 + 0.01 * k), 12), "--start", "0.2", "--end", "0.9", "--every", "3")
    assert found["per_frame"]["ratio"] == pytest.approx([1.02, 1.05, 1.08], rel=1e-6)
    assert [each - START for each in found["per_frame"]["stamp_ns"]] == [200_000_000, 500_000_000, 800_000_000]


def test_real_depth_directly_and_through_another_frame(tmp_path, data):
    real = [cv2.imread(str(data / "rgbd_tum" / f"{k}_depth.png"), cv2.IMREAD_UNCHANGED) // 5 for k in (1, 2)]  # millimetres

    def messages(frame_id):
        for topic, time_ns, message in pairs(lambda k, truth: 0.93 * truth, 2, truth=lambda k: real[k]):
            message.header.frame_id = frame_id if topic.startswith("/camera") else FRAME
            if isinstance(message, CameraInfo):
                message.k = [520.9, 0.0, 325.1, 0.0, 521.0, 249.7, 0.0, 0.0, 1.0]
                message.p = [520.9, 0.0, 325.1, 0.0, 0.0, 521.0, 249.7, 0.0, 0.0, 0.0, 1.0, 0.0]
            yield topic, time_ns, message

    same = run(tmp_path, messages(FRAME))
    other = run(tmp_path, messages("ir"), "--transform", f"ir {FRAME} 0 0 0 0 0 0", name="other")
    moved = run(tmp_path, messages("ir"), "--transform", f"ir {FRAME} 0 0 0.2 0 0 0", name="moved")
    assert same["pixels"] == sum(int((each >= 100).sum()) for each in real) and other["compared"] == ["its points projected"]
    assert 20_000 < other["pixels"] < 2 * 60_000  # messages.ranges takes an even selection
    for found in (same, other):
        assert found["errors"]["abs_rel"] == pytest.approx(0.07, rel=1e-4) and found["coverage"] == 1
        assert found["scaled"]["abs_rel"] < 1e-5
    assert abs(moved["errors"]["abs_rel"] - 0.07) > 0.01  # control: the transform is used


def test_what_cannot_be_compared_is_said(tmp_path, capsys):
    depth = np.ones((HEIGHT, WIDTH), np.float32)
    alone = write_bag(tmp_path / "alone", depth_messages(depth, START))
    said = refused(capsys, alone)
    assert "no depth sensor" in said and f"{OURS} (sensor_msgs/msg/Image)" in said
    relative = write_bag(tmp_path / "relative", depth_messages(depth, START, "/depth_anything/depth/relative"))
    assert "inverse depth of unknown scale" in refused(capsys, relative)
    assert "inverse depth of unknown scale" in refused(capsys, relative, "--depth", "/depth_anything/depth/relative")
    two = write_bag(
        tmp_path / "two", [m for n in "ab" for m in depth_messages(depth, START, f"/depth_anything/{n}/depth/image")]
    )
    assert "/depth_anything/a/depth/image, /depth_anything/b/depth/image" in refused(capsys, two)
    both = write_bag(tmp_path / "both", pairs(lambda k, truth: truth))
    assert "there is no bag" in refused(capsys, tmp_path / "nowhere")
    assert "'/nothing' is not in the bag" in refused(capsys, both, "--truth", "/nothing")
    assert "'/nothing' is no topic of images" in refused(capsys, both, "--depth", "/nothing")
    assert "compared with itself" in refused(capsys, both, "--truth", OURS)
    assert "--every is 0" in refused(capsys, both, "--every", "0")
    assert "--max-offset is 1 s" in refused(capsys, both, "--max-offset", "1")
    assert "--start is 3 and --end 2" in refused(capsys, both, "--start", "3", "--end", "2")
    assert "expected 'parent child x y z roll pitch yaw'" in refused(capsys, both, "--transform", "a b 1")
    assert "no folder" in refused(capsys, both, "--json", tmp_path / "no" / "where.json")
    assert "nothing to compare: no image" in refused(capsys, both, "--start", "100")
    assert "within the bounds" in refused(capsys, both, "--min-depth", "50")


def test_the_command_with_a_damaged_bag_draws_and_says_so(tmp_path):
    bag = write_bag(tmp_path / "bag", pairs(lambda k, truth: 1.1 * truth, 40))
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])
    picture, figures = tmp_path / "found.png", tmp_path / "found.json"
    command = [sys.executable, "-m", "depth_anything_ros.depth_eval", bag, "--plot", picture, "--json", figures]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert file.name in done.stderr and "can be read" in done.stderr
    assert 20 <= json.loads(figures.read_text())["frames"] < 40
    row = next(line for line in done.stdout.splitlines() if line.startswith("as it is")).split()
    assert (row[3], row[6], row[7]) == ("0.1000", f"{math.log(1.1):.4f}", "1.0000")  # AbsRel, log-RMSE, delta1
    assert cv2.imread(str(picture)).shape[1] > 1000
