# SPDX-License-Identifier: Apache-2.0
"""The table of models, encoders and published checkpoints. A new checkpoint is a new row here and nothing else.

Sources: layer taps and head widths from DepthAnything/Depth-Anything-V2 (`dpt.py`, README) and
LiheYoung/Depth-Anything (`dpt.py`: always the last four blocks); `max_depth` from `metric_depth/README.md`; `training_focal`
from `metric_depth/dataset/hypersim.py` (1024 x 768) and Virtual KITTI 2's intrinsics (1242 x 375); licences from the
repositories' READMEs and model cards.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath

from .errors import CheckpointError, ModelError

RELATIVE, METRIC, CANONICAL = "relative", "metric", "canonical"
DEPTH_ANYTHING, DEPTH_ANYTHING_3, DEPTH_PRO = "Depth Anything", "Depth Anything 3", "Depth Pro"
SHORT_SIDE, LONG_SIDE, SQUARE = "short side", "long side", "square"
CUSTOM = "custom"  # a network that describes itself: see `own`
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Encoder:
    """A ViT and the widths of the head that goes with it.

    Attributes:
        width, depth, heads: of the ViT; one of timm's says them itself.
        features: channels of the head's fusion blocks.
        out_channels: channels of the four levels that the head fuses.
        patch: both sides of the ViT's input are multiples of it, pixels.
        timm: name of another ViT in timm; empty: DINOv2's.
    """

    width: int
    depth: int
    heads: int
    features: int
    out_channels: tuple[int, int, int, int]
    patch: int = 14
    train_size: tuple[int, int] = (518, 518)  # (height, width) of the images that the position embedding was trained at
    swiglu: bool = False
    stem: tuple[int, int] | None = None  # widths at 1/4 and 1/8 of the image of a convolutional stem before the ViT
    timm: str = ""


ENCODERS = {
    "tiny": Encoder(192, 6, 3, 48, (48, 96, 192, 192), patch=16, train_size=(192, 256), stem=(48, 96)),
    "vits": Encoder(384, 12, 6, 64, (48, 96, 192, 384)),
    "vitb": Encoder(768, 12, 12, 128, (96, 192, 384, 768)),
    "vitl": Encoder(1024, 24, 16, 256, (256, 512, 1024, 1024)),
    "vitg": Encoder(1536, 40, 24, 384, (1536, 1536, 1536, 1536), swiglu=True),
    "vitl16": Encoder(1024, 24, 16, 256, (256, 512, 1024, 1024), patch=16, train_size=(384, 384)),
}


@dataclass(frozen=True)
class Weights:
    """Where published weights come from, and what their licence allows."""

    repo: str  # on the Hugging Face hub; empty: shipped with this package
    file: str
    licence: str
    size_mb: int
    repo_type: str = "model"
    remark: str = ""  # where its sources do not agree about the licence


@dataclass(frozen=True)
class Model:
    """One family of checkpoints: what its output means, what it wants to see, and where its weights are.

    Attributes:
        kind: RELATIVE: inverse depth of unknown scale and shift. METRIC: metres along the optical axis. CANONICAL: inverse
            depth that becomes 1 / metres with the camera's focal length.
        taps: encoder name -> 0-based blocks that the head is given.
        weights: encoder name -> the published ones.
        architecture: which network it is.
        max_depth: metres at a full sigmoid; METRIC only.
        canonical_focal: CANONICAL only: focal length, in pixels of the network's input, of the camera that its output is right
            for; 0: as long as that input is wide.
        input_size: pixels of the side that `resize` is about.
        resize: SHORT_SIDE, LONG_SIDE or SQUARE: see `inference.preprocessing`.
        mean, std: of the colours that the network was trained with, from 0 to 1.
        align_corners: how the reference brings its output back to the image's size.
        training_focal: of the cameras that METRIC weights were trained on, in short sides of the image; 0: no one.
        unpublished_licence: encoder name -> licence, where there is no published file.
        identity: of weights that describe themselves: which they are, whatever their file is called.
    """

    kind: str
    taps: dict[str, tuple[int, ...]]
    weights: dict[str, Weights]
    architecture: str = DEPTH_ANYTHING
    max_depth: float = 0.0
    canonical_focal: float = 0.0
    input_size: int = 518
    resize: str = SHORT_SIDE
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    align_corners: bool = True
    training_focal: float = 0.0
    unpublished_licence: dict[str, str] = field(default_factory=dict)
    identity: str = ""

    @property
    def metric(self) -> bool:
        """Whether metres come out of it; of a CANONICAL one where the focal length is known."""
        return self.kind != RELATIVE

    @property
    def says_fov(self) -> bool:
        """Whether it can estimate the camera's field of view."""
        return self.architecture == DEPTH_PRO

    def licence(self, encoder: str) -> str:
        """The licence of the weights of one encoder."""
        return self.weights[encoder].licence if encoder in self.weights else self.unpublished_licence[encoder]


