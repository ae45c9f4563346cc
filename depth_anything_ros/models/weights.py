# SPDX-License-Identifier: Apache-2.0
"""Where the weights of a model are: a file that the user names, the package itself, or the Hugging Face hub's cache."""

from __future__ import annotations

from pathlib import Path

from .errors import CheckpointError, LicenceError, ModelError
from .own import describes_itself, rows_of
from .zoo import CUSTOM, check_file_name, noncommercial

_EMBEDDED = Path(__file__).resolve().parent.parent / "demo"


def check_licence(model: str, encoder: str, allow_noncommercial: bool, checkpoint: str = "") -> str:
    """The licence of a model's weights, once it is clear that the user may use them.

    Raises:
        LicenceError: the weights are for non-commercial use only and `allow_noncommercial` is false.
    """
    row, _, encoder = rows_of(model, encoder, checkpoint)
    licence = row.licence(encoder)
    if noncommercial(licence) and not allow_noncommercial:
        free = [name for name in row.taps if not noncommercial(row.licence(name))]
        instead = f"encoder {' or '.join(map(repr, free))}" if free else "another model"
        raise LicenceError(
            f"the weights of model '{model}', encoder '{encoder}' are under {licence}: no commercial use. "
            f"Set allow_noncommercial to true if that is what you do, or take {instead}."
            + (f" ({row.weights[encoder].remark})" if encoder in row.weights and row.weights[encoder].remark else "")
        )
    return licence


def locate(
    model: str, encoder: str, checkpoint: str = "", allow_noncommercial: bool = False, download: bool = True
) -> Path | None:
    """The file that holds the weights; downloaded on first use if `checkpoint` is empty.

    Args:
        model: a name of the zoo.
        encoder: one of the model's encoders.
        checkpoint: a file of the user's, or empty for the published one.
        allow_noncommercial: accept weights whose licence forbids commercial use.
        download: whether to reach for the network; without it, None says that a download would be needed.

    Raises:
        CheckpointError: no such file, a file of another model by its name, or a download that failed.
        LicenceError: weights under a licence that was not accepted.
    """
    row, _, encoder = rows_of(model, encoder, checkpoint)
    if checkpoint:
        path = Path(checkpoint).expanduser()
        if not path.is_file():
            raise CheckpointError(f"checkpoint '{path}' does not exist or is not a file")
        if model != CUSTOM and describes_itself(path):
            raise CheckpointError(f"'{path}' is a network of its own, made by depth_finetune: set model to custom")
        if model != CUSTOM:
            check_file_name(str(path.absolute()), model, encoder)
        check_licence(model, encoder, allow_noncommercial, checkpoint)  # whatever the file's name
        return path
    if encoder not in row.weights:
        raise ModelError(
            f"no weights of model '{model}', encoder '{encoder}' are published: set checkpoint to a file of your own"
        )
    check_licence(model, encoder, allow_noncommercial)
    weights = row.weights[encoder]
    if not weights.repo:
        return _EMBEDDED / weights.file

    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import LocalEntryNotFoundError

    where = {"repo_id": weights.repo, "filename": weights.file, "repo_type": weights.repo_type}
    try:
        return Path(hf_hub_download(**where, local_files_only=True))  # a robot that has the file needs no network
    except LocalEntryNotFoundError:
        if not download:
            return None
    try:
        return Path(hf_hub_download(**where))
    except Exception as error:  # the hub client raises many kinds, its HTTP library's among them
        prefix = "spaces/" if weights.repo_type == "space" else ""
        url = f"https://huggingface.co/{prefix}{weights.repo}/resolve/main/{weights.file}"
        raise CheckpointError(
            f"could not download '{weights.file}' ({weights.size_mb} MB) for model '{model}', encoder '{encoder}': "
            f"{type(error).__name__}. Without a network: fetch {url} on another machine, copy it here, and set checkpoint "
            f"to its path. (model 'demo' needs no download; it is for trying things out, not for robots.)"
        ) from error
