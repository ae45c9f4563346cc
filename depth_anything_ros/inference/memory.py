# SPDX-License-Identifier: Apache-2.0
"""Memory that is no longer needed, for other processes."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading

import torch

CAPTURES = threading.Lock()  # held while a CUDA graph is recorded: torch frees no memory then


def release_memory() -> None:
    """Give back to the system what networks that are gone have left behind. It stops all threads for a moment."""
    gc.collect()
    trim_memory()


def trim_memory() -> None:
    """Give back what passes that are over have left behind, of the device's memory and of ours. It holds up nobody."""
    if torch.cuda.is_initialized():
        with CAPTURES:
            torch.cuda.empty_cache()
    if sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc
            libc.malloc_trim(0)
