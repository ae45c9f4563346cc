# SPDX-License-Identifier: Apache-2.0
"""What fine-tuning is given: every pixel's metres as they lie in folders and bags, and what cannot be trained on is said."""

import contextlib
import sqlite3

import cv2
import numpy as np
import pytest
from bags import FRAME, IMAGE, INFO, START, camera_messages, cloud_of, header_of, image_of, with_compressed_depth, write_bag
from rgbd import HEIGHT, WIDTH, millimetres, write_image
from ros import camera_info, picture
from sensor_msgs.msg import LaserScan

from depth_anything_ros import depth_finetune
from depth_anything_ros.geometry import Camera
from depth_anything_ros.messages.camera_info import view_of
from depth_anything_ros.models import RELATIVE, ModelError, create_model
from depth_anything_ros.replay.messages import BagError
from depth_anything_ros.training.bags import Selection, extract, without_gaps
from depth_anything_ros.training.data import gather
from depth_anything_ros.training.folders import pairs_in
from depth_anything_ros.training.samples import Bounds, DataError, read, split, survey
from depth_anything_ros.training.start import check_trainable, with_row

BOUNDS = Bounds(0.1, 20.0)
DEPTH, DEPTH_INFO = "/camera/aligned_depth_to_color/image_raw", "/camera/aligned_depth_to_color/camera_info"


@pytest.mark.parametrize("layout", ["png", "npy", "beside", "tum", "tenths"])
def test_every_layout_gives_each_pixel_its_metres(tmp_path, layout):
    images, depths = [picture(WIDTH, HEIGHT, k) for k in range(11)], [millimetres(k) for k in range(11)]
    unit = {"tum": 5000.0, "tenths": 10000.0}.get(layout, 1000.0)
    for k, (rgb, depth) in enumerate(zip(images, depths)):
        names = f"rgb/{k}.png", f"depth/{k}.png"
        if layout == "beside":
            names = f"view{k}.png", f"view{k}_depth.png"
        write_image(tmp_path / names[0], rgb)
        if layout == "npy":
            (tmp_path / "depth").mkdir(exist_ok=True)
            np.save(tmp_path / f"depth/{k}.npy", (depth / unit).astype(np.float32))
        else:
            write_image(tmp_path / names[1], depth)
    if layout == "tum":
        for name, late in (("rgb", 0.0), ("depth", 0.004)):
            lines = [f"{1.5 + 0.03 * k + late} {name}/{k}.png" for k in range(11)]
            (tmp_path / f"{name}.txt").write_text("\n".join(["# timestamp filename", *lines, ""]))
    pairs = pairs_in(tmp_path, unit if layout == "tenths" else 0.0)
    assert len(pairs) == 11
    for pair, rgb, depth in zip(pairs, images, depths):  # 2 before 10
        got, metres = read(pair)
        np.testing.assert_array_equal(got, rgb)
        exact = (depth / unit).astype(np.float32) if layout == "npy" else depth.astype(np.float32) * np.float32(1 / unit)
        np.testing.assert_array_equal(metres, exact)
        assert Bounds(0.01, 20).valid(metres).sum() == (depth > 0).sum()
    found = survey(pairs, Bounds(0.01, 20))
    assert found.size == (WIDTH, HEIGHT)
    assert found.median == pytest.approx(np.median(np.concatenate([d[d > 0] for d in depths])) / unit, rel=0.02)


@pytest.mark.parametrize("layout", ["names", "tum"])
def test_what_has_no_partner_is_left_out_and_said(tmp_path, layout):
    refused(tmp_path, "", images=6)
    (tmp_path / "depth" / "2.png").unlink()
    (tmp_path / "rgb" / "4.png").unlink()
    expected = ["1 left out: images without depth, such as '2.png'", "1 left out: depth without an image, such as '4.png'"]
    if layout == "tum":
        for name, missing in (("rgb", 4), ("depth", 2)):
            lines = [f"{k / 10} {name}/{k}.png" for k in range(6) if k != missing]
            (tmp_path / f"{name}.txt").write_text("\n".join(lines))
        expected = ["1 left out: images without depth within 0.02 s, such as '2.png'"]
    facts = gather([tmp_path], "0.3", None, BOUNDS).facts
    assert list(facts) == [f"{tmp_path}: {text}" for text in expected]