_RESTRICTED = {"nc", "noncommercial", "amlr", "research", "seer", "unknown"}  # words in the names of licences
_NAMELESS = ("model.safetensors", "pytorch_model.bin")  # every repository's; there its folder's name tells
_LAST_FOUR = {"vits": (8, 9, 10, 11), "vitb": (8, 9, 10, 11), "vitl": (20, 21, 22, 23)}
_SPREAD = {"vits": (2, 5, 8, 11), "vitb": (2, 5, 8, 11), "vitl": (4, 11, 17, 23)}
_MB = {"vits": 99, "vitb": 390, "vitl": 1340}
_V2_LICENCE = {"vits": "Apache-2.0", "vitb": "CC-BY-NC-4.0", "vitl": "CC-BY-NC-4.0"}
_SIZE_NAME = {"vits": "Small", "vitb": "Base", "vitl": "Large"}


_METRIC_REMARK = "some hub pages of these weights say Apache-2.0; the README's rule by size, the stricter, is taken here"
_PRO_REMARK = (
    "the hub's page says apple-amlr, for research; the licence in its repository allows more: read both, decide yourself"
)


def _v2_weights(repo: str, file: str, remark: str = "") -> dict[str, Weights]:
    return {
        e: Weights(repo.format(_SIZE_NAME[e]), file.format(e), _V2_LICENCE[e], _MB[e], remark="" if e == "vits" else remark)
        for e in _MB
    }


def _depth_anything_3(kind: str, repo: str, **more) -> Model:
    return Model(
        kind,
        {"vitl": _SPREAD["vitl"]},
        {"vitl": Weights(f"depth-anything/{repo}", "model.safetensors", "Apache-2.0", _MB["vitl"])},
        architecture=DEPTH_ANYTHING_3,
        input_size=504,
        resize=LONG_SIDE,
        align_corners=False,
        **more,
    )


MODELS = {
    "v1": Model(
        RELATIVE,
        _LAST_FOUR,
        {
            e: Weights("LiheYoung/Depth-Anything", f"checkpoints/depth_anything_{e}14.pth", "Apache-2.0", _MB[e], "space")
            for e in _MB
        },
        align_corners=False,
    ),
    "v2": Model(
        RELATIVE,
        {**_SPREAD, "vitg": (9, 19, 29, 39)},
        _v2_weights("depth-anything/Depth-Anything-V2-{}", "depth_anything_v2_{}.pth"),
        unpublished_licence={"vitg": "CC-BY-NC-4.0"},
    ),
    "v2_metric_indoor": Model(
        METRIC,
        _SPREAD,
        _v2_weights(
            "depth-anything/Depth-Anything-V2-Metric-Hypersim-{}", "depth_anything_v2_metric_hypersim_{}.pth", _METRIC_REMARK
        ),
        max_depth=20.0,
        training_focal=886.81 / 768,
    ),
    "v2_metric_outdoor": Model(
        METRIC,
        _SPREAD,
        _v2_weights(
            "depth-anything/Depth-Anything-V2-Metric-VKITTI-{}", "depth_anything_v2_metric_vkitti_{}.pth", _METRIC_REMARK
        ),
        max_depth=80.0,
        training_focal=725.0087 / 375,
    ),
    "da3_mono": _depth_anything_3(RELATIVE, "DA3MONO-LARGE"),
    "da3_metric": _depth_anything_3(CANONICAL, "DA3METRIC-LARGE", canonical_focal=300.0),
    "depth_pro": Model(
        CANONICAL,
        {"vitl16": (5, 11)},
        {"vitl16": Weights("apple/DepthPro", "depth_pro.pt", "Apple-AMLR", 1904, remark=_PRO_REMARK)},
        architecture=DEPTH_PRO,
        input_size=1536,
        resize=SQUARE,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        align_corners=False,
    ),
    "demo": Model(
        METRIC,
        {"tiny": (3, 5)},
        {"tiny": Weights("", "demo.safetensors", "Apache-2.0", 11)},
        max_depth=20.0,
        input_size=192,
        align_corners=False,
    ),
}


