"""Looking at the depth of a bag: the film and the report, of bags whose depth is known exactly."""

import base64
import math
import re
import resource
import warnings
import weakref
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from bags import START, header_of, image_of, write_bag
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from ros import picture
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from depth_anything_ros.outputs import ColorSettings
from depth_anything_ros.replay.bag_input import BagInput
from depth_anything_ros.replay.look import Pair, Shots, choose_range, read_depth
from depth_anything_ros.replay.messages import BagError, Recorded, to_cdr
from depth_anything_ros.replay.preview import write_preview
from depth_anything_ros.replay.report import write_report

IMAGE, DEPTH, SCALE = "/camera/image_raw", "/depth_anything/depth/image", "/depth_anything/depth/scale"
PAIR = Pair("front", IMAGE, DEPTH)
WIDTH, HEIGHT = 320, 240
STRIP = 32  # pixels above each row of the film


def stamps_of(frames, rate=10.0):
    return [START + round(k * 1e9 / rate) for k in range(frames)]


def images_at(stamps, topic=IMAGE, width=WIDTH, height=HEIGHT):
    pixels = picture(width, height)
    return [(topic, stamp, image_of(pixels, stamp)) for stamp in stamps]


def depths_at(stamps, depth_of=lambda k: halves(), topic=DEPTH, late=0):
    return [(topic, stamp + late, image_of(depth_of(k), stamp, "32FC1")) for k, stamp in enumerate(stamps)]