@pytest.mark.parametrize("apart", [False, True])
def test_the_focal_length_is_of_what_is_trained_on(tmp_path, apart):
    """A recording with a calibration; held out is a part of it, or a folder, which has none."""
    (tmp_path / "drive.mcap").touch()
    for name in ("samples", "other"):
        refused(tmp_path / name, "")
    said = {"focal": 1.2, "left_out": {}, "image": "/image", "depth": "/depth", "damage": []}
    validation = str(tmp_path / "other") if apart else "0.3"
    found = gather([tmp_path / "drive.mcap"], validation, lambda path: (tmp_path / "samples", said), BOUNDS)
    assert found.focal == 1.2


def test_a_cameras_image_is_not_turned_without_its_depth(tmp_path):
    """A JPEG whose EXIF says "turn me by 90 degrees": its depth lies as its pixels do."""
    rgb = picture(WIDTH, HEIGHT)
    jpeg = cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()
    orientation = b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"  # tag 0x112, a short, one of them: 6
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + orientation + b"\0\0\0\0"
    path = tmp_path / "rgb" / "0.jpg"
    path.parent.mkdir()
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:])
    assert cv2.imread(str(path)).shape[:2] == (WIDTH, HEIGHT)  # control: OpenCV's own way
    write_image(tmp_path / "depth" / "0.png", millimetres(0))
    found, _ = read(pairs_in(tmp_path)[0])
    assert found.shape == rgb.shape and np.abs(found.astype(int) - rgb).mean() < 8


def test_real_rgbd(data):
    found = survey(pairs_in(data / "rgbd_tum", 5000.0), BOUNDS)
    assert found.size == (640, 480) and 0.5 < found.median < 3 and 0.5 < found.valid < 0.95


def test_a_bag_gives_each_pixel_its_metres(tmp_path):
    """Aligned depth, 16 bits and float: the very pixels, each with the image of its stamp."""
    depths = {k: millimetres(k) for k in range(6)}
    floats = {k: np.where(d > 0, d / 999.0, np.nan).astype(np.float32) for k, d in depths.items()}

    def messages(of_depth, encoding):
        for topic, time_ns, message in camera_messages(6, width=WIDTH, height=HEIGHT):
            yield topic, time_ns, message
            if topic == IMAGE:
                k = (time_ns - START) // 100_000_000
                stamp = START + k * 100_000_000 + 4_000_000
                yield DEPTH_INFO, time_ns, camera_info(header_of(stamp), WIDTH, HEIGHT)
                if k != 4:  # one is missing
                    yield DEPTH, time_ns + 30_000_000, image_of(of_depth[k], stamp, encoding)

    for name, of_depth, encoding, unit in (
        ("int", depths, "16UC1", np.float32(0.001)),
        ("float", floats, "32FC1", 1),
        ("compressed", depths, "16UC1", np.float32(0.001)),
    ):
        said = messages(of_depth, encoding)
        bag = write_bag(tmp_path / name, with_compressed_depth(said, DEPTH) if name == "compressed" else said)
        said = extract(bag, Selection(start=0.05), tmp_path / f"{name}_samples")
        pairs = pairs_in(tmp_path / f"{name}_samples")
        assert said["images"] == len(pairs) == 4 and "pixel by pixel" in said["depth"] and sum(said["left_out"].values()) == 1
        assert said["focal"] == pytest.approx(camera_info(header_of(0), WIDTH, HEIGHT).k[4] / HEIGHT, rel=0.02)
        for k, pair in zip((1, 2, 3, 5), pairs):
            rgb, metres = read(pair)
            np.testing.assert_array_equal(rgb, picture(WIDTH, HEIGHT, k))
            np.testing.assert_array_equal(np.nan_to_num(metres), np.nan_to_num(of_depth[k].astype(np.float32) * unit))
        assert extract(bag, Selection(start=0.05), tmp_path / f"{name}_samples") == said  # not made again
        extract(bag, Selection(start=0.05, rotation=90), tmp_path / f"{name}_turned")  # clockwise: the left edge is on top
        for pair, upright in zip(pairs_in(tmp_path / f"{name}_turned"), pairs):
            for found, given in zip(read(pair), read(upright)):
                np.testing.assert_array_equal(found, given[::-1].swapaxes(0, 1))
        with pytest.raises(DataError, match="was made of"):
            extract(bag, Selection(every=2), tmp_path / f"{name}_samples")
    with pytest.raises(BagError, match="several topics|choose one by --depth"):
        extract(write_bag(tmp_path / "none", camera_messages(2)), Selection(), tmp_path / "no_samples")
    assert not (tmp_path / "no_samples").exists()


