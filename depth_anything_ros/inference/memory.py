# SPDX-License-Identifier: Apache-2.0
"""Memory of frames, which is kept; and memory that is no longer needed, which other processes get."""

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


def keep_large_buffers() -> None:
    """Let glibc reuse buffers of image size instead of mapping and page-faulting new ones for every frame.

    M_MMAP_MAX (-4) and M_TRIM_THRESHOLD (-1) of mallopt(3): nothing is mapped by itself, whatever its size, on any thread (a
    cloud of a 1080p image is larger than the largest M_MMAP_THRESHOLD). No other C library is touched.
    """
    if sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):
            libc.mallopt(-4, 0)
            libc.mallopt(-1, 512 << 20)
