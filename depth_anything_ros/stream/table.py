# SPDX-License-Identifier: Apache-2.0
"""Every parameter of the depth node: its default, what it means, and what it may be."""

from __future__ import annotations

from dataclasses import dataclass

from ..geometry import COLORMAPS, MEDIANS, SOURCES, UPSAMPLINGS
from ..inference import BACKENDS, PRECISIONS
from ..messages.bridge import BRIDGES
from ..messages.camera_info import RECTIFY
from ..models import MODEL_NAMES

TRANSPORTS = ("auto", "raw", "compressed")
OUT_OF_RANGE = ("nan", "inf")


@dataclass(frozen=True)
class Parameter:
    """One row. `dynamic`: it may change while the node is active; the others are read when the node is configured."""

    name: str
    default: bool | int | float | str | list[str]
    description: str
    choices: tuple[str | int, ...] = ()
    limits: tuple[float, float] | None = None
    dynamic: bool = True


TABLE = (
    Parameter("model", "v2_metric_indoor", "Network. Metres: v2_metric_indoor, v2_metric_outdoor, demo (never for a robot). "
              "Metres by the focal length of camera_info: da3_metric, depth_pro (which estimates one where there is none). "
              "Unitless inverse depth: v1, v2, da3_mono. custom: what the file checkpoint says of itself (depth_finetune)",
              MODEL_NAMES),
    Parameter("encoder", "", "Size of the network: vits, vitb, vitl (vitg: model v2 with your own checkpoint). "
              "Empty: the model's smallest, mostly vits"),
    Parameter("input_size", 0, "Short side in pixels that images are resized to, a multiple of 14 (demo: 16). da3_mono, "
              "da3_metric: the long side. depth_pro: both, a multiple of 512. 0: the model's own (518; 504; 1536)",
              limits=(0, 4096)),
    Parameter("checkpoint", "", "Path of a .pth, .pt or .safetensors file. Empty: the published file, downloaded on first use"),
    Parameter("device", "auto", "auto, cpu, cuda, cuda:N or mps"),
    Parameter("max_tokens", 0, "Most patches that a network's input may have, to bound memory: input_size is lowered where an "
              "image would make more. 0: no bound", limits=(0, 100_000)),
    Parameter("precision", "auto", "What most of the network is computed in; auto: fp16 on CUDA, bf16 with OpenVINO on a CPU "
              "that has it, else fp32", ("auto", *PRECISIONS)),
    Parameter("backend", "auto", "What executes the network; auto: OpenVINO on a CPU where it is installed, else torch. Any is "
              "compared with torch first, and refused if it says something else", ("auto", *BACKENDS)),
    Parameter("allow_noncommercial", False, "Accept weights whose licence forbids commercial use (V2 vitb, vitl, vitg; "
              "depth_pro; custom as its file says)"),
    Parameter("deterministic", False, "Same input, same bytes out, run after run on one machine; may be slower", dynamic=False),
    Parameter("min_depth", 0.05, "Metres; nearer is invalid", limits=(0.0, 1000.0)),
    Parameter("max_depth", 0.0, "Metres; farther is out of range. 0: the model's own maximum. It never rescales depth",
              limits=(0.0, 1000.0)),
    Parameter("image_bridge", "auto", "Converter of raw images; auto: cv_bridge where it is installed and safe, else built-in",
              BRIDGES, dynamic=False),
    Parameter("normalize_exposure", False, "Brighten very dark images for the network"),
    Parameter("no_image_timeout", 2.0, "Seconds without an image after which diagnostics warn", limits=(0.1, 3600.0)),
    Parameter("autostart", True, "Configure and activate at start; false: leave that to a lifecycle manager", dynamic=False),
    Parameter("malloc_tuning", True, "Let glibc reuse buffers of image size (mallopt)", dynamic=False),
    Parameter("cameras", [""], "Names of the cameras that this node serves. One empty name: one camera, whose topics have no "
              "prefix; else every topic begins with its camera's name, and <name>.* overrides camera.* for it", dynamic=False),
    Parameter("base_frame", "base_link", "Frame of the robot, z up and z = 0 on the ground: heights are above it"),
    Parameter("transforms", [""], "Fixed transforms, each 'parent child x y z roll pitch yaw' in metres and radians, as in "
              "a URDF's origin. They go before tf, and serve where there is none", dynamic=False),
    Parameter("out_of_range", "nan", "What depth/image says beyond max_depth: nan, or inf (REP-117)", OUT_OF_RANGE),
    Parameter("scale.source", "none", "Where metres come from. none: from a metric network as they are. fixed: scale.a and "
              "scale.b. sparse: a range sensor on scale.topic. ground: the camera's height above level ground. focal: the "
              "focal length (metric networks). Any but none: no metres before it is valid", SOURCES),
    Parameter("scale.a", 1.0, "fixed: 1 / z = a * inverse depth of the network + b", limits=(1e-9, 1e9)),
    Parameter("scale.b", 0.0, "fixed: 1 / m", limits=(-1000.0, 1000.0)),
    Parameter("scale.network", "", "fixed: the network that a and b belong to, such as v2/vits/518. With another one there are "
              "no metres"),
    Parameter("scale.focal", 0.0, "fixed: focal length, in short sides of the image, of the camera that they belong to. 0: any",
              limits=(0.0, 100.0)),
    Parameter("scale.topic", "", "sparse: PointCloud2, LaserScan, or a depth Image (or compressedDepth) beside its camera_info",
              dynamic=False),
    Parameter("scale.max_offset", 0.1, "sparse: seconds between an image and the sensor's message that serves it",
              limits=(0.001, 10.0)),
    Parameter("scale.camera_height", 0.0, "ground: metres above the ground. 0: as the transform to base_frame says",
              limits=(0.0, 100.0)),
    Parameter("scale.min_points", 30, "sparse, ground: fewer points in view are no fit", limits=(2, 100000)),
    Parameter("scale.max_residual", 0.08, "sparse, ground: a fit whose points are off by a larger share (median) is refused",
              limits=(0.001, 1.0)),
    Parameter("scale.smoothing", 0.5, "sparse, ground: seconds over which the scale follows new fits", limits=(0.0, 60.0)),
    Parameter("scale.hold", 3.0, "sparse, ground: seconds without a good fit, after which there are no metres",
              limits=(0.0, 3600.0)),
    Parameter("scale.calibration_file", "~/.ros/depth_scale.yaml", "What the service calibrate writes"),
    Parameter("stabilizer.enabled", False, "Tie the scale of each frame to the frames before, by what is tracked in the image. "
              "Needs a calibration"),
    Parameter("stabilizer.memory", 20, "Frames over which the network's own scale is averaged", limits=(2, 50)),
    Parameter("stabilizer.pixels", False, "While the camera stands, average pixels that show the same, too"),
    Parameter("edges.tolerance", 0.02, "Depth that agrees with no surface beside it to this share is between two surfaces, "
              "and invalid: no points in the air. 0: leave it", limits=(0.0, 1.0)),
    Parameter("edges.upsampling", "bilinear", "How depth comes to the image's size. bilinear: on surfaces, the nearest across "
              "edges. nearest: everywhere. guided: as bilinear, but colours decide at edges, and fewer pixels are invalid",
              UPSAMPLINGS),
    Parameter("filter.median", 0, "Side of a median filter in pixels of the network's output: 0 (none), 3 or 5", MEDIANS),
    Parameter("filter.bilateral", 0.0, "Standard deviation of a bilateral filter in pixels of the network's output. 0: none",
              limits=(0.0, 20.0)),
    Parameter("confidence.enabled", False, "Predict the mirrored image, too, and say how well the two agree: twice the work"),
    Parameter("confidence.min", 0.0, "Pixels that agree less are invalid (0 to 1)", limits=(0.0, 1.0)),
    Parameter("cloud.stride", 1, "Points of every how many pixels, along both sides", limits=(1, 64)),
    Parameter("cloud.max_range", 0.0, "Metres from the camera, beyond which there are no points. 0: no limit",
              limits=(0.0, 1000.0)),
    Parameter("cloud.min_height", 0.0, "Metres above base_frame; lower points are left out. This and max_height 0: no limit",
              limits=(-100.0, 100.0)),
    Parameter("cloud.max_height", 0.0, "Metres above base_frame; higher points are left out", limits=(-100.0, 100.0)),
    Parameter("cloud.voxel", 0.0, "One point for each cube of this side in metres. 0: for each pixel, organised",
              limits=(0.0, 10.0)),
    Parameter("cloud.ground_tolerance", 0.1, "Metres from the plane of the ground: depth/ground within, depth/obstacles above",
              limits=(0.001, 10.0)),
    Parameter("scan.frame", "", "Frame of depth/scan, x forward and z up. Empty: base_frame"),
    Parameter("scan.min_height", 0.1, "Metres above base_frame; what is lower is no obstacle", limits=(-100.0, 100.0)),
    Parameter("scan.max_height", 1.0, "Metres above base_frame; what is higher is no obstacle", limits=(-100.0, 100.0)),
    Parameter("scan.min_range", 0.1, "Metres; nearer is not reported", limits=(0.0, 1000.0)),
    Parameter("scan.max_range", 10.0, "Metres; farther is not reported", limits=(0.01, 1000.0)),
    Parameter("scan.increment_deg", 0.5, "Degrees between beams", limits=(0.01, 45.0)),
    Parameter("color.map", "turbo", "Colour map of depth/color", tuple(COLORMAPS)),
    Parameter("color.min_depth", 0.0, "Metres at the near end of the colour map", limits=(0.0, 1000.0)),
    Parameter("color.max_depth", 10.0, "Metres at the far end of the colour map", limits=(0.01, 1000.0)),
)  # fmt: skip