def test_images_that_share_a_stamp_are_counted_once(tmp_path):
    """A camera whose clock stands still: what is not taken is said, by the command too."""

    def messages():
        yield INFO, START, camera_info(header_of(START), WIDTH, HEIGHT)
        for k in range(4):
            yield DEPTH, START + 2 * k, image_of(millimetres(k), START, "16UC1")
            yield IMAGE, START + 2 * k + 1, image_of(picture(WIDTH, HEIGHT, k), START)

    bag = write_bag(tmp_path / "bag", messages())
    said = extract(bag, Selection(), tmp_path / "samples")
    assert said["images"] == len(pairs_in(tmp_path / "samples")) == 1
    assert said["left_out"] == {"an earlier image has the same stamp: is the camera's clock set?": 3}
    with pytest.raises(DataError, match="too few to hold out.*3 left out: an earlier image has the same stamp"):
        gather([bag], "0.2", lambda path: (tmp_path / "samples", said), BOUNDS)


def sensor_bag(path, depth, info, image_info):
    def messages():
        yield INFO, START, image_info
        yield DEPTH_INFO, START, info
        yield IMAGE, START + 1, image_of(picture(WIDTH, HEIGHT), START)
        yield DEPTH, START + 2, image_of(depth, START, "16UC1")

    return write_bag(path, messages())


