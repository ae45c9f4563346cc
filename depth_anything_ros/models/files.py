# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to, which gets that name, and the usual rights, when all of it is on the disk.

    Raises:
        OSError: it could not be written, whatever the library that wrote calls that; `path` is as it was.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.touch()
        rights = partial.stat().st_mode  # as the user's umask has it; safetensors gives the owner's alone
        yield partial
        partial.chmod(rights)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # a power cut must not leave an empty file under the good one's name
        partial.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).split("\n")[0]
        raise OSError(f"'{path}' could not be written ({reason}): is the disk full, or a quota reached?") from error
    finally:
        partial.unlink(missing_ok=True)