def noncommercial(licence: str) -> bool:
    """Whether a licence forbids commercial use, or may: hubs spell them in many ways."""
    return not _RESTRICTED.isdisjoint(re.split("[^a-z]+", licence.lower()))


def lookup(model: str, encoder: str = "") -> tuple[Model, Encoder]:
    """The rows of a published model and of one of its encoders; empty: its smallest.

    Raises:
        ModelError: a name that is not in the table, or an encoder that the model does not come with.
    """
    if model not in MODELS:
        raise ModelError(f"unknown model '{model}', expected one of: {', '.join((*MODELS, CUSTOM))}")
    taps = MODELS[model].taps
    encoder = encoder or next(iter(taps))
    if encoder not in taps:
        raise ModelError(f"model '{model}' has no encoder '{encoder}', expected one of: {', '.join(taps)}")
    return MODELS[model], ENCODERS[encoder]


def input_unit(model: Model, encoder: Encoder) -> int:
    """Both sides of the network's input are multiples of it, pixels. Depth Pro's: whole tokens where its tiles overlap."""
    return 32 * encoder.patch if model.architecture == DEPTH_PRO else encoder.patch


def check_input_size(input_size: int, unit: int) -> None:
    """Refuse an input size, pixels, that is not a positive multiple of `input_unit`.

    Raises:
        ModelError: it is none.
    """
    if input_size < unit or input_size % unit:
        below = max(unit, input_size // unit * unit)
        raise ModelError(f"input_size {input_size} is not a multiple of {unit}; the nearest are {below} and {below + unit}")


def check_file_name(path: str, model: str, encoder: str) -> None:
    """Refuse a published file under the wrong name of a model.

    V1, V2 and metric checkpoints have the same tensors, so a wrong choice loads without any error and gives wrong
    depth: only a well-known file or repository name can tell.

    Raises:
        CheckpointError: the name belongs to another model or encoder.
    """
    claimed = _identify(PurePath(path))
    if claimed and claimed != (model, encoder):
        raise CheckpointError(
            f"'{path}' is by its name the checkpoint of model '{claimed[0]}', encoder '{claimed[1]}', but model '{model}', "
            f"encoder '{encoder}' was asked for. Set model and encoder to match the file, or rename a misnamed file."
        )


def _identify(path: PurePath) -> tuple[str, str] | None:
    """The (model, encoder) that a published file name, or else the folder of its repository, stands for."""
    folders = path.parts[:-1] if path.name in _NAMELESS else ()
    for part in (path.stem.lower(), *(folder.lower() for folder in reversed(folders))):
        name = part.replace("-", "_")
        for (model, encoder), known in _KNOWN_NAMES.items():
            if any(name == k or name.endswith("__" + k) for k in known):
                return model, encoder
    return None


def _known_names() -> dict[tuple[str, str], set[str]]:
    """Normalised stems of files and names of repositories, the transformers copies among them."""
    names: dict[tuple[str, str], set[str]] = {}
    for model, row in MODELS.items():
        for encoder, weights in row.weights.items():
            if weights.repo:
                nameless = weights.file in _NAMELESS
                stem = weights.repo.rsplit("/", 1)[-1].replace("-", "_") if nameless else PurePath(weights.file).stem
                names[model, encoder] = {stem.lower()}
    names["depth_pro", "vitl16"] |= {"depthpro", "depthpro_hf"}
    place = {"v2_metric_indoor": "Metric-Hypersim", "v2_metric_outdoor": "Metric-VKITTI"}
    hf_place = {"v2_metric_indoor": "Metric-Indoor", "v2_metric_outdoor": "Metric-Outdoor"}
    for encoder, size in _SIZE_NAME.items():
        repos = {"v1": [f"depth-anything-{size}-hf", f"depth_anything_{encoder}14"]}
        repos["v2"] = [f"Depth-Anything-V2-{size}", f"Depth-Anything-V2-{size}-hf"]
        for model in place:
            repos[model] = [
                f"Depth-Anything-V2-{place[model]}-{size}",
                f"Depth-Anything-V2-{hf_place[model]}-{size}-hf",
            ]
        for model, known in repos.items():
            names[model, encoder] |= {name.lower().replace("-", "_") for name in known}
    return names


_KNOWN_NAMES = _known_names()