CAMERA_TABLE = (
    Parameter("image", "", "Image topic. Empty: image (remap it), and with several cameras <name>/image", dynamic=False),
    Parameter("camera_info", "", "Its camera_info topic. Empty: camera_info beside the image topic", dynamic=False),
    Parameter("compressed", "", "Its compressed topic. Empty: <image>/compressed", dynamic=False),
    Parameter(
        "image_transport",
        "auto",
        "Which image topic to read; auto: the raw one, or the compressed one where no raw one is published",
        TRANSPORTS,
        dynamic=False,
    ),
    Parameter(
        "frame_id",
        "",
        "Optical frame of all outputs, where the driver's frame_id is wrong. Empty: the image's own",
        dynamic=False,
    ),
    Parameter(
        "rectify",
        "auto",
        "true: depth is computed on the rectified view; rays: on the image as it is, with true rays for the "
        "cloud; false: the image is rectified already, whatever its D says; auto: false for topics named rect, else true, but "
        "rays for views wider than 120 degrees",
        RECTIFY,
        dynamic=False,
    ),
    Parameter(
        "input_size",
        0,
        "As the node's input_size, for this camera. 0: the node's",
        limits=(0, 4096),
        dynamic=False,
    ),
    Parameter(
        "rotation",
        0,
        "Degrees clockwise by which the image must be turned to stand upright: 0, 90, 180, 270. The network "
        "sees the turned image; outputs stay in the camera's frame",
        limits=(0, 270),
        dynamic=False,
    ),
    Parameter(
        "fov_deg",
        0.0,
        "Horizontal field of view to assume where the camera has no calibration. 0: none, and no cloud",
        limits=(0.0, 170.0),
        dynamic=False,
    ),
)
