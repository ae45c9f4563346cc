# SPDX-License-Identifier: Apache-2.0
"""The table of models, encoders and published checkpoints. A new checkpoint is a new row here and nothing else.

Sources: layer taps and head widths from DepthAnything/Depth-Anything-V2 (`dpt.py`, README) and
LiheYoung/Depth-Anything (`dpt.py`: always the last four blocks); `max_depth` from `metric_depth/README.md`; `training_focal`
from `metric_depth/dataset/hypersim.py` (1024 x 768) and Virtual KITTI 2's intrinsics (1242 x 375); licences from the
repositories' READMEs and model cards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath

from .errors import CheckpointError, ModelError

RELATIVE, METRIC = "relative", "metric"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Encoder:
    """A ViT and the widths of the DPT head that goes with it."""

    width: int
    depth: int
    heads: int
    features: int
    out_channels: tuple[int, int, int, int]
    patch: int = 14
    train_size: tuple[int, int] = (518, 518)  # (height, width) of the images that the position embedding was trained at
    swiglu: bool = False
    stem: tuple[int, int] | None = None  # widths at 1/4 and 1/8 of the image of a convolutional stem before the ViT


ENCODERS = {
    "tiny": Encoder(192, 6, 3, 48, (48, 96, 192, 192), patch=16, train_size=(192, 256), stem=(48, 96)),
    "vits": Encoder(384, 12, 6, 64, (48, 96, 192, 384)),
    "vitb": Encoder(768, 12, 12, 128, (96, 192, 384, 768)),
    "vitl": Encoder(1024, 24, 16, 256, (256, 512, 1024, 1024)),
    "vitg": Encoder(1536, 40, 24, 384, (1536, 1536, 1536, 1536), swiglu=True),
}


@dataclass(frozen=True)
class Weights:
    """Where published weights come from, and what their licence allows."""

    repo: str  # on the Hugging Face hub; empty: shipped with this package
    file: str
    licence: str
    size_mb: int
    repo_type: str = "model"


@dataclass(frozen=True)
class Model:
    """One family of checkpoints: what its output means, which blocks the head taps, and where its weights are."""

    kind: str  # RELATIVE: inverse depth of unknown scale and shift; METRIC: metres along the optical axis
    taps: dict[str, tuple[int, int, int, int]]  # encoder name -> 0-based block outputs
    weights: dict[str, Weights]
    max_depth: float = 0.0  # metres at a full sigmoid; METRIC only
    input_size: int = 518  # short side, pixels
    align_corners: bool = True  # how the reference brings its output back to the image's size
    training_focal: float = 0.0  # of the cameras that metric weights were trained on, in short sides of the image; 0: no one
    unpublished_licence: dict[str, str] = field(default_factory=dict)  # announced, but no file to be had

    def licence(self, encoder: str) -> str:
        """The licence of the weights of one encoder."""
        return self.weights[encoder].licence if encoder in self.weights else self.unpublished_licence[encoder]


_NAMELESS = ("model.safetensors", "pytorch_model.bin")  # every repository's; there its folder's name tells
_LAST_FOUR = {"vits": (8, 9, 10, 11), "vitb": (8, 9, 10, 11), "vitl": (20, 21, 22, 23)}
_SPREAD = {"vits": (2, 5, 8, 11), "vitb": (2, 5, 8, 11), "vitl": (4, 11, 17, 23)}
_MB = {"vits": 99, "vitb": 390, "vitl": 1340}
_V2_LICENCE = {"vits": "Apache-2.0", "vitb": "CC-BY-NC-4.0", "vitl": "CC-BY-NC-4.0"}
_SIZE_NAME = {"vits": "Small", "vitb": "Base", "vitl": "Large"}


def _v2_weights(repo: str, file: str) -> dict[str, Weights]:
    return {e: Weights(repo.format(_SIZE_NAME[e]), file.format(e), _V2_LICENCE[e], _MB[e]) for e in _MB}


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
        _v2_weights("depth-anything/Depth-Anything-V2-Metric-Hypersim-{}", "depth_anything_v2_metric_hypersim_{}.pth"),
        max_depth=20.0,
        training_focal=886.81 / 768,
    ),
    "v2_metric_outdoor": Model(
        METRIC,
        _SPREAD,
        _v2_weights("depth-anything/Depth-Anything-V2-Metric-VKITTI-{}", "depth_anything_v2_metric_vkitti_{}.pth"),
        max_depth=80.0,
        training_focal=725.0087 / 375,
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


def lookup(model: str, encoder: str) -> tuple[Model, Encoder]:
    """The rows of a model and one of its encoders.

    Raises:
        ModelError: a name that is not in the table, or an encoder that the model does not come with.
    """
    if model not in MODELS:
        raise ModelError(f"unknown model '{model}', expected one of: {', '.join(MODELS)}")
    taps = MODELS[model].taps
    if encoder not in taps:
        raise ModelError(f"model '{model}' has no encoder '{encoder}', expected one of: {', '.join(taps)}")
    return MODELS[model], ENCODERS[encoder]


def check_file_name(path: str, model: str, encoder: str) -> bool:
    """Refuse a published file under the wrong name of a model; True if it is a published one by its name.

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
    return claimed is not None


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
                names[model, encoder] = {PurePath(weights.file).stem.lower()}
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