def halves(near=2.0, far=8.0, width=WIDTH, height=HEIGHT):
    depth = np.full((height, width), near, np.float32)
    depth[:, width // 2 :] = far
    return depth


def bag_of(path, *parts):
    return BagInput(write_bag(path, sorted((it for part in parts for it in part), key=lambda it: it[1])))


def film_of(path):
    """(frames per second, [(H, W, 3) BGR]) by OpenCV's reader."""
    film, frames = cv2.VideoCapture(str(path)), []
    rate = film.get(cv2.CAP_PROP_FPS)
    while True:
        good, frame = film.read()
        if not good:
            return rate, frames
        frames.append(frame)


def turbo(share):
    """The BGR of a place between far (0) and near (1), by OpenCV itself."""
    return cv2.applyColorMap(np.array([[round(255 * share)]], np.uint8), cv2.COLORMAP_TURBO)[0, 0].astype(int)


def around(frame, u, v):
    return frame[v - 4 : v + 5, u - 4 : u + 5].reshape(-1, 3).mean(0)


class Page(HTMLParser):
    """What a browser would make of the file: rows of tables, images, and everything that would be loaded from elsewhere."""

    def __init__(self, path):
        super().__init__()
        self.rows, self.images, self.outside, self.tags = [], [], [], []
        self.text = path.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        for name, value in attributes:
            if name in ("src", "href", "action", "data") and not value.startswith("data:"):
                self.outside.append(value)
            if name == "src" and value.startswith("data:"):
                self.images.append((dict(attributes)["alt"], value))

    def handle_data(self, data):
        if self.tags and self.rows and self.rows[-1] and self.tags[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def value(self, name):
        """Of a row "name, value" of the only table that has it."""
        (found,) = [row[1].strip() for row in self.rows if row[0] == name]
        return found

    def named(self, name):
        """Rows of lists, such as gaps."""
        return [[cell.strip() for cell in row[1:]] for row in self.rows if row[0] == name]

    def pictures(self):
        """(alt, decoded BGR) of all images."""
        return [
            (alt, cv2.imdecode(np.frombuffer(base64.b64decode(data.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR))
            for alt, data in self.images
        ]


def report_of(tmp_path, images, depths=None, pairs=(PAIR,), summary=None):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(images, depths or images, pairs, tmp_path / "report.html", summary or {})
    return Page(tmp_path / "report.html")


# -- the film -------------------------------------------------------------------------------------------------------


def test_a_film_shows_image_and_depth_side_by_side_in_the_colours_of_metres(tmp_path):
    depth = halves()
    depth[:60, :60] = np.nan
    stamps = stamps_of(8, 12.5)
    bag = bag_of(tmp_path / "bag", images_at(stamps), depths_at(stamps, lambda k: depth))
    write_preview(bag, bag, [PAIR], tmp_path / "film.mp4")
    rate, frames = film_of(tmp_path / "film.mp4")
    assert len(frames) == 8 and rate == pytest.approx(12.5, abs=0.01)
    assert frames[0].shape == (STRIP + HEIGHT, 2 * WIDTH, 3)
    expected = picture(WIDTH, HEIGHT)[..., ::-1].astype(int)
    assert np.abs(frames[3][STRIP:, :WIDTH].astype(int) - expected).mean() < 12, "not the camera's image"
    near, far = around(frames[3], WIDTH + 80, STRIP + 180), around(frames[3], WIDTH + 240, STRIP + 120)
    assert np.abs(near - turbo(1 - 2 / 10)).max() < 16 and np.abs(far - turbo(1 - 8 / 10)).max() < 16
    assert around(frames[3], WIDTH + 30, STRIP + 30).max() < 16, "invalid pixels are not black"


def test_the_range_of_a_film_may_be_given_or_chosen(tmp_path):
    stamps = stamps_of(4)
    bag = bag_of(tmp_path / "bag", images_at(stamps), depths_at(stamps))
    write_preview(bag, bag, [PAIR], tmp_path / "film.mp4", ColorSettings(near=1, far=9, colormap="turbo"))
    frame = film_of(tmp_path / "film.mp4")[1][0]
    assert np.abs(around(frame, WIDTH + 80, STRIP + 180) - turbo(1 - 1 / 8)).max() < 16
    ramp = np.linspace(1, 6, 24 * 401, dtype=np.float32).reshape(401, 24)
    ramps = bag_of(tmp_path / "ramps", depths_at(stamps, lambda k: ramp))
    chosen = choose_range(ramps, [PAIR])
    assert (chosen.near, chosen.far) == pytest.approx((1.1, 5.9), abs=0.02), "the 2nd and 98th percentile of 1 to 6 m"
    assert choose_range(bag, [Pair("front", IMAGE, DEPTH, relative=True)]) == ColorSettings()


def test_an_image_without_depth_says_so_and_keeps_its_place(tmp_path):
    stamps = stamps_of(7)
    bag = bag_of(tmp_path / "bag", images_at(stamps), depths_at(stamps[:3] + stamps[4:]))
    write_preview(bag, bag, [PAIR], tmp_path / "film.mp4")
    frames = film_of(tmp_path / "film.mp4")[1]
    assert len(frames) == 7
    panels = [frame[STRIP:, WIDTH:].astype(int) for frame in frames]
    colourful = [np.ptp(panel.reshape(-1, 3), axis=1).mean() for panel in panels]
    assert [value > 60 for value in colourful] == [True] * 3 + [False] + [True] * 3
    assert panels[3][110:130, 100:220].max() > 150, "nothing is written there"


def test_cameras_stand_below_each_other_and_go_their_own_pace(tmp_path):
    left, right = Pair("left", "/left/image_raw", "/d/left/depth/image"), Pair("right", "/right/image/compressed", "/d/r", True)
    stamps = stamps_of(10)

    def compressed(stamp):
        data = cv2.imencode(".jpg", picture(321, 201)[..., ::-1])[1].tobytes()
        return "/right/image/compressed", stamp, CompressedImage(header=header_of(stamp), format="jpeg", data=data)

    inverse = halves(-1.0, 3.0, 107, 67)  # the right half is near
    bag = bag_of(
        tmp_path / "bag",
        images_at(stamps, left.image, 1500, 1000),
        depths_at(stamps, lambda k: halves(width=150, height=100), left.depth),
        [compressed(stamp + 50_000_000) for stamp in stamps[::3]],
        depths_at([stamp + 50_000_000 for stamp in stamps[::3]], lambda k: inverse, right.depth),
    )
    write_preview(bag, bag, [left, right], tmp_path / "film.mp4")
    rate, frames = film_of(tmp_path / "film.mp4")
    assert len(frames) == 10 and rate == pytest.approx(10, abs=0.01)
    height, width = frames[0].shape[:2]
    first = round(640 * 1000 / 1500 / 2) * 2
    assert (width, height) == (1280, 2 * STRIP + first + round(640 * 201 / 321 / 2) * 2)
    second = 2 * STRIP + first
    assert around(frames[0], 640 + 480, second + 200).max() < 60, "the right camera had no image yet"
    assert np.abs(around(frames[5], 640 + 480, second + 200) - turbo(1)).max() < 16
    assert np.abs(around(frames[5], 640 + 160, second + 200) - turbo(0)).max() < 16
    assert np.abs(around(frames[5], 640 + 160, STRIP + 200) - turbo(0.8)).max() < 16


def test_a_film_goes_on_when_its_first_camera_falls_silent(tmp_path):
    other = Pair("other", "/other/image", "/other/depth")
    stamps = stamps_of(20)
    bag = bag_of(tmp_path / "bag", images_at(stamps[:11]), images_at([stamp + 1000 for stamp in stamps[::2]], other.image))
    write_preview(bag, bag, [PAIR, other], tmp_path / "film.mp4")
    # The clock's 11 images until 1.0 s; then the other's of 1.4 and 1.8 s, each more than two spacings after the frame before.
    assert len(film_of(tmp_path / "film.mp4")[1]) == 11 + 2


def test_what_cannot_become_a_film_is_said_and_leaves_nothing_behind(tmp_path):
    stamps = stamps_of(2)
    bag = bag_of(tmp_path / "bag", images_at(stamps), depths_at(stamps))
    (tmp_path / "film.mp4").write_text("of yesterday")
    with pytest.raises(BagError, match="no such folder"):
        write_preview(bag, bag, [PAIR], tmp_path / "missing" / "film.mp4")
    with pytest.raises(BagError, match="ends in .mp4"):
        write_preview(bag, bag, [PAIR], tmp_path / "film.avi")
    with pytest.raises(BagError, match="no image that can be read on /elsewhere"):
        write_preview(bag, bag, [Pair("front", "/elsewhere", DEPTH)], tmp_path / "film.mp4")
    words = bag_of(tmp_path / "words", images_at(stamps), [(DEPTH, START, String(data="deep"))])
    with pytest.raises(BagError, match="is a std_msgs/msg/String, expected sensor_msgs/msg/Image"):
        write_preview(bag, words, [PAIR], tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").read_text() == "of yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "film.mp4", "words"]


def test_a_full_disk_is_noticed_and_costs_nothing_that_was_there(tmp_path):
    stamps = stamps_of(20)
    bag = bag_of(tmp_path / "bag", images_at(stamps), depths_at(stamps))
    (tmp_path / "film.mp4").write_text("of yesterday")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # writing beyond fails, as it does on a full disk
    try:
        with pytest.raises(BagError, match="of 20 frames: is the disk full"):
            write_preview(bag, bag, [PAIR], tmp_path / "film.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "film.mp4").read_text() == "of yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "film.mp4"]


# -- images and their depths ------------------------------------------------------------------------------------------


def test_depths_of_a_live_node_come_late_and_are_still_met(tmp_path):
    stamps = stamps_of(30)
    images = bag_of(tmp_path / "images", images_at(stamps, width=32, height=24))
    depths = bag_of(tmp_path / "depths", depths_at(stamps[::4], lambda k: halves(width=32, height=24), late=730_000_000))
    shots = list(Shots((images, depths), [PAIR], lambda p, r: r.time_ns, lambda p, r: r.time_ns))
    assert [shot.stamp_ns for shot in shots] == stamps
    assert [shot.depth for shot in shots] == [stamp + 730_000_000 if k % 4 == 0 else None for k, stamp in enumerate(stamps)]


def test_a_depth_may_be_recorded_before_its_image_and_one_without_image_is_counted(tmp_path):
    stamps = stamps_of(6)
    depths = depths_at([*stamps, START - 1], late=-20_000_000)
    bag = bag_of(tmp_path / "bag", images_at(stamps, width=32, height=24), depths)
    shots = Shots((bag, bag), [PAIR], lambda p, r: 1, lambda p, r: 1)
    assert [shot.depth for shot in shots] == [1] * 6
    assert shots.strays[PAIR] == 1
    assert report_of(tmp_path, bag).value("depth without image") == "1"


def test_what_waits_for_depth_is_bounded(tmp_path):
    class Kept:
        pass

    alive, most = weakref.WeakSet(), 0

    def keep(pair, recorded):
        nonlocal most
        kept = Kept()
        alive.add(kept)
        most = max(most, len(alive))
        return kept

    stamps = stamps_of(1000, 500)
    bag = bag_of(tmp_path / "bag", images_at(stamps, width=8, height=8), depths_at(stamps[-1:]))
    assert sum(shot.depth is not None for shot in Shots((bag, bag), [PAIR], keep, lambda p, r: 1)) == 1
    assert 50 < most <= 103


@pytest.mark.parametrize("big", [False, True])
def test_depth_is_read_in_both_forms_whatever_their_layout(big):
    kind = ">" if big else "<"
    metres = np.array([[1.5, np.nan, 2.5], [np.inf, 0, -1]], np.float32)
    expected = [[1.5, np.nan, 2.5], [np.nan] * 3]
    padded = np.zeros((2, 5), f"{kind}f4")
    padded[:, :3] = metres
    message = image_of(padded, START, "32FC1")
    message.width, message.is_bigendian = 3, int(big)
    np.testing.assert_array_equal(read_depth(PAIR, Recorded(DEPTH, 0, to_cdr(message))), expected)
    message = image_of(np.array([[1500, 0, 2500], [0, 0, 0]], f"{kind}u2"), START, "16UC1")
    message.is_bigendian = int(big)
    np.testing.assert_allclose(read_depth(PAIR, Recorded(DEPTH, 0, to_cdr(message))), expected, rtol=1e-6)


# -- the report -------------------------------------------------------------------------------------------------------


def test_a_report_is_one_file_with_what_it_was_told_and_pictures(tmp_path):
    stamps = stamps_of(30)
    bag = bag_of(tmp_path / "bag", images_at(stamps), depths_at(stamps))
    nasty = Pair("<b>front</b>", IMAGE, DEPTH)
    page = report_of(tmp_path, bag, pairs=[nasty], summary={"model": "v2 <vits> & co", "licence": "Apache-2.0"})
    assert page.value("model") == "v2 <vits> & co" and page.value("licence") == "Apache-2.0"
    assert not page.outside and "script" not in page.tags and "@import" not in page.text and "url(" not in page.text
    assert "<b>front" not in page.text
    assert (page.value("images"), page.value("with depth"), page.value("without depth")) == ("30", "30 (100.0%)", "0")
    assert page.value("rate") == "10.00 Hz (median spacing 100.0 ms)"
    thumbnails = [picture for alt, picture in page.pictures() if re.fullmatch(r"\+\d+\.\d+ s", alt)]
    assert len(thumbnails) == 12
    for thumbnail in thumbnails:
        height, width = thumbnail.shape[:2]
        assert np.abs(around(thumbnail, width * 5 // 8, height // 2) - turbo(0.8)).max() < 16
        assert np.abs(around(thumbnail, width * 7 // 8, height // 2) - turbo(0.2)).max() < 16
    assert {"spacing of images over time", "depth over time", "flicker over time"} <= {alt for alt, _ in page.images}


def test_depth_is_described_by_percentiles_and_invalid_pixels(tmp_path):
    depth = np.linspace(1, 3, 101, dtype=np.float32).reshape(1, 101).repeat(20, 0)
    depth[:5] = np.nan
    empty = np.full_like(depth, np.nan)
    stamps = stamps_of(5)
    bag = bag_of(tmp_path / "bag", images_at(stamps), depths_at(stamps, lambda k: empty if k == 2 else depth))
    page = report_of(tmp_path, bag)
    assert page.value("depth") == "median 2 m, 5 % below 1.1 m, 5 % above 2.9 m (medians over time)"
    assert page.value("invalid pixels") == "40.0% in the mean, 100.0% at most"  # (4 * 1/4 + 1) / 5
    assert page.value("depth images without a valid pixel") == "1"
    assert page.value("depth images") == "101x20: 5"


@pytest.mark.parametrize(
    ("factor", "total", "local"),
    [
        (lambda k: np.float32(1.1) ** (k % 2), math.log(1.1), 0),  # the whole image jumps
        (lambda k: np.float32(1.1) ** (np.indices((24, 32)).sum(0) % 2 * (k % 2) * 2 - k % 2), math.log(1.1), math.log(1.1)),
        (lambda k: np.float32(1.0), 0, 0),
    ],
    ids=["scale", "noise", "still"],
)
def test_flicker_tells_jumps_of_scale_from_noise(tmp_path, factor, total, local):
    base = np.random.default_rng(0).uniform(1, 5, (24, 32)).astype(np.float32)
    stamps = stamps_of(10)
    stamps[7:] = [stamp + 10**9 for stamp in stamps[7:]]  # frames 6 and 7 are too far apart to be compared
    make = lambda k: (base * (7 if k > 6 else 1) * factor(k)).astype(np.float32)  # noqa: E731
    page = report_of(tmp_path, bag_of(tmp_path / "bag", images_at(stamps, width=32, height=24), depths_at(stamps, make)))
    assert page.value("flicker") == f"total {total:.4f}, local {local:.4f} (medians over time)"
    assert "median |r - median(r)|" in page.text


def test_flicker_is_not_asked_of_images_far_apart(tmp_path):
    pages = []
    for spacing in (490_000_000, 510_000_000):
        stamps = [START, START + spacing]
        bag = bag_of(tmp_path / str(spacing), images_at(stamps, width=32, height=24), depths_at(stamps))
        pages.append(report_of(tmp_path, bag).named("flicker"))
    assert [len(rows) for rows in pages] == [1, 0]


def test_gaps_and_stamps_out_of_order_are_listed_with_their_times(tmp_path):
    stamps = stamps_of(20)
    del stamps[8:13]  # 0.6 s
    stamps[3] = stamps[2]
    stamps[5] = stamps[4] - 30_000_000
    recorded = stamps_of(15)
    images = [(IMAGE, time_ns, image_of(picture(32, 24), stamp)) for time_ns, stamp in zip(recorded, stamps)]
    page = report_of(tmp_path, bag_of(tmp_path / "bag", images))
    assert (page.value("gaps"), page.value("stamps that repeat"), page.value("stamps that go back")) == ("1", "1", "1")
    assert page.named("gap") == [["+0.700 s", f"{(START + 700_000_000) / 1e9:.3f} s", "+0.600 s"]]
    assert [row[0] for row in page.named("stamp repeats")] == ["+0.200 s"]
    assert [row[0::2] for row in page.named("stamp goes back")] == [["+0.400 s", "-0.030 s"]]


def test_missing_depths_and_damaged_messages_are_counted(tmp_path):
    stamps = stamps_of(10)
    depths = depths_at(stamps[:4] + stamps[6:])
    depths[0][2].encoding = "rgb8"
    page = report_of(tmp_path, bag_of(tmp_path / "bag", images_at(stamps), depths))
    assert (page.value("with depth"), page.value("without depth")) == ("7 (70.0%)", "3")
    assert "a depth image of encoding &#x27;rgb8&#x27;" in page.text and "(1 times)" in page.text


def test_the_scale_is_followed_where_the_bag_has_it(tmp_path):
    stamps = stamps_of(10)

    def scale(k, stamp):
        status = DiagnosticStatus(name="depth scale")
        values = {"source": "sparse", "valid": str(k >= 4).lower(), "a": str(0.5 + k / 100), "b": "0"}
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        return SCALE, stamp, DiagnosticArray(header=header_of(stamp), status=[status])

    parts = images_at(stamps), depths_at(stamps), [scale(k, stamp) for k, stamp in enumerate(stamps)]
    page = report_of(tmp_path, bag_of(tmp_path / "bag", *parts))
    assert page.value("scale") == "valid in 60.0% of 10 messages, a from 0.54 to 0.59, median 0.565"
    assert "scale over time" in dict(page.images)
    assert "scale over time" not in dict(report_of(tmp_path, bag_of(tmp_path / "without", *parts[:2])).images)


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_a_report_of_little_or_nothing_is_still_a_report(tmp_path, frames):
    stamps = stamps_of(frames)
    nothing = np.full((12, 16), np.nan, np.float32)
    relative = Pair("", IMAGE, "/depth_anything/depth/relative", relative=True)
    bag = bag_of(
        tmp_path / "bag",
        images_at(stamps),
        depths_at(stamps, lambda k: nothing),
        depths_at(stamps, lambda k: nothing, relative.depth),
        [("/chatter", START, String(data="hello"))],
    )
    page = report_of(tmp_path, bag, pairs=[PAIR, relative])
    assert [row[0] for row in page.named("images")] == [str(frames)] * 2
    assert [row[0] for row in page.named("depth")] == ["no valid pixel"] * (frames > 0)
    if frames:
        write_preview(bag, bag, [PAIR, relative], tmp_path / "film.mp4")
        assert len(film_of(tmp_path / "film.mp4")[1]) == frames


def test_a_report_that_cannot_be_written_is_an_error(tmp_path):
    bag = bag_of(tmp_path / "bag", images_at(stamps_of(1)))
    with pytest.raises(BagError, match="cannot be written: No such file"):
        write_report(bag, bag, [PAIR], tmp_path / "missing" / "report.html", {})
    with pytest.raises(BagError, match="there is no camera to show"):
        write_report(bag, bag, [], tmp_path / "report.html", {})