def test_depth_of_another_size_is_projected(tmp_path):
    """A sensor of half the size at the same place: its pixel (u, v) is the image's (2 u, 2 v), and the rest knows nothing."""
    depth = millimetres(0, HEIGHT // 2, WIDTH // 2) // 4000 * 10 + 2000  # nearly flat: nothing hides behind
    small, large = (camera_info(header_of(START), WIDTH // n, HEIGHT // n) for n in (2, 1))
    said = extract(sensor_bag(tmp_path / "bag", depth, small, large), Selection(), tmp_path / "samples")
    expected = np.zeros((HEIGHT, WIDTH), np.float32)
    expected[::2, ::2] = depth / 1000
    metres = read(pairs_in(tmp_path / "samples")[0])[1]
    np.testing.assert_allclose(np.nan_to_num(metres), expected, rtol=1e-6)
    assert "projected" in said["depth"]


def test_a_distorted_image_is_rectified_with_its_depth(tmp_path):
    """A slanted plane; depth on the raw pixels of a lens that distorts comes out at the pixels that the node would show."""
    info = camera_info(header_of(START), WIDTH, HEIGHT)
    info.d = [-0.25, 0.05, 0.001, -0.001, 0.0]
    raw = Camera(WIDTH, HEIGHT, info.k[0], info.k[4], info.k[2], info.k[5], "plumb_bob", tuple(info.d))
    plane = lambda camera: 3 / (1 - 0.7 * camera.rays().numpy()[0])  # noqa: E731
    depth = np.rint(plane(raw) * 1000).astype(np.uint16)
    extract(sensor_bag(tmp_path / "bag", depth, info, info), Selection(), tmp_path / "samples")
    rgb, metres = read(pairs_in(tmp_path / "samples")[0])
    view = view_of(info, WIDTH, HEIGHT)
    np.testing.assert_array_equal(rgb, view.rectification.apply(picture(WIDTH, HEIGHT)))
    known = np.isfinite(metres) & (metres > 0)
    assert known.mean() > 0.75
    np.testing.assert_allclose(metres[known], plane(view.camera)[known], rtol=0.01)
    assert np.abs(depth / 1000 / plane(view.camera) - 1)[known].max() > 0.03  # control: they are other pixels


@pytest.mark.parametrize("kind", ["cloud", "scan"])
def test_a_lidar_gives_metres_where_its_points_fall(tmp_path, kind):
    """A wall 4 m before a camera that sits 0.5 m above the sensor and looks along its x; the first message is damaged."""
    camera = Camera.from_fov(WIDTH, HEIGHT, 70.0)
    across = np.linspace(-1.5, 1.5, 61) if kind == "cloud" else 4 * np.tan(-0.5 + 0.01 * np.arange(101))
    points = np.stack([np.full_like(across, 4.0), across, np.zeros_like(across)], 1)
    if kind == "cloud":
        message = cloud_of(points, "lidar")
    else:
        message = LaserScan(
            header=header_of(START, "lidar"), angle_min=-0.5, angle_increment=0.01, range_min=0.1, range_max=30.0
        )
        message.angle_max, message.ranges = 0.5, np.hypot(points[:, 0], points[:, 1]).tolist()

    def messages():
        info = camera_info(header_of(START), WIDTH, HEIGHT)
        info.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
        info.p = [camera.fx, 0.0, camera.cx, 0.0, 0.0, camera.fy, camera.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        yield INFO, START, info
        for k in range(2):
            message.header.stamp = header_of(START + k * 10**9).stamp
            yield "/lidar", START + k * 10**9, message
            yield IMAGE, START + k * 10**9 + 1, image_of(picture(WIDTH, HEIGHT, k), START + k * 10**9)

    bag = write_bag(tmp_path / "bag", messages(), storage="sqlite3")
    file = next(bag.glob("*.db3"))
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute(
            "UPDATE messages SET data = substr(data, 1, 40) WHERE id = (SELECT min(messages.id) FROM messages "
            "JOIN topics ON topics.id = topic_id WHERE name = '/lidar')"
        )
        database.commit()
    # 0.5 m above, and optical: x right, y down, z forward
    transforms = [f"lidar {FRAME} 0 0 0.5 {-np.pi / 2} 0 {-np.pi / 2}"]
    said = extract(bag, Selection(depth="/lidar", transforms=transforms), tmp_path / "samples")
    assert said["images"] == 1 and list(said["left_out"].values()) == [1] and "damaged" in next(iter(said["left_out"]))
    metres = np.nan_to_num(read(pairs_in(tmp_path / "samples")[0])[1])
    row = round(camera.fy * 0.5 / 4 + camera.cy)
    columns = np.unique(np.rint(camera.cx - camera.fx * across / 4).astype(int))
    columns = columns[(columns >= 0) & (columns < WIDTH)]
    expected = np.zeros((HEIGHT, WIDTH))
    expected[row, columns] = 4.0
    np.testing.assert_allclose(metres, expected, rtol=1e-5)


def test_what_shows_through_a_near_surface_is_left_out():
    depth = np.full((30, 30), np.nan)
    depth[::2, ::2] = 1.0
    depth[10, 11] = depth[21, 5] = 5.0
    depth[28:, 28:] = np.nan
    depth[29, 29] = 5.0
    found = without_gaps(depth)
    assert np.isnan(found[10, 11]) and np.isnan(found[21, 5]) and found[29, 29] == 5.0
    assert (found == 1.0).sum() == (depth == 1.0).sum()
    sparse = np.full((30, 30), np.nan)
    sparse[::4, ::4], sparse[10, 10] = 1.0, 5.0
    assert np.isfinite(without_gaps(sparse)[10, 10]) and np.isnan(without_gaps(sparse, 4.0)[10, 10])


def test_whole_stretches_are_held_out():
    training, held_out = split(list(range(200)), 0.2)
    assert sorted(training + held_out) == list(range(200)) and len(held_out) == 40
    edges = sum(abs(a - b) == 1 for a in held_out for b in training)
    assert edges <= 8  # of random ones, about 64 have a neighbour in training
    assert split(list(range(10)), 0.1)[1] == [9]
    with pytest.raises(DataError, match="too few"):
        split([1], 0.5)


def refused(folder, message, *options, images=3, rgb=None, depth=None):
    for k in range(images):
        write_image(folder / "rgb" / f"{k}.png", picture(WIDTH, HEIGHT, k) if rgb is None else rgb(k))
        target = folder / "depth" / f"{k}.png"
        made = millimetres(k) if depth is None else depth(k)
        if isinstance(made, np.ndarray) and made.dtype == np.float32:
            target.parent.mkdir(exist_ok=True)
            np.save(target.with_suffix(".npy"), made)
        else:
            write_image(target, made)
    return message, [str(folder), "--output", str(folder / "out"), "--model", "demo", "--device", "cpu", "--quiet", *options]


BAD = {
    "no folder": lambda f: ("there is no", [str(f / "nowhere"), "--output", str(f / "out")]),
    "empty": lambda f: ("no images", [str(f), "--output", str(f / "out"), "--model", "demo", "--quiet"]),
    "no depth": lambda f: (
        write_image(f / "rgb" / "a.png", picture()),
        ("no depth beside", [str(f), "--output", str(f / "o"), "--model", "demo", "--quiet"]),
    )[1],
    "other sizes": lambda f: refused(f, "expected depth of the image's own pixels", depth=lambda k: millimetres(k, 96, 96)),
    "two cameras": lambda f: refused(
        f, "images of one camera", rgb=lambda k: picture(WIDTH, HEIGHT) if k else picture(256, 192)
    ),
    "blind": lambda f: refused(f, "the sensor saw nothing", depth=lambda k: 0 * millimetres(k)),
    "out of bounds": lambda f: refused(f, "lies within 9.5 to 12 m", "--min-depth", "9.5", "--max-depth", "12"),
    "unit": lambda f: refused(f, "the unit is wrong", depth=lambda k: np.float32(millimetres(k))),
    "8 bits": lambda f: refused(f, "a picture of", depth=lambda k: np.uint8(millimetres(k) // 40)),
    "too few": lambda f: refused(f, "too few to hold out", images=1),
    "share": lambda f: refused(f, "a share between 0 and 1", "--validation", "1.5"),
    "beyond": lambda f: refused(f, "beyond the 20 m", "--min-depth", "30"),
    "bounds": lambda f: refused(f, "is not below", "--min-depth", "5", "--max-depth", "2"),
    "steps": lambda f: refused(f, "--steps is 0", "--steps", "0"),
    "rate": lambda f: refused(f, "--rate is above 0", "--rate", "-1"),
    "metric twice": lambda f: refused(f, "says metres already", "--metric", "10"),
    "input size": lambda f: refused(f, "not a multiple of 16", "--input-size", "100"),
    "precision": lambda f: refused(f, "fp32 or bf16", "--precision", "fp16"),
    "timm": lambda f: refused(f, "has no model 'vit_none'", "--timm", "vit_none"),
    "input size of timm": lambda f: refused(f, "not a multiple of 16", "--timm", "vit_tiny_patch16_224", "--input-size", "100"),
    "licence of timm": lambda f: refused(f, "cc-by-nc-4.0: no commercial use", "--timm", "hiera_tiny_224", "--pretrained"),
    "checkpointing": lambda f: refused(f, "cannot do --checkpointing", "--timm", "twins_svt_small", "--checkpointing"),
    "taps": lambda f: refused(f, "go with --timm", "--taps", "0", "1", "2", "3"),
    "seed": lambda f: refused(f, "--seed is -1", "--seed", "-1"),
    "endless": lambda f: refused(f, "--metric is inf", "--metric", "inf"),
    "the same twice": lambda f: refused(f, "is named twice", "--validation", str(f)),
    "blind held out": lambda f: refused(f, "of the images held out: no pixel", depth=lambda k: millimetres(k) * (k < 2)),
    "no depth pixels": lambda f: refused(f, "is 0x0: expected depth", depth=lambda k: np.zeros((0, 0), np.float32)),
    "one depth pixel": lambda f: refused(f, "is 1x1: expected depth", depth=lambda k: np.ones((1, 1), np.float32)),
    "a file": lambda f: ((f / "out").touch(), refused(f, "is a file, expected a new folder"))[1],
    "a network": lambda f: (
        write_image(f / "out" / "tuned.png", picture()),
        (f / "out" / "tuned.png").rename(f / "out" / "tuned.safetensors"),
        refused(f, "holds a network already"),
    )[2],
    "nothing": lambda f: ("name a bag", ["--output", str(f)]),
    "resume and more": lambda f: ("give no others", ["--resume", str(f), "--steps", "3"]),
    "no run": lambda f: ("no run to go on with", ["--resume", str(f)]),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_trained_on_is_said(tmp_path, capsys, what):
    message, arguments = BAD[what](tmp_path)
    assert depth_finetune.main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("depth_finetune: "), said


def test_networks_that_take_their_metres_from_the_focal_length_are_refused():
    network = create_model("demo")
    for kind, metric, message in (("canonical", False, "for any camera"), (RELATIVE, True, "other")):
        changes = {"kind": kind} if kind == "canonical" else {"kind": kind, "architecture": "other"}
        with pytest.raises(ModelError, match=message):
            check_trainable(with_row(network, **changes), metric)
